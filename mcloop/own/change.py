"""Whether a batch has another law than the first one: exact permutation tests, and levels that any number of rounds share."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np
from threadpoolctl import ThreadpoolController

MOST = 50_000  # permutations of a round
_LEAST = 999
_ENOUGH = 20  # permutations as extreme as what was seen, after which no more are drawn
_FREQUENCIES = 128  # of the kernel
_DRAWN = 1_000  # real points from which the bandwidth is taken


class Kernel(NamedTuple):
    """A Gaussian kernel exp(-|x - y|^2 / (2 h^2)) by random frequencies (Rahimi and Recht 2007), fixed by real points.

    Attributes:
        frequencies: (d, k), normal with standard deviation 1/h; the kernel is the mean of cos(w . (x - y)) over them, which
            is a kernel itself whatever k is.
    """

    frequencies: np.ndarray

    def features(self, x: np.ndarray) -> np.ndarray:
        """(n, 2 k) of norm one, whose inner products are the kernel."""
        angles = x @ self.frequencies
        return np.concatenate([np.cos(angles), np.sin(angles)], axis=1) / np.sqrt(self.frequencies.shape[1])


def kernel(real: np.ndarray, seed: int) -> Kernel | None:
    """The kernel whose bandwidth is the median distance of different real points (n, d); None where all are alike."""
    rng = np.random.default_rng([seed, 1])
    x = real[rng.permutation(len(real))[:_DRAWN]]
    squares = (x**2).sum(1)
    i, j = np.triu_indices(len(x), 1)
    distances = np.sqrt(np.maximum((squares[:, None] + squares - 2 * x @ x.T)[i, j], 0))
    apart = distances[distances > 1e-6 * distances.max(initial=0)]
    if not len(apart):
        return None
    return Kernel(rng.normal(size=(x.shape[1], _FREQUENCIES)) / np.median(apart))


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """The maximum mean discrepancy of two samples of features (n, k) and (m, k): the root of the unbiased square, or 0."""
    n, m = len(a), len(b)
    sums = a.sum(0), b.sum(0)
    within = (sums[0] @ sums[0] - n) / (n * (n - 1)) + (sums[1] @ sums[1] - m) / (m * (m - 1))
    return float(np.sqrt(max(within - 2 * (sums[0] @ sums[1]) / (n * m), 0.0)))


def level(t: int, false_alarms: float) -> float:
    """The level of round t's test; 0 where the round saves its own for a later one.

    Round t = 2, 3, ... has alpha_t = alpha 6 / (pi^2 (t - 1)^2), and sum_t alpha_t = alpha (Euler: sum 1/k^2 = pi^2/6).
    Where nothing changes, a test of level alpha_t alarms with a chance of at most alpha_t, and whatever the tests have to do
    with one another (all share the first batch), the chance that any of them ever does is at most the sum: the union bound.

    A p-value from B permutations is 1/(B + 1) at the least, and twice that once two tests are combined. A level below what
    50,000 permutations can reach is therefore not wasted on its own round: it is added to that of the next, and so on, until
    their sum can be reached. The levels stay fixed beforehand, and their sum is the same. At alpha = 0.05 every round up
    to 28 is tested, then ever fewer, and none after about 760.
    """
    saved = 0.0
    for k in range(1, t):
        saved += false_alarms * 6 / (np.pi**2 * k**2)
        if saved >= 2 / (MOST + 1):
            found, saved = saved, 0.0
        else:
            found = 0.0
    return found if t > 1 else 0.0


def permutation_p(first: np.ndarray, batch: np.ndarray, kernel_: Kernel, least: float, seed: list[int]) -> float:
    """The p-value of "both samples are of one law", exact at any size: two permutation tests, combined by Bonferroni.

    One test asks for a change of any kind, by the squared discrepancy of the kernel means. The other asks whether the total
    variance has fallen, which is what collapse does, by (V_first - V_batch) / (V_first + V_batch). Under the null the union's
    points are exchangeable, so that every assignment of them to the two samples is as likely as the one seen. Permutations
    are drawn one after another until 20 are as extreme as what was seen, p = 20 / l after l of them, or B are drawn,
    p = (1 + extreme ones)/(B + 1); both are exact (Besag and Clifford 1991), and only what is extreme costs all B.

    Args:
        first, batch: (n, d) and (m, d).
        least: the level that p must be able to get below.
        seed: of the permutations.

    Returns:
        min(1, 2 min(p, p')).
    """
    n, m = len(first), len(batch)
    x = np.concatenate([first, batch])
    x = x - x.mean(0)
    x /= max(np.sqrt((x**2).sum(1).mean()), 1e-300)
    points = np.concatenate([(x**2).sum(1)[:, None], x, kernel_.features(np.concatenate([first, batch]))], axis=1)
    d, whole = x.shape[1], points.sum(0)

    def statistics(sums: np.ndarray) -> np.ndarray:
        """(2, permutations) of the sums over the points that are called first."""
        a, b = sums / n, (whole - sums) / m
        va, vb = (np.maximum(s[:, 0] - (s[:, 1 : d + 1] ** 2).sum(1), 0.0) for s in (a, b))
        return np.stack([((a - b)[:, d + 1 :] ** 2).sum(1), (va - vb) / np.maximum(va + vb, 1e-300)])

    seen = statistics(points[:n].sum(0)[None])[:, 0]
    most = int(np.clip(np.ceil(4 / least), _LEAST + 1, MOST)) if least > 0 else _LEAST
    rng, drawn, extreme, p = np.random.default_rng(seed), 0, np.zeros(2, int), np.full(2, np.nan)
    while drawn < most and np.isnan(p).any():
        count = min(most - drawn, 100 if drawn < 200 else 500)
        chosen = np.zeros((count, n + m))
        order = np.argpartition(rng.random((count, n + m)), n, axis=1)[:, :n]
        np.put_along_axis(chosen, order, 1.0, axis=1)
        with _threads().limit(limits=1):  # no faster by more threads, which wait for each other on a busy machine
            sums = chosen @ points
        # a tie counts as extreme, and rounding must not undo one
        hits = statistics(sums) >= seen[:, None] - 1e-10
        for k in np.flatnonzero(np.isnan(p)):
            so_far = extreme[k] + np.cumsum(hits[k])
            if so_far[-1] >= _ENOUGH:
                p[k] = _ENOUGH / (drawn + 1 + np.argmax(so_far >= _ENOUGH))
            extreme[k] = so_far[-1]
        drawn += count
    p = np.where(np.isnan(p), (extreme + 1) / (most + 1), p)
    return float(min(1.0, 2 * p.min()))


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()  # looks through all libraries that are loaded: once, and not a permutation
