"""The loops that mcloop is timed against: the papers' style, one cell and one sample at a time, and vectorised NumPy.

A loop peer is (rng, generations) -> the measure of one cell's last generation; a vectorised one is
(rng, cells, generations) -> the same of every cell, shape (cells,). Generation 1 is the fit on real data.
"""

from __future__ import annotations

import numpy as np

F32 = np.float32


def gaussian_loop(rng, generations, *, d, n, accumulate=False):
    """N(0, I), refitted with np.mean and np.cov; the pool, if any, grows by concatenation. Trace ratio."""
    pool = rng.normal(size=(n, d))
    for _ in range(generations - 1):
        mean, cov = pool.mean(0), np.cov(pool.T)
        new = rng.multivariate_normal(mean, cov, n, method="cholesky", check_valid="ignore")
        pool = np.concatenate([pool, new]) if accumulate else new
    return np.trace(np.cov(pool.T)) / d


def gaussian_pairs(rng, cells, generations, *, n):
    """d = 2, replace: every draw of every cell at once, with the cells innermost and the 2 x 2 algebra written out."""
    m0, m1, a, b, c = np.zeros((5, cells), F32) + np.array([0, 0, 1, 0, 1], F32)[:, None]
    for _ in range(generations):
        z = rng.standard_normal((2, n, cells), F32)
        x, y = m0 + a * z[0], m1 + b * z[0] + c * z[1]
        m0, m1 = x.mean(0), y.mean(0)
        x, y = x - m0, y - m1
        xx, xy, yy = (np.einsum("nc,nc->c", p, q) / (n - 1) for p, q in ((x, x), (x, y), (y, y)))
        a = np.sqrt(xx)
        b = xy / a
        c = np.sqrt(np.maximum(yy - b * b, 0))
    return (a * a + b * b + c * c) / 2


def gaussian_batched(rng, cells, generations, *, d, n, accumulate=False):
    """Any d: batched matrix products and Cholesky factors; `accumulate` merges moments, at a cost free of the pool's age.

    In double precision: a hundred generations leave covariances that single precision cannot factorise.
    """
    draws = rng.standard_normal((cells, n, d))
    mean = draws.mean(1, keepdims=True)
    scatter, size = np.matmul((draws - mean).transpose(0, 2, 1), draws - mean), n
    for _ in range(generations - 1):
        root = np.linalg.cholesky(scatter / (size - 1))
        draws = mean + rng.standard_normal((cells, n, d)) @ root.transpose(0, 2, 1)
        centre = draws.mean(1, keepdims=True)
        new = np.matmul((draws - centre).transpose(0, 2, 1), draws - centre)
        if accumulate:
            gap = centre - mean
            scatter = scatter + new + size * n / (size + n) * gap.transpose(0, 2, 1) * gap
            mean, size = mean + gap * n / (size + n), size + n
        else:
            mean, scatter = centre, new
    return np.trace(scatter, axis1=1, axis2=2) / (size - 1) / d


def gaussian_bartlett(rng, cells, generations, *, d, n):
    """Replace, with mcloop's own idea in NumPy: the sample mean and a Wishart factor in place of the n draws."""
    mean, root = np.zeros((cells, d, 1), F32), np.broadcast_to(np.eye(d, dtype=F32), (cells, d, d))
    below = np.tril_indices(d, -1)
    for _ in range(generations):
        factor = np.zeros((cells, d, d), F32)
        factor[:, below[0], below[1]] = rng.standard_normal((cells, len(below[0])), F32)
        factor[:, range(d), range(d)] = np.sqrt(2 * rng.standard_gamma((n - 1 - np.arange(d)) / 2, (cells, d)))
        mean = mean + root @ rng.standard_normal((cells, d, 1), F32) / F32(np.sqrt(n))
        root = root @ factor / F32(np.sqrt(n - 1))
    return np.einsum("cij,cij->c", root, root) / d


def ols_loop(rng, generations, *, d, n, accumulate=False):
    """Least squares on one design, labelled anew by every fit; the pool of rows grows by concatenation. Squared error."""
    design = rng.normal(size=(n, d))
    rows, labels = design, rng.normal(size=n)
    for _ in range(generations - 1):
        w = np.linalg.lstsq(rows, labels, rcond=None)[0]
        new = design @ w + rng.normal(size=n)
        rows, labels = (np.concatenate([rows, design]), np.concatenate([labels, new])) if accumulate else (design, new)
    w = np.linalg.lstsq(rows, labels, rcond=None)[0]
    return w @ w


