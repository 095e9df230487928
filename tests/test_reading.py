"""What a user gives as real data and as keys: taken to its last digit, or refused in one sentence."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.sparse
import xarray
from scipy import stats

import mcloop
from mcloop import exact, regimes

KEY = jax.random.key(0)
X = np.random.default_rng(1).normal(size=(30, 2))


def run(model, real, key=KEY, generations=3):
    return mcloop.scan(mcloop.make_loop(model, regimes.replace()), key, real, generations=generations)[1]


def start(model, real):
    """What is read of the data, as numbers by place."""
    return dict(enumerate(jax.tree.leaves(model.observe(KEY, real))))


def same(found, wanted, rtol):
    for name, x in wanted.items():
        np.testing.assert_allclose(found[name], x, rtol=rtol, atol=1e-6, err_msg=name)


def test_a_shift_of_the_data_changes_no_error():
    model = exact.gaussian(2, 30)
    plain = run(model, X)
    assert (plain["mean_sq_error"][1:] > 0).all()
    with pytest.warns(UserWarning, match="relative to their means"):
        same(run(model, X + [1e7, 0]), plain, 1e-3)
    stamps = 1.7e9 + 100 * X[:, 0]
    with pytest.warns(UserWarning, match="1 of real's columns"):
        same(start(exact.gaussian(1, 30), stamps), start(exact.gaussian(1, 30), stamps - stamps.mean()), 1e-5)
    for other in (exact.kde(2, 30), exact.gaussian_mixture(2, 2, 30, 2)):
        with pytest.warns(UserWarning, match="relative to their means"):
            same(start(other, X + 1e9), start(other, X + 1e9 - (X + 1e9).mean(0)), 1e-6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        start(model, X + 100)


MADE_OF = {
    "a list": X.tolist(),
    "a masked array that masks nothing": np.ma.masked_array(X, np.zeros(X.shape)),
    "an xarray": xarray.DataArray(X),
    "objects": X.astype(object),
    "a read-only array in another order": np.asfortranarray(X),
}


@pytest.mark.parametrize("what", MADE_OF)
def test_whatever_numpy_takes_is_taken(what):
    same(start(exact.gaussian(2, 30), MADE_OF[what]), start(exact.gaussian(2, 30), X), 1e-6)


def test_other_kinds_of_numbers_are_numbers():
    half = jnp.asarray(X, jnp.bfloat16)
    same(start(exact.gaussian(2, 30), half), start(exact.gaussian(2, 30), np.asarray(half, np.float64)), 1e-6)
    pandas = pytest.importorskip("pandas")
    nullable = pandas.DataFrame(X).astype("Float64")
    same(start(exact.gaussian(2, 30), nullable), start(exact.gaussian(2, 30), X), 1e-6)
    tokens = pandas.Series([0, 1, 1, 2], dtype="Int64")
    same(start(exact.categorical(3, 4), tokens), start(exact.categorical(3, 4), np.array([0, 1, 1, 2])), 1e-6)
    missing = nullable.copy()
    missing.iloc[3, 1] = pandas.NA
    with pytest.raises(mcloop.InputError, match="real must be"):
        start(exact.gaussian(2, 30), missing)
    with pytest.raises(mcloop.InputError, match="real must be"):
        start(exact.categorical(3, 4), pandas.Series([0, 1, None, 2], dtype="Int64"))


class Elsewhere:
    """An array that NumPy may not read, such as a tensor on another device."""

    shape, dtype = (30, 2), "float32"

    def __array__(self, *args, **kwargs):
        raise RuntimeError("Can't call numpy() on Tensor that requires grad.")


MASKED = np.ma.masked_array(X, np.arange(60).reshape(30, 2) == 7)
REFUSED = {
    "masked": (lambda: start(exact.gaussian(2, 30), MASKED), "1 of its values are masked"),
    "masked column": (lambda: start(exact.linear_regression(2, 30), (X, MASKED[:, 1])), "real's y must be known everywhere"),
    "complex": (lambda: start(exact.gaussian(2, 30), X + 1j), "real numbers, not of complex128"),
    "a data set": (lambda: start(exact.gaussian(2, 30), xarray.Dataset({"a": ("n", X[:, 0])})), "real must be"),
    "sparse": (lambda: start(exact.gaussian(2, 30), scipy.sparse.csr_matrix(X)), "csr_matrix holds something else"),
    "a tensor": (lambda: start(exact.gaussian(2, 30), Elsewhere()), "not Elsewhere"),
    "ragged": (lambda: start(exact.gaussian(2, 2), [[1.0, 2.0], [3.0]]), "real must be an array"),
    "words": (lambda: start(exact.poisson(1.0, 2), ["a", "b"]), "real numbers, not of <U1"),
    "dates": (lambda: start(exact.student_t(2), np.array(["2020-01-01", "2021-01-01"], "M8[D]")), "datetime64"),
    "huge": (lambda: start(exact.gaussian(2, 30), X * 1e39), "give it in another unit"),
    "minute": (lambda: start(exact.gaussian(2, 30), X * 1e-39), "give it in another unit"),
    "huge labels": (lambda: start(exact.linear_regression(2, 30), (X, X[:, 0] * 1e25)), "real's y must lie"),
    "far rows": (lambda: start(exact.linear_regression(2, 30, literal=True), (X, X[:, 0] + 1e7)), "subtract the means"),
    "no key": (lambda: run(exact.gaussian(2, 30), X, None), "key must be made by jax.random.key(seed), not NoneType"),
    "a seed": (lambda: run(exact.gaussian(2, 30), X, 0), "key must be made by jax.random.key(seed), not int 0"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_the_rest_is_refused_in_one_sentence(what, refused):
    call, said = REFUSED[what]
    with refused(said):
        call()


def singular():
    """Three columns, their sum, and a copy of the first; labels; and what least squares says of them."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)) * [1.0, 5.0, 0.2]
    y = x @ [1.0, 2.0, -1.0] + 0.3 * rng.normal(size=40)
    x = np.column_stack([x, x.sum(1), x[:, 0]])
    w = np.linalg.lstsq(x, y, rcond=None)[0]
    return x, y, w, ((y - x @ w) ** 2).sum() / 37


