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
    ("regime", "said"), [(regimes.replace(), "Regime 'replace'"), (regimes.augment(float("inf")), "Fully synthetic")]
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
