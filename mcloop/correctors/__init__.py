"""What is done to synthetic data before it is trained on: correction, curation, verification, guidance."""

from mcloop.correctors.closed_form import (
    best_of_k,
    extrapolate,
    histogram,
    mixture,
    none,
    pointwise,
    temperature,
    verifier,
)
from mcloop.correctors.nearest_centroid import fit_centroids, nearest_centroid

__all__ = [
    "best_of_k",
    "extrapolate",
    "fit_centroids",
    "histogram",
    "mixture",
    "nearest_centroid",
    "none",
    "pointwise",
    "temperature",
    "verifier",
]