@pytest.mark.filterwarnings("ignore:real's X has")
@pytest.mark.parametrize("how", [{}, {"literal": True}, {"ridge": 1e-7}], ids=["exact", "literal", "joint"])
def test_a_singular_design_is_fitted_by_the_pseudo_inverse(how):
    x, y, w, variance = singular()
    test_x, test_y = x[:10] + np.eye(10, 5), y[:10] + 1
    model = exact.linear_regression(5, 40, noise=None, **how)
    keys = jax.random.split(KEY, 2000)
    seen = run(model, (x, y, test_x, test_y), keys)
    np.testing.assert_allclose(seen["held_out_error"][0], ((test_y - test_x @ w) ** 2).mean(), rtol=1e-4)
    assert seen["test_error"][0].max() < 1e-9
    for g in (2, 3):  # rank 3, not 5: (g - 1) refits of sigma^2 rank / n each
        scaled = np.asarray(seen["test_error"][g - 1], np.float64) / (variance / 40)
        # the two refits' directions are independent, so that the sum is a chi-square times g - 1
        assert stats.kstest(scaled / (g - 1), stats.chi2(3).cdf).pvalue > 1e-3
        assert stats.kstest(scaled / (g - 1), stats.chi2(5).cdf).pvalue < 1e-6


def test_columns_that_are_sums_of_others_are_named_and_nearly_singular_ones_keep_their_digits():
    x, y, *_ = singular()
    with pytest.warns(UserWarning, match=r"5 columns of rank 3: \[\d, \d\]"):
        exact.linear_regression(5, 40).observe(KEY, (x, y))
    rng = np.random.default_rng(2)
    near = np.column_stack([x[:, :3], x[:, 0] + 1e-6 * rng.normal(size=40)])
    w = np.linalg.lstsq(near, y, rcond=None)[0]
    for how in ({}, {"literal": True}):
        seen = run(exact.linear_regression(4, 40, 0.3, **how), (near, y, near, y), jax.random.split(KEY, 500), 2)
        np.testing.assert_allclose(seen["held_out_error"][0], ((y - near @ w) ** 2).mean(), rtol=1e-4)
        assert abs(seen["test_error"][1].mean() / (0.09 * 4 / 40) - 1) < 4 * np.sqrt(2 / 4 / 500)


@pytest.mark.parametrize("kind", ["float32 with gradients", "bfloat16", "int64"])
def test_tensors_of_pytorch_are_taken(kind, tmp_path, refused):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(0).integers(-9, 9, (12, 2))
    tensor = torch.tensor(values)
    given = {"float32 with gradients": tensor.float().requires_grad_(), "bfloat16": tensor.bfloat16(), "int64": tensor}[kind]
    one = mcloop.make_loop(exact.gaussian(d=2, n=12), regimes.accumulate())
    wanted = mcloop.scan(one, jax.random.key(0), values, 3)[1]["w2"]
    np.testing.assert_array_equal(mcloop.scan(one, jax.random.key(0), given, 3)[1]["w2"], wanted)
    swept = [mcloop.sweep(lambda: one, seeds=2, generations=3, real=real, folder=tmp_path / "run") for real in (given, given)]
    assert swept[0].identical(swept[1]) and np.isfinite(swept[0]["w2"]).all()  # and the folder knows them again
    with refused("real must be finite"):
        mcloop.scan(one, jax.random.key(0), given / 0.0, 3)
