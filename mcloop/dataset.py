"""Results as an xarray.Dataset: named dimensions, and on every variable what it is, in what units, and how it was made."""

from __future__ import annotations

import platform
from importlib import metadata
from typing import Any

import numpy as np

# name -> (what it is, units)
VARIABLES: dict[str, tuple[str, str]] = {
    "trace_ratio": ("trace of the fitted covariance over that of the truth", "1"),
    "mean_sq_error": ("squared distance of the fitted mean from the true one", "data units^2"),
    "w2": ("Wasserstein-2 distance of the fitted model from the truth", "data units"),
    "log_det": ("log determinant of the fitted covariance minus that of the truth", "nats"),
    "test_error": ("excess test risk of the fitted coefficients, |w - w*|^2 in the design covariance", "label units^2"),
    "ridge_test_error": ("excess test risk of a ridge fit to the generation's data", "label units^2"),
    "held_out_error": ("mean squared error on held-out rows", "label units^2"),
    "heterozygosity": ("probability that two draws differ, 1 - sum p^2", "1"),
    "lost_mass": ("true probability of the categories that the model can no longer draw", "1"),
    "distinct": ("share of the categories that the model can still draw", "1"),
    "kl": ("Kullback-Leibler divergence of the model from the truth", "nats"),
    "mean": ("fitted mean", "data units"),
    "variance_ratio": ("variance function at the fitted mean over that at the true one", "1"),
    "second_moment": ("second moment of the fitted density, a dimension", "data units^2"),
    "mode_coverage": ("share of the true modes that the model still holds", "1"),
    "unit_error": ("the error that real data alone would leave", "as the error's"),
    "effective_lam": ("synthetic : real weight of the generation's training set", "1"),
}

AXES: dict[str, str] = {
    "regime": "what is remembered",
    "family": "model family",
    "lam": "synthetic : real ratio",
    "gamma": "correction strength",
    "n": "real points",
    "d": "dimension",
    "seed": "replica",
    "generation": "fits so far (1 = the fit on real data)",
    "statistic": "statistic over seeds",
}


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    found = {"python": platform.python_version()}
    for name in ("mcloop", "jax", "jaxlib", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "unknown"
    return found


def assemble(values: dict[str, np.ndarray], axes: dict[str, Any], attributes: dict[str, Any]):
    """A Dataset from arrays that all have the dimensions of `axes`, in that order.

    Args:
        values: name -> array.
        axes: dimension -> coordinates.
        attributes: of the whole Dataset; None values are left out.
    """
    import xarray as xr

    dims = tuple(axes)
    variables = {}
    for name, array in values.items():
        long_name, units = VARIABLES.get(name, (name, ""))
        variables[name] = (dims, array, {"long_name": long_name, "units": units})
    coordinates = {d: (d, np.asarray(c), {"long_name": AXES.get(d, d)}) for d, c in axes.items()}
    made = {f"version_{k}": v for k, v in versions().items()}
    return xr.Dataset(variables, coordinates, {k: v for k, v in (made | attributes).items() if v is not None})
