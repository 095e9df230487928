"""What a run of hosted loops will cost: told before it starts, corrected as it goes, and what is then really done."""

import jax
import learners
import numpy as np
import pytest

from mcloop import correctors, make_loop, progress, regimes, train
from mcloop.cli import main
from mcloop.correctors import curation
from mcloop.drivers.costs import forecast, work
from mcloop.drivers.train import estimate
from mcloop.errors import Diverged
from mcloop.models import hosted
from mcloop.models.pace import timed
from mcloop.models.training import Budget, training
from mcloop.types import Pace

GENERATIONS = 4
ALL = {
    "replace": regimes.replace(),
    "accumulate": regimes.accumulate(),
    "replace_multiple": regimes.replace_multiple(),
    "accumulate_subsample": regimes.accumulate_subsample(),
    "augment": regimes.augment(0.5),
    "fresh": regimes.fresh(),
    "baseline": regimes.baseline(),
}


class Counted:
    """A hosted model of which every optimiser step, every point drawn and every look is counted."""

    def __init__(self, monkeypatch, gate=True):
        self.steps = self.points = self.looks = 0
        monkeypatch.setattr(hosted, "minibatches", self.minibatches)
        real = {"x": np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)}
        codec = hosted.Codec(self.encode, lambda stored: stored["x"])
        spec = training(Budget(30), Budget(epochs=2.0), rate=0.05, batch=8)
        learner = learners.gaussian_learner()
        options = {"codec": codec, "evaluate": self.evaluate, "samples": 20, "chunk": 20, "gate": gate}
        self.model = hosted.hosted_model(learner, spec, real, **options)

    def minibatches(self, *arguments, original=hosted.minibatches):
        for batch in original(*arguments):
            self.steps += 1
            yield batch

    def encode(self, points):
        self.points += len(points)
        return {"x": np.asarray(points)}

    def evaluate(self, points, variables):
        self.looks += 1
        return learners.evaluate(points, variables)


@pytest.mark.parametrize("name", ALL)
def test_what_is_foreseen_is_what_is_done(name, monkeypatch, tmp_path):
    counted = Counted(monkeypatch)
    loop = make_loop(counted.model, ALL[name])
    data = counted.model.observe(jax.random.key(0), None)[0]
    ahead = work(loop, data, GENERATIONS)
    assert ahead is not None and counted.steps == counted.points == 0
    train(lambda: loop, {}, 1, GENERATIONS, folder=tmp_path)
    assert [sum(part) for part in zip(*ahead, strict=True)] == [counted.steps, counted.points, counted.looks]


def test_candidates_are_points_too(monkeypatch, tmp_path):
    counted = Counted(monkeypatch, gate=False)
    loop = make_loop(counted.model, ALL["replace"], curation.best_of(3, lambda model, truth: lambda x: x[:, 0]))
    data = counted.model.observe(jax.random.key(0), None)[0]
    ahead = work(loop, data, 2)
    assert ahead is not None and ahead[1].points == 3 * 40 + 20
    half = make_loop(counted.model, ALL["replace"], curation.keep(lambda model, truth: lambda x: x[:, 0], quantile=0.5))
    ahead = work(half, data, 2)
    assert ahead is not None and ahead[1].points == 2 * 40 + 20


def test_another_budget_is_foreseen(monkeypatch):
    model = hosted.with_budget(Counted(monkeypatch).model, Budget(7))
    ahead = work(make_loop(model, regimes.accumulate()), model.observe(jax.random.key(0), None)[0], 3)
    assert ahead is not None and [w.steps for w in ahead] == [30, 7, 7]


def test_a_first_fit_that_is_handed_on_and_what_is_there_cost_nothing(monkeypatch):
    model = Counted(monkeypatch).model
    assert model.hosted is not None
    model = model._replace(hosted=model.hosted._replace(timed=lambda briefly: Pace(2.0, 0.5, 1.0)))
    loops = [(make_loop(model, ALL[name]), "one model") for name in ("replace", "accumulate")]
    found = forecast(loops, [0, 0], 2)
    assert found is not None
    # 30 steps and 2 looks; then 2 epochs of 5, and 10, minibatches, 40 points to learn and 20 of those looked at
    assert found.seconds[0] == [30 * 2.0 + 20 * 2 * 0.5 + 2.0, 10 * 2.0 + 40 * 0.5 + 1.0]
    assert found.seconds[1] == [0.0, 20 * 2.0 + 40 * 0.5 + 1.0]
    assert "60 optimiser steps of 2 s, 120 points drawn at 500 ms, 4 looks of 1 s" in found.words
    again = forecast(loops, [2, 1], 2)
    assert again is not None and again.seconds == [[0.0, 0.0], [0.0, found.seconds[1][1]]]
    assert forecast(loops, [2, 2], 2) is None and forecast(loops, [0, 0], 2, worth=61) is None


