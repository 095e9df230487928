"""The validator: it passes the library, fails a broken one, and writes down what it saw."""

from __future__ import annotations

import json

import jax
import numpy as np
import pytest

from mcloop.errors import InputError
from mcloop.laws import LAWS
from mcloop.validation import show, simulations_continuous, validate


def by_id(rows):
    return {row.id: row for row in rows}


@pytest.fixture(scope="module")
def handful():
    return validate.validate("quick", only=["G7", "A5", "G1", "D2"])


def test_every_law_of_the_registry_is_simulated_with_a_neighbour_that_differs():
    checks = [check for e in validate.EXPERIMENTS for case in e.cases for check in case.checks]
    assert {check.law for check in checks} == LAWS.keys()
    for check in checks:
        law = LAWS[check.law]
        right, wrong = (np.ravel(f([check.g], **check.parameters))[check.part] for f in (law.value, law.wrong))
        assert np.isfinite(right)
        assert abs(wrong / right - 1) > 0.015, check.law


def test_a_handful_passes_in_the_registrys_order(handful):
    assert [row.id for row in handful] == ["G1", "G7", "A5", "D2"]
    for row in handful:
        assert row.passed
        assert abs(row.z) < validate.threshold()
        assert abs(row.neighbour_z) > validate.REJECT
        np.testing.assert_allclose(row.z, (row.simulated - row.predicted) / row.stderr, rtol=1e-9)
        assert row.replicas >= 1000
        assert row.seconds > 0
    assert 3.5 < validate.threshold() < 4.5


def test_a_law_reads_the_same_numbers_whatever_is_run_beside_it_and_others_with_another_seed(handful):
    alone, other = (validate.validate("quick", seed=seed, only=["G7"])[0] for seed in (0, 1))
    assert alone._replace(seconds=0) == by_id(handful)["G7"]._replace(seconds=0)
    assert other.simulated != alone.simulated
    assert other.passed


def swapped_ddof(gaussian):
    return lambda **settings: gaussian(**{**settings, "ddof": 1 - settings.get("ddof", 0)})


def one_draw_short(gaussian):
    def short(**settings):
        model = gaussian(**settings)
        return model._replace(sample=lambda key, params, count: model.sample(key, params, count - 1))

    return short


def seldom_moved(gaussian):
    """Fits that keep a tenth of the mean before them."""

    def lazy(**settings):
        model = gaussian(**settings)

        def fit(key, params, data):
            new, info = model.fit(key, params, data)
            return new._replace(mean=0.9 * new.mean + 0.1 * params.mean), info

        return model._replace(fit=fit)

    return lazy


@pytest.fixture
def retraced():
    """Programs are compiled once a process: what another library compiled must not be used."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize(
    ("broken", "fails"),
    [
        (swapped_ddof, {"G1", "G2", "G3", "G4", "G5", "G6", "G7", "A5"}),
        (one_draw_short, {"G1", "G2", "G3", "G5", "G6", "G7", "A5"}),
        (seldom_moved, {"G2", "G3", "G7"}),
    ],
)
def test_a_broken_loop_fails_its_laws(monkeypatch, retraced, broken, fails):
    monkeypatch.setattr(simulations_continuous, "gaussian", broken(simulations_continuous.gaussian))
    rows = validate.validate("quick", only=sorted({"G1", "G2", "G3", "G4", "G5", "G6", "G7", "A5"}))
    assert {row.id for row in rows if not row.passed} == fails
    assert not json.loads(show.to_json(rows))["passed"]


def test_a_neighbour_that_is_not_rejected_fails_too(monkeypatch):
    monkeypatch.setitem(LAWS, "G1", LAWS["G1"]._replace(wrong=LAWS["G1"].value))
    (row,) = validate.validate("quick", only="G1")
    assert abs(row.z) < validate.threshold()
    assert not row.passed


def test_a_law_without_a_simulation_is_named_and_does_not_pass(monkeypatch):
    monkeypatch.setattr(validate, "EXPERIMENTS", ())
    (row,) = validate.validate("quick", only=["G1"])
    assert "not simulated" in row.parameters
    assert row.simulated is None
    assert not row.passed
    assert show.from_json(show.to_json([row])) == [row]


def test_json_gives_the_rows_back(handful):
    text = show.to_json(handful)
    assert show.from_json(text) == handful
    whole = json.loads(text)
    assert whole["passed"]
    assert whole["reject"] == validate.REJECT


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"only": ["G1", "G99"]}, r"^only must name laws among G1, .*, not 'G99'\.$"),
        ({"level": "slow"}, r"^level must be quick, standard, full, not 'slow'\.$"),
    ],
)
def test_what_is_not_known_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(InputError, match=message):
        validate.validate(**arguments)


def test_the_table_shows_every_formula_and_the_verdicts(handful, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "240")
    failed = handful[0]._replace(passed=False)
    show.table([failed, *handful[1:], by_id(validate.validate("quick", only=["B4"]))["B4"]])
    said = capsys.readouterr().out
    assert "FAIL" in said
    assert "4 of 5 checks pass" in said
    assert "[lam/((1 + lam)" in said  # square brackets are no markup


def test_the_table_is_readable_at_80_columns(handful, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    show.table([handful[0]._replace(passed=False), *handful[1:]])
    said = capsys.readouterr().out
    assert max(map(len, said.splitlines())) <= 80
    for row in handful:
        assert f"{row.id:4} " in said
        assert row.law.split()[0] in said
    assert "FAIL: " in said and "3 of 4 checks pass" in said


def test_the_figure_is_drawn_of_laws_that_pass_and_fail(handful, tmp_path):
    lost = handful[0]._replace(z=80.0, passed=False)
    show.figure([lost, *handful[1:]], tmp_path / "laws.png")
    assert (tmp_path / "laws.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="at least one"):
        show.figure([], tmp_path / "none.png")


@pytest.mark.slow
def test_every_law_passes_the_quick_run():
    rows = validate.validate("quick")
    assert len(rows) >= len(LAWS)
    assert [row.id for row in rows if not row.passed] == []