def ols_batched(rng, cells, generations, *, d, n, accumulate=False):
    """Every cell's pseudo-inverse once; then a generation is two products, and accumulation a running mean of labels."""
    design = rng.standard_normal((cells, n, d), F32)
    inverse = np.linalg.solve(design.transpose(0, 2, 1) @ design, design.transpose(0, 2, 1))
    w, labels = np.zeros((cells, d, 1), F32), F32(0)
    for t in range(generations):
        new = design @ w + rng.standard_normal((cells, n, 1), F32)
        labels = labels + (new - labels) / F32(t + 1) if accumulate else new
        w = inverse @ labels
    return np.einsum("cij,cij->c", w, w)


def zipf(k):
    """Probabilities proportional to 1 / rank."""
    p = 1 / np.arange(1, k + 1)
    return p / p.sum()


def words_loop(rng, generations, *, k, n, lam=None):
    """Tokens from their own frequencies; with `lam` the real ones are kept, and lam n new ones drawn. Heterozygosity."""
    real = np.bincount(rng.choice(k, n, p=zipf(k)), minlength=k)
    p = real / n
    for _ in range(generations - 1):
        new = np.bincount(rng.choice(k, n if lam is None else int(lam * n), p=p), minlength=k)
        counts = new if lam is None else real + new
        p = counts / counts.sum()
    return 1 - p @ p


def words_batched(rng, cells, generations, *, k, n, lam=None):
    """The same by NumPy's own multinomial, all cells at once."""
    real = rng.multinomial(n, zipf(k), cells)
    p = real / n
    for _ in range(generations - 1):
        new = rng.multinomial(n if lam is None else int(lam * n), p)
        p = new / n if lam is None else (real + new) / (n + int(lam * n))
    return 1 - np.einsum("ck,ck->c", p, p)


def coins_loop(rng, generations, *, n):
    """Bernoulli, replace: n flips a generation. Mean."""
    p = 0.5
    for _ in range(generations):
        p = (rng.random(n) < p).mean()
    return p


def coins_batched(rng, cells, generations, *, n):
    p = np.full(cells, 0.5)
    for _ in range(generations):
        p = rng.binomial(n, p) / n
    return p


def poisson_loop(rng, generations, *, n):
    """Poisson, accumulate: n draws a generation, all kept. Mean."""
    pool = rng.poisson(1.0, n)
    for _ in range(generations - 1):
        pool = np.concatenate([pool, rng.poisson(pool.mean(), n)])
    return pool.mean()


def poisson_batched(rng, cells, generations, *, n):
    total = rng.poisson(float(n), cells)
    for t in range(1, generations):
        total = total + rng.poisson(total / t)
    return total / (n * generations)


def kde_loop(rng, generations, *, d, n, bandwidth):
    """A kernel estimate's own draws, replace. Second moment, kernel included."""
    points = rng.normal(size=(n, d))
    for _ in range(generations - 1):
        points = points[rng.integers(0, n, n)] + bandwidth * rng.normal(size=(n, d))
    return (points**2).mean() + bandwidth**2


def kde_batched(rng, cells, generations, *, d, n, bandwidth):
    points, rows = rng.standard_normal((cells, n, d), F32), np.arange(cells)[:, None]
    for _ in range(generations - 1):
        points = points[rows, rng.integers(0, n, (cells, n))]
        points += F32(bandwidth) * rng.standard_normal((cells, n, d), F32)
    return (points**2).mean((1, 2)) + bandwidth**2


def mixture_loop(rng, generations, **law):
    """EM from the previous parameters on fresh draws, one cell. Trace ratio."""
    return mixture_batched(rng, 1, generations, **law)[0]


def mixture_batched(rng, cells, generations, *, k, n, steps, separation):
    """Diagonal mixtures in the plane, refitted by `steps` of EM; the truth's centres lie on a circle."""
    angle = 2 * np.pi * np.arange(k) / k
    truth = separation / (2 * np.sin(np.pi / k)) * np.stack([np.cos(angle), np.sin(angle)], 1)
    weight, mean, variance = np.full((cells, k), 1 / k), np.tile(truth, (cells, 1, 1)), np.ones((cells, k, 2))
    rows = np.arange(cells)[:, None]
    for _ in range(generations):
        which = (rng.random((cells, n, 1)) > np.cumsum(weight, 1)[:, None]).sum(2).clip(max=k - 1)
        x = mean[rows, which] + np.sqrt(variance[rows, which]) * rng.standard_normal((cells, n, 2))
        floor = 1e-6 * x.var(1)[:, None]
        for _ in range(steps):
            gap = x[:, :, None] - mean[:, None]
            log_p = np.log(weight)[:, None] - ((gap**2 / variance[:, None]) + np.log(variance)[:, None]).sum(3) / 2
            share = np.exp(log_p - log_p.max(2, keepdims=True))
            share /= share.sum(2, keepdims=True)
            size = share.sum(1)
            mean = np.matmul(share.transpose(0, 2, 1), x) / size[..., None]
            second = np.matmul(share.transpose(0, 2, 1), x**2) / size[..., None]
            weight, variance = size / n, np.maximum(second - mean**2, floor)
    return _trace(weight, mean, variance) / _trace(np.full((1, k), 1 / k), truth[None], np.ones((1, k, 2)))


