"""Results as an xarray.Dataset: named dimensions, and on every variable what it is, in what units, and how it was made."""

from __future__ import annotations

import platform
import re
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
    "sliced_w2": ("sliced Wasserstein-2 distance to real points", "data units"),
    "mmd2": ("squared maximum mean discrepancy to real points", "1"),
    "high_quality": ("share of the samples that lie where real data do", "1"),
    "nll": ("negative log-likelihood of real test points", "nats"),
    "kl_modes": ("Kullback-Leibler divergence of the samples' mode frequencies from the true ones", "nats"),
    "param_distance": ("distance of the parameters from those of the reference model, relative to its norm", "1"),
    "field_distance": ("root mean square distance of the network's output from the reference model's", "output units"),
    "fid": ("Frechet distance to the real test set in feature space", "feature units^2"),
    "fid_inf": ("Frechet distance in feature space, extrapolated to infinitely many samples", "feature units^2"),
    "kid": ("kernel distance (polynomial MMD^2) to the real test set in feature space", "1"),
    "precision": ("share of the samples that lie in the real points' manifold", "1"),
    "recall": ("share of the real points that lie in the samples' manifold", "1"),
    "density": ("real neighbourhoods that hold a sample, on average over samples", "1"),
    "coverage": ("share of the real points with a sample in their neighbourhood", "1"),
    "diversity": ("mean distance between pairs of samples in feature space", "feature units"),
    "class_tv": ("total variation between the class histogram and the real one", "1"),
    "cross_entropy": ("cross-entropy on held-out real text", "nats a token"),
    "excess": ("divergence from the truth: cross-entropy - entropy", "nats a story"),
    "own_perplexity": ("perplexity on its own stories", "1"),
    "ungrammatical": ("share of stories off the true grammar", "1"),
    "rare_lost": ("share of all things that no story mentions", "1"),
    "distinct_1": ("distinct tokens over all of them", "1"),
    "distinct_2": ("distinct pairs of tokens over all of them", "1"),
    "distinct_3": ("distinct triples of tokens over all of them", "1"),
    "repetition": ("share of a story's 4-grams that it has said before", "1"),
    "lost_words": ("share of real tokens that never occur", "1"),
    "lost_word_mass": ("probability in real text of the tokens that never occur", "1"),
    "story_length": ("mean length of a story", "tokens"),
    "unfinished": ("share of the stories without an end", "1"),
    "ngram_frechet": ("Frechet distance in n-gram space", "1"),
    "mauve": ("area under the divergence frontier (n-grams)", "1"),
    "copied": ("share of stories with a copied passage", "1"),
    "gap": ("distance of two loops under the same random numbers, of what it was at first", "1"),
    "log_growth": ("log of the factor by which a generation multiplies a small difference", "1"),
    "loss": ("training loss at the end of the generation", "1"),
    "seconds": ("wall time of the generation", "s"),
}

AXES: dict[str, str] = {
    "regime": "what is remembered",
    "arm": "what a generation is trained on, and whether that is corrected",
    "family": "model family",
    "lam": "synthetic : real ratio",
    "gamma": "correction strength",
    "n": "real points",
    "s": "spread of the sampler, as a multiple of the model's",
    "temperature": "sampling temperature",
    "ablation": "what differs from the study",
    "count": "real stories",
    "things": "things that a story may be about",
    "d": "dimension",
    "seed": "replica",
    "generation": "fits so far (1 = the fit on real data)",
    "statistic": "statistic over seeds",
}


DISTANCES = ("w2", "sliced_w2", "field_distance", "param_distance")  # whose squares are what an error is
FIRST_FIT = "first_fit_"  # begins the names of what is seen of generation 1 alone
INSIDE = ("seed", "statistic", "generation")  # dimensions of a measure that are not axes of the grid


def of_first_fit(name: str) -> str:
    """What a variable is that was seen of generation 1 alone, in words."""
    kind, _, measure = name.removeprefix(FIRST_FIT).partition("_")
    what = VARIABLES.get(measure, (measure, ""))[0]
    said = {
        "half": f"{what}, after half the steps of the first fit",
        "finer": f"{what}, at generation 1 by a sampler of more steps",
    }
    return said.get(kind, "mean loss of the last tenth of the first fit minus that of the tenth before it")


def measures(ds) -> list[str]:
    """The scalars of a Dataset: variables over generations and seeds (or statistics over seeds), pictures left out."""
    return [str(n) for n, v in ds.data_vars.items() if "generation" in v.dims and ("seed" in v.dims or "statistic" in v.dims)]


def pictures(ds) -> list[str]:
    """The pictures of a Dataset: variables with the attribute `picture`, "images" or "density", one for every generation.

    A companion `real_NAME`, which has the attribute `real` and no generations, is not listed: see `mcloop.report.pictures`.
    """
    return [str(n) for n, v in ds.data_vars.items() if v.attrs.get("picture") and not v.attrs.get("real")]


def short(value: Any) -> str:
    """A coordinate's value: a name, or a number without needless digits."""
    return str(value) if isinstance(value, str) else f"{value:g}"


def named(axis: str, value: Any) -> str:
    """A coordinate in words: "lam 0.5"; a string stands for itself."""
    return short(value) if isinstance(value, str) else f"{axis} {short(value)}"


def unplaced(text: str) -> str:
    """A text without where its files lie: of an absolute path only the last name stays, which says what was read."""
    return _PATHS.sub(lambda found: found[0].rstrip("/\\").replace("\\", "/").rsplit("/", 1)[-1], text)


# two or more names behind a root: "/home/me/data.csv", "C:\\Users\\me\\data.csv", "~/data.csv"; no URL, and no fraction
_PATHS = re.compile(
    r"(?<![\w/:.])(?:~(?=/)|[A-Za-z]:(?=[\\/]))?(?:[\\/][^\s\\/'\"`;,()<>|]+){2,}|(?<![\w/:.])~/[^\s'\"`;,()<>|]+"
)


def number(mean: float, sem: float) -> str:
    """ "mean +- standard error" as tables and sentences show it; "" for a NaN."""
    if not np.isfinite(mean):
        return "" if np.isnan(mean) else str(mean)
    return f"{mean:.4g} +- {sem:.1g}" if np.isfinite(sem) else f"{mean:.4g}"


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
