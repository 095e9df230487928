"""Square roots of covariances against NumPy in float64: every size, singular ones, and scales near the end of float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mcloop import correctors, exact, regimes
from mcloop.drivers.scan import scan
from mcloop.exact import factors
from mcloop.exact.normal import Statistics
from mcloop.laws import LAWS
from mcloop.loop import make_loop

SIZES = (1, 2, 3, 5, 20)
SCALES = np.array([1.0, 1e-15, 1e12, 1.0, 0.0])  # cells: plain, tiny, huge, singular, nothing at all
SINGULAR = 3
FURTHER = np.float32([1.0, 1e-10, 1e12, 1.0, 1.0])  # out to where a square leaves float32


def triangular(d, seed):
    """(d, d, cells), lower-triangular: one a scale; the singular one has lost its first direction."""
    x = np.tril(np.random.default_rng(seed).normal(size=(d, d)))[..., None] * SCALES
    x[0, :, SINGULAR] = 0
    return x.astype(np.float32)


def gram(x):
    x = np.asarray(x, np.float64)
    return np.einsum("ik...,jk...->ij...", x, x)


def same(found, ideal, tolerance=3e-6):
    """Entry by entry, relative to the largest of its cell."""
    found, ideal = np.asarray(found, np.float64), np.asarray(ideal, np.float64)
    assert found.shape == ideal.shape and np.isfinite(found).all()
    largest = np.abs(ideal).reshape(-1, ideal.shape[-1]).max(0)
    worst = np.abs(found - ideal).reshape(-1, ideal.shape[-1]).max(0)
    assert (worst <= tolerance * largest).all(), (worst, largest)


def is_root(found, matrix, tolerance=3e-6):
    d = len(matrix)
    assert (np.asarray(found)[np.triu_indices(d, 1)] == 0).all()
    same(gram(found), matrix, tolerance)


@pytest.fixture(scope="module", params=SIZES)
def made(request):
    """d, what went in, and what came out of one compiled call."""
    d = request.param
    rng = np.random.default_rng(d)
    a, b, gap = triangular(d, 1), triangular(d, 2), (rng.normal(size=(d, 1)) * SCALES).astype(np.float32)
    gap[0, SINGULAR] = 0
    rows = {r: (rng.normal(size=(r, d, 1)) * SCALES).astype(np.float32) for r in (max(1, d - 1), d + 4)}
    matrix = gram(rng.normal(size=(d, 3 * d + 3, 1)) * SCALES[:2]).astype(np.float32)
    whole = np.eye(d)[..., None] + triangular(d, 3)[..., :1]

    @jax.jit
    def run(a, b, gap, matrix, rows, whole):
        return {
            "union": factors.union(a * FURTHER, b * FURTHER),
            "union with a gap": factors.union(a, b, gap),
            "product": factors.product(a, b),
            "matvec": factors.matvec(a, gap),
            "transposed_matvec": factors.transposed_matvec(a, gap),
            "transposed_solve": factors.transposed_solve(whole, gap),
            "of_matrix": factors.of_matrix(matrix),
            "cholesky": factors.cholesky(matrix),
            "of_rows": {r: factors.of_rows(x) for r, x in rows.items()},
            "lower": factors.lower(gap, jnp.concatenate([a[i, :i] for i in range(d)])),
            "total": factors.total(a, 2),
        }

    return d, (a, b, gap, matrix, rows, whole), run(a, b, gap, matrix, rows, whole.astype(np.float32))


def test_a_union_is_the_root_of_the_sum(made):
    _, (a, b, gap, *_), out = made
    is_root(out["union"], (gram(a) + gram(b)) * FURTHER.astype(np.float64) ** 2)
    is_root(out["union with a gap"], gram(a) + gram(b) + gram(gap[:, None]))


def test_products_are_those_of_matrices(made):
    _, (a, b, gap, _, _, whole), out = made
    a, b, gap = (x.astype(np.float64) for x in (a, b, gap))
    same(out["product"], np.einsum("ij...,jk...->ik...", a, b))
    same(out["matvec"], np.einsum("ij...,j...->i...", a, gap))
    same(out["transposed_matvec"], np.einsum("ji...,j...->i...", a, gap))
    same(out["total"][None], a.sum((0, 1))[None], 1e-5 * max(1, len(a)))
    if np.linalg.cond(whole[..., 0]) < 1e3:
        same(out["transposed_solve"], np.linalg.solve(whole[..., 0].T, gap), 1e-3)


def test_roots_of_rows_and_matrices(made):
    d, (_, _, _, matrix, rows, _), out = made
    for r, x in rows.items():
        is_root(out["of_rows"][r], np.einsum("ri...,rj...->ij...", *[x.astype(np.float64)] * 2))
    same(gram(out["of_matrix"]), matrix, 1e-5)
    same(gram(out["cholesky"]), matrix, 1e-5)
    assert d == 1 or (np.triu(np.asarray(out["cholesky"])[..., 0], 1) == 0).all()


def test_lower_puts_entries_where_they_belong(made):
    _, (a, _, gap, *_), out = made
    ideal = np.stack([np.tril(a[..., i], -1) + np.diag(gap[:, i]) for i in range(len(SCALES))], -1)
    np.testing.assert_array_equal(out["lower"], ideal)


def test_negative_eigenvalues_and_pivots_count_as_zero():
    indefinite = jnp.float32([[1, 2], [2, 1]])  # eigenvalues 3 and -1
    is_root(np.asarray(factors.of_matrix(indefinite))[..., None], np.full((2, 2, 1), 1.5))
    root = factors.cholesky(indefinite)
    np.testing.assert_allclose(root, [[1, 0], [2, 0]])
    np.testing.assert_allclose(factors.cholesky(jnp.zeros((2, 2))), 0)


def test_bartlett_is_wishart_whatever_its_degrees_of_freedom():
    d, replicas = 3, 20_000
    dof = jnp.float32([[0], [1], [2], [7]])
    keys = jax.random.split(jax.random.key(0), (1, replicas))
    drawn = np.asarray(jax.jit(lambda k: factors.bartlett(k, d, dof))(keys))
    scatter = gram(drawn)
    for i, k in enumerate((0, 1, 2, 7)):
        mean = scatter[:, :, i].mean(-1)
        assert (np.abs(mean - k * np.eye(d)) <= 4 * np.sqrt(k * (1 + np.eye(d)) / replicas)).all()
        trace = np.trace(scatter[:, :, i])
        if k:  # chi-square of d k degrees of freedom
            assert abs(trace.var() / (2 * d * k) - 1) < 4 * np.sqrt((2 + 12 / (d * k)) / replicas)
        assert (np.linalg.matrix_rank(drawn[:, :, i, :50].transpose(2, 0, 1)) == min(k, d)).all()


@pytest.mark.parametrize("covariance", ["full", "diagonal", "isotropic"])
def test_merging_batches_is_the_covariance_of_all_points(covariance):
    rng = np.random.default_rng(5)
    d, batches = 3, [rng.normal(size=(8, 3)) * [1, 30, 0.01] + rng.normal(size=3) * [5, 1, 0.02] for _ in range(50)]
    model = exact.gaussian(d=d, n=8, covariance=covariance)
    stats = [_summary(b, covariance) for b in batches]
    first, rest = stats[0], jax.tree.map(lambda *x: np.stack(x), *stats[1:])
    pool = jax.jit(lambda a, r: jax.lax.scan(lambda a, b: (model.memory.merge(a, b), None), a, r)[0])(first, rest)
    fitted, _ = model.fit(None, None, pool)
    points = np.concatenate(batches)
    cov = np.cov(points.T, ddof=0)
    np.testing.assert_allclose(fitted.mean, points.mean(0), rtol=1e-4, atol=1e-6)
    assert float(pool.size) == 400
    if covariance == "full":
        scale = np.sqrt(np.outer(np.diag(cov), np.diag(cov)))
        assert np.abs((gram(fitted.root) - cov) / scale).max() < 1e-5
    else:
        ideal = np.diag(cov) if covariance == "diagonal" else np.diag(cov).mean(keepdims=True)
        np.testing.assert_allclose(np.asarray(fitted.root) ** 2, ideal, rtol=1e-5)


def _summary(points, covariance):
    """The sufficient statistics of one batch, by NumPy."""
    scatter = np.cov(points.T, ddof=0) * len(points)
    squares = np.diag(scatter) if covariance == "diagonal" else np.diag(scatter).mean(keepdims=True)
    root = np.linalg.cholesky(scatter) if covariance == "full" else np.sqrt(squares)
    return Statistics(*(np.float32(x) for x in (len(points), 0, points.mean(0), root)))


@pytest.mark.parametrize(("d", "n", "covariance"), [(1, 5, "full"), (3, 8, "full"), (2, 5, "diagonal")])
def test_the_determinant_goes_on_where_float32_ends(d, n, covariance):
    replicas = 300
    loop = make_loop(exact.gaussian(d=d, n=n, ddof=1, covariance=covariance), regimes.replace())
    infos = scan(loop, jax.random.split(jax.random.key(12), replicas), generations=2000)[1]
    log_det, trace = (np.asarray(infos[name], np.float64) for name in ("log_det", "trace_ratio"))
    assert np.isfinite(log_det).all()
    assert (log_det[-1] < d * np.log(1e-70)).all() and (trace[-1] == 0).all()
    if d == 1:
        alive = log_det > np.log(1e-30)
        np.testing.assert_allclose(np.log(trace[alive]), log_det[alive], atol=1e-3)
    volume = LAWS["G8"] if covariance == "full" and d > 1 else None  # independent axes: each has the law of one dimension

    def law(form, g):
        return getattr(volume, form)([g], n=n, d=d)[0] if volume else d * getattr(LAWS["G6"], form)([g], n=n)[0]

    for g in (100, 300, 2000):
        sample = log_det[g - 1]
        error = sample.std() / np.sqrt(replicas)
        assert abs(sample.mean() - law("value", g)) < 4 * error
        assert g < 2000 or abs(sample.mean() - law("wrong", g)) > 4 * error
    # and with a scale that falls by itself
    cold = make_loop(exact.gaussian(d=d, n=n, ddof=1, covariance=covariance), regimes.replace(), correctors.temperature(0.25))
    shrunk = np.asarray(scan(cold, jax.random.split(jax.random.key(12), replicas), generations=200)[1]["log_det"], np.float64)
    np.testing.assert_allclose(shrunk, log_det[:200] + d * np.log(0.25) * np.arange(200)[:, None], atol=0.05)