def _trace(weight, mean, variance):
    centre = (weight[..., None] * mean).sum(1)
    return ((weight[..., None] * (mean**2 + variance)).sum(1) - centre**2).sum(1)


def toy_loop(rng, generations, *, gamma, n=50, m=25):
    """Gillman et al.'s released toy: fit, 25 draws, a 10 x 10 histogram, rejection one candidate at a time. Trace ratio."""
    t, real, steps = gamma / (1 + gamma), rng.normal(size=(n, 2)), []
    data = real
    for step in range(1, generations + 1):
        mean, cov = data.mean(0), np.cov(data.T, ddof=0) + 1e-6 * np.eye(2)
        if step == generations:
            return np.trace(cov) / 2
        draws = rng.multivariate_normal(mean, cov, m)
        hist, xs, ys = np.histogram2d(draws[:, 0], draws[:, 1], bins=10, density=True)
        bound = ((1 - t) * hist.max() + t / (2 * np.pi)) / (1 / (2 * np.pi))
        accepted = []
        while len(accepted) < m:
            x, y = rng.normal(size=2)
            i, j = int((x - xs[0]) / (xs[1] - xs[0])), int((y - ys[0]) / (ys[1] - ys[0]))
            here = hist[i, j] if 0 <= i < 10 and 0 <= j < 10 else 0.0
            ideal = np.exp(-(x * x + y * y) / 2) / (2 * np.pi)
            if rng.random() < ((1 - t) * here + t * ideal) / (bound * ideal):
                accepted.append((x, y))
        steps.append(np.array(accepted))
        data = np.concatenate([real] + [points[: int(i / step * m)] for i, points in enumerate(steps, 1)])


def toy_batched(rng, cells, generations, *, gamma, n=50, m=25):
    """The same for many cells: candidates proposed together, and the pool's moments from running sums."""
    t, rows = gamma / (1 + gamma), np.arange(cells)[:, None]
    real = _moments(rng.normal(size=(n, cells, 2))).sum(0)
    sums, history = real, np.zeros((generations, m, cells, 6))
    for step in range(1, generations + 1):
        mean = sums[:, 1:3] / sums[:, :1]
        xx, xy, yy = (sums[:, 3:] / sums[:, :1] - mean[:, [0, 0, 1]] * mean[:, [0, 1, 1]]).T + [[1e-6], [0], [1e-6]]
        if step == generations:
            return (xx + yy) / 2
        z = rng.standard_normal((2, cells, m))
        a = np.sqrt(xx)[:, None]
        b = xy[:, None] / a
        draws = mean[..., None] + np.stack([a * z[0], b * z[0] + np.sqrt(yy[:, None] - b * b) * z[1]], 1)
        low, width = draws.min(2), (draws.max(2) - draws.min(2)) / 10
        bins = ((draws - low[..., None]) / width[..., None]).astype(int).clip(max=9)
        hist = np.zeros((cells, 100))
        np.add.at(hist, (rows, bins[:, 0] * 10 + bins[:, 1]), 1)
        hist /= m * width.prod(1)[:, None]
        points = _reject(rng, hist, low, width, t, m)
        history[step] = history[step - 1] + _moments(points.transpose(1, 0, 2))
        dropped = ((np.arange(1, step + 1) / step * m).astype(int)[:, None] <= np.arange(m)).sum(0)
        sums = real + (history[step] - history[dropped, np.arange(m)]).sum(0)


def _reject(rng, hist, low, width, t, m):
    """(cells, m, 2) points; all slots that are still empty get a candidate at once."""
    bound = (1 - t) * hist.max(1) + t / (2 * np.pi)
    points, (cell, slot) = np.empty((len(hist), m, 2)), np.indices((len(hist), m)).reshape(2, -1)
    while len(cell):
        x, ideal = rng.standard_normal((len(cell), 2)), 1 / (2 * np.pi)
        at = ((x - low[cell]) / width[cell]).astype(int)
        inside, at = ((at >= 0) & (at < 10)).all(1), at.clip(0, 9)
        here = np.where(inside, hist[cell, at[:, 0] * 10 + at[:, 1]], 0.0)
        shape = np.exp(-(x**2).sum(1) / 2)
        kept = rng.random(len(cell)) * bound[cell] * shape < (1 - t) * here + t * ideal * shape
        points[cell[kept], slot[kept]] = x[kept]
        cell, slot = cell[~kept], slot[~kept]
    return points


def _moments(x):
    """(..., 2) -> (..., 6): one, the point, and its three products."""
    return np.stack([np.ones(x.shape[:-1]), x[..., 0], x[..., 1], x[..., 0] ** 2, x[..., 0] * x[..., 1], x[..., 1] ** 2], -1)
