"""What `mcloop certify` says of a loop, of an experiment and of a run's folder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mcloop
from mcloop import correctors, exact, regimes
from mcloop.certificates import verdict
from mcloop.certificates.stability import matrices
from mcloop.cli import main
from mcloop.data.toys import two_moons
from mcloop.drivers.train import last_states, train
from mcloop.models.training import training
from mcloop.studies.toys import toy_model

KEY = jax.random.key(0)


def certified(regime, corrector=None, **how):
    return mcloop.certify(mcloop.make_loop(exact.gaussian(d=2, n=400), regime, corrector), KEY, **how)


@pytest.mark.parametrize("lam", [0.5, 4.0])
def test_a_gaussian_loop_has_the_rate_of_the_law(lam):
    found = certified(regimes.augment(lam)).certificate
    assert found is not None
    assert found.exact
    assert found.rates == pytest.approx(np.full(4, lam / (1 + lam)), rel=5e-3)  # the papers' minus would give 1 and -4/3


@pytest.mark.parametrize("gamma", [0.5, 3.0])
def test_a_corrector_is_differentiated_with_the_sampler(gamma):
    found = certified(regimes.augment(2.0), correctors.mixture(gamma))
    assert found.certificate is not None
    assert not found.certificate.exact
    assert found.certificate.rate == pytest.approx(2 / 3 / (1 + gamma), rel=0.02)
    assert any("'mixture' is part of the sampler" in said for said in found.sentences())


def test_the_temperature_of_a_sampler_moves_its_rate():
    found = certified(regimes.augment(0.5), correctors.temperature(1.5)).certificate
    assert found is not None
    assert found.rate == pytest.approx(0.5 * 1.5 / 1.5, rel=5e-3)  # lam T/(1 + lam) of the variance; 1/3 of the mean


@pytest.mark.parametrize(
    ("regime", "said"), [(regimes.replace(), "regime 'replace'"), (regimes.augment(float("inf")), "fully synthetic")]
)
def test_what_has_no_certificate_is_run_twice(regime, said):
    found = certified(regime, generations=4)
    assert found.certificate is None
    assert found.rate is not None
    assert 0.8 < found.rate.rate < 1.2  # neutral
    assert said in found.sentences()[0]


def test_no_synthetic_data_needs_no_certificate():
    assert "No synthetic data" in certified(regimes.augment(0.0)).sentences()[0]
    assert "No synthetic data" in certified(regimes.baseline()).sentences()[0]


def test_the_objective_of_a_family_is_its_likelihood():
    from scipy import stats

    model = exact.gaussian(d=2, n=50, literal=True)
    state = mcloop.make_loop(model, regimes.augment(1.0)).init(KEY)
    objective = model.forms.objective
    assert objective is not None
    free = objective.free(state.params)
    cov = np.asarray(state.params.root @ state.params.root.T)
    known = -stats.multivariate_normal(np.asarray(state.params.mean), cov).logpdf(np.asarray(state.real.values)).mean()
    assert float(objective.risk(KEY, free, state.real)) == pytest.approx(known, rel=1e-4)
    slope = jax.grad(lambda f: objective.risk(KEY, f, state.real))(free)  # the fit is its minimum
    assert max(float(jnp.abs(x).max(initial=0.0)) for x in jax.tree.leaves(slope)) < 1e-4
    back = objective.params(free)
    assert np.allclose(back.root, state.params.root, atol=1e-5)


def test_categories_are_certified_by_their_log_odds():
    loop = mcloop.make_loop(exact.categorical(k=4, n=1000), regimes.augment(1.0))
    found = mcloop.certify(loop, KEY).certificate
    assert found is not None
    assert found.rates == pytest.approx(np.full(3, 0.5), rel=5e-3)


def test_a_run_is_certified_at_its_last_checkpoint(tmp_path):
    model = toy_model("edm", two_moons(), training(20, 5, rate=5e-3), n=100, capacity=100, width=8, samples=50)

    def make(lam):
        return mcloop.make_loop(model, regimes.augment(lam))

    ds = train(make, {"lam": [0.0, 0.5]}, seeds=2, generations=3, folder=tmp_path)
    found = last_states(make, {"lam": [0.0, 0.5]}, 2, 3, folder=tmp_path)
    assert [cell["lam"] for cell, *_ in found] == [0.0, 0.5]
    for cell, loop, key, state in found:
        assert int(state.t) == 3
        seen = ds["sliced_w2"].sel(cell).isel(seed=0).values
        assert float(jax.jit(loop.measure)(key, state)["sliced_w2"]) == pytest.approx(seen[-1], rel=1e-4)
        assert seen[-2] != pytest.approx(seen[-1], rel=1e-4)
    _, loop, key, state = found[1]
    refused = mcloop.certify(loop, key, state=state, generations=2)
    assert refused.certificate is None  # a network that was hardly trained is at no minimum
    assert "damping must be larger" in refused.sentences()[0]


def test_the_command_line(capsys):
    main(["certify", "beyond/lam_gamma_map", "--set", "lam=0.5", "--set", "gamma=1"])
    said = capsys.readouterr().out
    assert said.startswith("lam 0.5, gamma 1\n")
    assert "is multiplied by 0.16" in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["quickstart", "--damping", "-1"], "damping must be a finite number >= 0"),
        (["quickstart", "--generations", "1"], "generations must be a whole number >= 2"),
        (["beyond/nothing"], "is not known"),
    ],
)
def test_bad_input_is_one_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["certify", *arguments])
    assert stop.value.code == 2
    message = capsys.readouterr().err
    assert said in message
    assert len(message.strip().splitlines()) == 1


def test_matrices_of_a_loop_are_those_of_its_data():
    loop = mcloop.make_loop(exact.gaussian(d=1, n=500), regimes.augment(1.0))
    state = loop.init(KEY)
    m = matrices(verdict.problem_of(loop, state, KEY))
    scale = float(state.params.root[0, 0])
    assert m.n == pytest.approx(np.diag([2.0, 1 / scale**2]), rel=1e-3, abs=1e-3)  # log scale, then mean


# Families whose draws are counts, or rows: closed rates, and what is said where there is none


@pytest.mark.parametrize(
    "model",
    [
        exact.bernoulli(0.5, 50),
        exact.bernoulli(0.01, 20),  # all tails: a mean at the end of its range
        exact.poisson(3.0, 100),
        exact.gamma_family(2.0, 1.5, 30),
        exact.categorical(k=50, n=200),  # some categories were never drawn
        exact.categorical(k=700, n=300, zipf=1.0),
        exact.linear_regression(d=3, n=30),
        exact.linear_regression(d=3, n=30, literal=True),
    ],
    ids=lambda m: f"{m.name} {m.n}",
)
def test_families_fitted_by_averages_have_the_closed_rate(model):
    found = mcloop.certify(mcloop.make_loop(model, regimes.augment(1.0)), KEY)
    assert found.certificate is not None and found.certificate.exact
    np.testing.assert_allclose(found.certificate.rates, 0.5, rtol=1e-4)
    assert found.rates is None  # it is the same for all data, and no error is said


def test_empty_categories_are_no_coordinates():
    model = exact.categorical(k=5, n=100, p=[0.6, 0.0, 0.3, 0.1, 0.0])
    found = mcloop.certify(mcloop.make_loop(model, regimes.augment(2.0)), KEY).certificate
    assert found is not None and found.parameters == 2
    hot = mcloop.certify(mcloop.make_loop(model, regimes.augment(0.2), correctors.temperature(0.8)), KEY).certificate
    assert hot is not None and np.isfinite(hot.rate)


def test_the_loop_draws_whole_points():
    found = certified_n10(0.19)
    assert found.certificate is not None
    np.testing.assert_allclose(found.certificate.rate, 0.1 / 1.1, rtol=1e-4)  # lam itself would give .160
    assert "lam 0.19 of 10 points is 0.1 in whole points." in found.sentences()[-1]
    assert "is less than one. No synthetic data" in certified_n10(0.05).sentences()[0]


def certified_n10(lam):
    return mcloop.certify(mcloop.make_loop(exact.gaussian(d=1, n=10), regimes.augment(lam)), KEY)


def test_rates_that_depend_on_the_real_data_are_told_with_their_scatter():
    found = mcloop.certify(mcloop.make_loop(exact.student_t(50), regimes.augment(1.0)), KEY, seeds=6)
    assert found.rates is not None and found.rates.shape == (6,)
    assert found.certificate is not None and found.rates[0] == found.certificate.rate
    error = found.rates.std(ddof=1) / 6**0.5
    assert abs(found.rates.mean() - 0.5) < 5 * error + 0.01  # well specified: lam/(1 + lam), and a bias of 1/n
    assert 0 < error < 0.01  # by fifty drawn points in place of a quadrature it was .02
    assert f"{found.rates.mean():.4g} +- {error:.2g} (standard error)" in found.sentences()[-1]
    again = mcloop.certify(mcloop.make_loop(exact.student_t(50), regimes.augment(1.0)), KEY, seeds=2)
    np.testing.assert_allclose(again.rates, found.rates[:2], rtol=1e-5)


def test_a_fresh_design_has_the_eigenvalues_of_its_own_rows():
    loop = mcloop.make_loop(exact.linear_regression(d=2, n=30, design="fresh", literal=True), regimes.augment(1.0))
    found = mcloop.certify(loop, KEY, seeds=1).certificate
    x = np.asarray(loop.init(KEY).real.values[0])
    mu = np.sort(1 / np.linalg.eigvalsh(x.T @ x / 30))[::-1]
    assert found is not None and found.exact
    np.testing.assert_allclose(found.rates, mu / (1 + mu), rtol=1e-3)
    ridged = mcloop.make_loop(exact.linear_regression(d=2, n=30, ridge=0.5), regimes.augment(1.0))
    found = mcloop.certify(ridged, KEY, seeds=1).certificate
    root = np.asarray(ridged.init(KEY).real.root)[:2, :2]
    c = np.linalg.eigvalsh(root @ root.T / 30)
    assert found is not None and not found.exact
    np.testing.assert_allclose(found.rates, np.sort(0.5 * c / (c + 0.5))[::-1], rtol=1e-3)


def test_steps_below_the_grain_of_counts_are_refused_and_larger_ones_measured():
    few = mcloop.certify(mcloop.make_loop(exact.bernoulli(0.3, 50), regimes.replace()), KEY, generations=3, seeds=3)
    assert few.rate is None and "below the grain of counts" in few.sentences()[0]
    many = mcloop.certify(mcloop.make_loop(exact.bernoulli(0.3, 10**7), regimes.replace()), KEY, generations=3, seeds=3)
    assert many.rate is not None and abs(many.rate.rate - 1) < 0.02
    assert "over 3 seeds, with standard errors" in many.sentences()[-1]
    design = mcloop.certify(mcloop.make_loop(exact.linear_regression(d=2, n=12), regimes.replace()), KEY, seeds=2)
    assert design.rate is not None  # a draw is a whole number of designs, and the design itself is not pushed
    np.testing.assert_allclose(design.rate.rate, 1.0, rtol=1e-4)


X = np.random.default_rng(0).normal(size=(20, 1))


@pytest.mark.parametrize("covariance", ["full", "diagonal"])
@pytest.mark.parametrize(
    "real",
    [np.ones((20, 1)), np.arange(20.0)[:, None] * [[1.0, 1.0]], X * [[1.0, 2.0]]],
    ids=["constant", "a copied column", "a column twice another"],
)
def test_singular_covariances_are_told_and_measured(real, covariance):
    loop = mcloop.make_loop(exact.gaussian(d=real.shape[1], n=20, covariance=covariance), regimes.augment(1.0))
    found = mcloop.certify(loop, KEY, real=real, seeds=2, generations=3)
    if covariance == "diagonal" and real.shape[1] == 2:  # each column varies: nothing is singular
        assert found.certificate is not None
        return
    which, measured = found.sentences()
    assert which.startswith("No certificate, but a measured rate: the covariance of generation 1 is singular (data on a plane")
    assert measured.startswith("Measured by running it twice") and found.rate is not None and "damping" not in which


@pytest.mark.parametrize(
    ("family", "regime", "measured"),
    [("mixture", "augment", True), ("kde", "replace", True), ("kde", "augment", False), ("kde", "accumulate", False)],
)
def test_mixtures_and_kernel_densities_say_which_of_the_two_they_have_and_why(family, regime, measured):
    model = exact.kde(1, 20, 0.3) if family == "kde" else exact.gaussian_mixture(k=2, d=1, n=20)
    loop = mcloop.make_loop(model, regimes.augment(1.0) if regime == "augment" else getattr(regimes, regime)())
    found = mcloop.certify(loop, KEY, real=X, seeds=2, generations=3)
    which = "No certificate, but a measured rate" if measured else "Neither a certificate nor a rate"
    fit = f"the {model.name} family declares no loss that could be differentiated (it is fitted by {model.estimator})"
    assert found.certificate is None and (found.rate is not None) == measured
    first, *rest = found.sentences()
    assert first.startswith(f"{which}: {fit}") and first.endswith(".") and first.count(".") == 1
    assert [said[:26] for said in rest] == (["Measured by running it twi"] if measured else [])
    if not measured:
        assert f"regime '{regime}' must leave the parameters of the kde family in one shape" in first


def test_copies_that_are_compared_are_certified_as_the_loop_they_copy():
    from mcloop.certificates.twins import growth_twins

    def loop(lam):
        return mcloop.make_loop(exact.gaussian(d=1, n=1000), regimes.augment(lam), correctors.temperature(1.5))

    found = mcloop.certify(growth_twins(loop(0.5)), KEY).certificate
    assert found is not None
    np.testing.assert_allclose(found.rate, 0.5, rtol=1e-3)