def test_a_pace_is_of_what_the_model_does(monkeypatch):
    model = Counted(monkeypatch).model
    assert model.hosted is not None and model.hosted.timed is not None
    for briefly in (False, True):
        pace = model.hosted.timed(briefly)
        assert min(pace) > 0 and max(pace) < 60


def test_a_slow_sampler_is_timed_by_a_few_points(monkeypatch):
    clock, drawn = [0.0], []
    monkeypatch.setattr("mcloop.models.pace.time.perf_counter", lambda: clock[0])

    def draw(count, seconds):
        drawn.append(count)
        clock[0] += count * seconds

    def steps(count):
        clock[0] += 0.25 * count

    def pace(seconds):
        drawn.clear()
        return timed(steps, {8: lambda: draw(8, 2 * seconds), 100: lambda: draw(100, seconds)}, None)

    assert pace(0.01) == Pace(0.25, 0.01, 0.0) and drawn == [8, 8, 100, 100]
    assert pace(1.0) == Pace(0.25, 2.0, 0.0) and drawn == [8, 8]


def test_a_run_tells_how_long_it_takes_and_goes_on_without(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("mcloop.drivers.train._WORTH", 1)
    loop = make_loop(Counted(monkeypatch).model, regimes.replace())
    train(lambda: loop, {}, 1, 2, folder=tmp_path, progress=True)
    said = capsys.readouterr().err
    assert "Timed on this machine: about " in said and "(40 optimiser steps of " in said
    loop = make_loop(Counted(monkeypatch).model, regimes.replace())
    train(lambda: loop, {}, 1, 2, folder=tmp_path, progress=True)
    assert "Timed" not in capsys.readouterr().err  # nothing is left to do
    model = loop.model
    assert model.hosted is not None
    fails = model._replace(hosted=model.hosted._replace(timed=lambda briefly: 1 / 0))
    ds = train(lambda: make_loop(fails, regimes.replace()), {}, 1, 2, folder=tmp_path / "other", progress=True)
    assert "could not be told (ZeroDivisionError" in capsys.readouterr().err
    assert np.isfinite(ds.loss).all()


def test_timing_changes_no_number(monkeypatch, tmp_path):
    loop = make_loop(Counted(monkeypatch).model, regimes.replace())
    assert estimate(lambda: loop, {}, 1, 2) is not None
    timed = train(lambda: loop, {}, 1, 2, folder=tmp_path / "timed")
    plain = make_loop(Counted(monkeypatch).model, regimes.replace())
    assert train(lambda: plain, {}, 1, 2, folder=tmp_path / "plain").equals(timed)


def test_what_is_left_is_corrected_by_what_was_seen(capsys):
    with progress.listening(3, True) as bar:
        assert bar is not None
        bar.foresee([100.0, 10.0, 400.0])
        bar.at("the only loop")
        bar.advance(200.0, first=True)  # twice as long as expected
        bar.advance(20.0)
        bar.advance(30.0)
    said = capsys.readouterr().err.splitlines()
    assert said[0].endswith("about 14 min left") and said[1].endswith("about 13 min left")


def test_a_loop_that_diverges_takes_its_seconds_with_it(monkeypatch, capsys, tmp_path):
    def diverges(key, params, pool, **_):
        raise Diverged("it is meant to")

    told = []
    monkeypatch.setattr("mcloop.drivers.train._WORTH", 1)
    monkeypatch.setattr(progress.Bar, "_left", lambda bar: told.append((bar._done, list(bar._ahead))) or "")
    model = Counted(monkeypatch).model
    assert model.hosted is not None
    model = model._replace(hosted=model.hosted._replace(timed=lambda briefly: Pace(1.0, 0.0, 0.0)))
    loops = {0: make_loop(model._replace(fit=diverges), regimes.replace()), 1: make_loop(model, regimes.replace())}
    train(lambda which: loops[which], {"which": [0, 1]}, 1, 2, folder=tmp_path, progress=True)
    # the second loop's first generation comes after both of the first loop's, of which neither was computed
    assert (3, [10.0]) in told and told[-1] == (4, [])


def test_no_estimate_of_what_is_compiled():
    from mcloop.exact import gaussian

    assert estimate(lambda: make_loop(gaussian(d=1, n=10), regimes.replace(), correctors.none()), {}, 1, 2) is None


def test_an_estimate_runs_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main(["run", "beyond/story_grammar", "--size", "tiny", "--set", "arm=replace", "--estimate", "--no-cache"])
    said = capsys.readouterr().out
    assert "Timed on this machine: about" in said and said.rstrip().endswith("Nothing was run.")
    main(["run", "bertrand/toy_2d_two_moons", "--size", "tiny", "--estimate", "--no-cache"])
    assert "compiled whole" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())
