"""How varied samples are: distances between random pairs, and the classes that they fall into."""

from __future__ import annotations

import jax
import numpy as np

from mcloop.checks import whole
from mcloop.errors import InputError
from mcloop.metrics.estimate import Estimate, features, permutation


def diversity(x, key=None, pairs: int | None = None) -> Estimate:
    """Mean Euclidean distance between two random samples (Guo et al. 2007.15240, as text-to-motion work reports it).

    Gillman et al.'s released image script pairs two permutations of half the samples, where a sample may meet itself; here
    the pairs are disjoint, which makes the mean unbiased and its standard error that of independent pairs. NumPy, float64.

    Args:
        x: features, shape (n, d).
        key: a JAX key that draws the pairs; None is `jax.random.key(0)`.
        pairs: how many, 2 to n / 2; None is n / 2 (motion work: 300).

    Returns:
        mean and standard error, in units of the features. Compare with the real data's own value: neither more nor
        less is better.

    Raises:
        InputError: features of another shape or not finite, or too few for the pairs.
    """
    x = features("x", x, 4)
    pairs = whole("pairs", len(x) // 2 if pairs is None else pairs, 2, len(x) // 2)
    order = permutation(jax.random.key(0) if key is None else key, len(x))
    distances = np.linalg.norm(x[order[:pairs]] - x[order[pairs : 2 * pairs]], axis=1)
    return Estimate(float(distances.mean()), float(distances.std(ddof=1) / np.sqrt(pairs)))


def class_histogram(predicted, classes: int = 10) -> np.ndarray:
    """The share of each class among samples, float64 (classes,), summing to 1.

    Args:
        predicted: labels (n,) in 0 .. classes - 1, or probabilities (n, classes), which are averaged.

    Raises:
        InputError: labels out of range, or probabilities of another shape, negative, or not summing to 1.
    """
    classes = whole("classes", classes, 1, 10**6)
    predicted = np.asarray(predicted)
    if predicted.ndim == 1 and predicted.dtype.kind in "iu" and len(predicted):
        if predicted.min() < 0 or predicted.max() >= classes:
            raise InputError(f"labels must lie in 0 to {classes - 1}, not {predicted.min()} to {predicted.max()}.")
        return np.bincount(predicted, minlength=classes) / len(predicted)
    if predicted.ndim != 2 or predicted.shape[1] != classes or not len(predicted):
        shape = f"{predicted.dtype} of shape {predicted.shape}"
        raise InputError(f"predicted must be whole labels (n,) or probabilities (n, {classes}), not {shape}.")
    predicted = predicted.astype(np.float64)
    if not (predicted >= 0).all() or not np.allclose(predicted.sum(1), 1, atol=1e-3):
        raise InputError("predicted must be probabilities: at least 0, and each row summing to 1.")
    return predicted.mean(0) / predicted.sum(1).mean()


def total_variation(p, q) -> float:
    """Half the sum of |p - q| of two histograms (classes,): 0 for equal ones, 1 for disjoint ones.

    Raises:
        InputError: unequal lengths, negative entries, or a sum that is not 1.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    good = p.ndim == 1 and p.shape == q.shape and all((h >= 0).all() and abs(h.sum() - 1) < 1e-6 for h in (p, q))
    if not good:
        raise InputError(f"p and q must be shares of the same classes that sum to 1; their shapes are {p.shape} and {q.shape}.")
    return float(abs(p - q).sum() / 2)
