"""Generators that users bring: any object that fits and draws, in every loop that the library's own models are in."""

import json
import random
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import pytest
from helpers import flip
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import mcloop
from mcloop import correctors, make_loop, regimes, train
from mcloop.correctors import curation
from mcloop.errors import Diverged, InputError, OwnCodeError
from mcloop.storage.identity import describe_loop


class Gauss:
    """A Gaussian by maximum likelihood, in ten lines, as a user would write it."""

    def fit(self, x):
        self.mean, self.cov = x.mean(0), np.cov(x.T, ddof=0).reshape(x.shape[1], -1)

    def sample(self, n):
        return np.random.multivariate_normal(self.mean, self.cov, n)  # noqa: NPY002


class Shares:
    """The frequencies of words."""

    def train(self, words):
        self.words, counts = np.unique(words, return_counts=True)
        self.shares = counts / counts.sum()

    def generate(self, count):
        return [str(word) for word in np.random.choice(self.words, count, p=self.shares)]  # noqa: NPY002


X = np.random.default_rng(0).normal(size=(60, 2))


def moments(real, drawn):
    return {"spread": np.trace(np.cov(drawn.T, ddof=0)), "shift": np.abs(drawn.mean(0) - real.mean(0)).max()}


def arms(model, lam=1.0, arm="augment"):
    known = {"augment": regimes.augment(lam), "accumulate": regimes.accumulate(), "replace": regimes.replace()}
    return make_loop(model, known[arm])


def walked(loop, seed, generations):
    """The states of a loop that is stepped by hand, from generation 1."""
    key = jax.random.key(seed)
    states = [loop.init(key)]
    for _ in range(generations - 1):
        states.append(loop.generation(key, states[-1])[0])
    return states


def z_score(values, expected):
    values = np.asarray(values, float)
    return (values.mean() - expected) / (values.std(ddof=1) / np.sqrt(len(values)))


# -- it is a loop like any other


@pytest.mark.parametrize("law", ["replace", "accumulate", "augment"])
def test_a_gaussian_of_ten_lines_obeys_the_laws(law):
    """G1, A1 and B1 of the trace of the fitted covariance, from the moments of the real points."""
    n, fits, replicas, lam = 20, 5, 80, 1.0
    model = mcloop.external(Gauss, X[:n])
    regime = {"replace": regimes.replace(), "accumulate": regimes.accumulate(), "augment": regimes.augment(lam)}[law]
    loop = make_loop(model, regime)
    first = np.trace(np.cov(X[:n].T, ddof=0))
    found = [np.trace(walked(loop, seed, 1 + fits)[-1].params.held.model.cov) / first for seed in range(replicas)]
    if law == "replace":
        expected = (1 - 1 / n) ** fits
    elif law == "accumulate":
        expected = np.prod([1 - 1 / (n * i**2) for i in range(2, fits + 2)])  # the first fit is exact here: i = 1 is left out
    else:
        m = lam * n
        # D = E (mean - real mean)^2 and v = E S, both over the variance of the real points, which are given
        v, d = 1.0, 0.0
        for _ in range(fits):
            drawn = d + v / m
            v = (n + m * (1 - 1 / m) * v + n * m / (n + m) * drawn) / (n + m)
            d = (m / (n + m)) ** 2 * drawn
        expected = v
    assert abs(z_score(found, expected)) < 4
    assert abs(z_score(found, 1.0)) > 3 or law != "replace"  # the test sees the collapse


def test_words_drift_as_wright_and_fisher_say():
    """D1: heterozygosity decays by 1 - 1/n a fit, here from the shares of the real words."""
    n, fits, replicas = 24, 6, 80
    words = ["a", "b", "c"] * (n // 3)
    loop = make_loop(mcloop.external(Shares, words), regimes.replace())
    left = [1 - np.sum(walked(loop, seed, 1 + fits)[-1].params.held.model.shares ** 2) for seed in range(5000, 5000 + replicas)]
    assert abs(z_score(left, (1 - 1 / n) ** fits * 2 / 3)) < 4


def test_a_wrapped_mixture_is_its_own_loop():
    """scikit-learn's mixture, wrapped, against its own loop in a few lines: the same fall of the spread, over seeds."""
    x, fits, replicas = np.concatenate([X[:30] - 3, X[30:] + 3]), 3, 24
    loop = make_loop(mcloop.external(lambda: GaussianMixture(2), x), regimes.replace())

    def spread(model):
        return np.trace(np.tensordot(model.weights_, model.covariances_, 1))

    wrapped = [spread(walked(loop, seed, 1 + fits)[-1].params.held.model) for seed in range(replicas)]
    plain = []
    for seed in range(1000, 1000 + replicas):
        model = GaussianMixture(2, random_state=seed).fit(x)
        for _ in range(fits):
            model = GaussianMixture(2, random_state=seed + 1).fit(model.sample(len(x))[0])
        plain.append(spread(model))
    scatter = np.sqrt((np.var(wrapped, ddof=1) + np.var(plain, ddof=1)) / replicas)
    assert abs(np.mean(wrapped) - np.mean(plain)) < 4 * scatter
    assert np.mean(wrapped) < spread(GaussianMixture(2, random_state=0).fit(x))


REGIMES = {
    "baseline": regimes.baseline(),
    "replace": regimes.replace(),
    "replace_multiple": regimes.replace_multiple(),
    "augment": regimes.augment(0.5),
    "accumulate": regimes.accumulate(),
    "accumulate_subsample": regimes.accumulate_subsample(),
    "fresh": regimes.fresh(0.5, 0.5),
    "window": regimes.window(2),
}


@pytest.mark.parametrize("regime", REGIMES.values(), ids=REGIMES)
def test_every_regime_takes_it(regime):
    states = walked(make_loop(mcloop.external(Gauss, X), regime), 0, 4)
    assert all(np.isfinite(state.params.held.model.cov).all() for state in states)


def test_a_weight_is_so_many_copies():
    """Where points weigh unlike, a generator that takes no weights gets each as often as it weighs."""

    class Counted(Gauss):
        def fit(self, x):
            super().fit(x)
            self.seen = len(x), int((x[:, 0] > 5).sum())

    class Weighed(Gauss):
        def fit(self, x, sample_weight=None):
            super().fit(x)
            self.seen = float(np.sum(sample_weight)), float(sample_weight[x[:, 0] > 5].sum())

    for kind in (Counted, Weighed):
        model = mcloop.external(kind, X)
        data, truth = model.observe(jax.random.key(0), None)
        others = model.memory.scale(mcloop.external(kind, X[:20] + 100).observe(jax.random.key(0), None)[0], 2.5)
        params, _ = model.fit(jax.random.key(1), truth, model.memory.merge(data, others))
        size, far = params.held.model.seen
        assert abs(size - 110) <= 20 and abs(far - 50) <= 20 and size - far == 60
    assert (size, far) == (110, 50)


def test_what_comes_in_the_order_of_components_is_shuffled():
    """A part of what a mixture draws would otherwise be its first component."""

    class Sorted(Gauss):
        def sample(self, n):
            return np.sort(super().sample(n), 0)

    model = mcloop.external(Sorted, X)
    data, truth = model.observe(jax.random.key(0), None)
    params, _ = model.fit(jax.random.key(1), truth, data)
    part = np.concatenate([model.sample(jax.random.key(i), params, 15).take(np.arange(15))["x"] for i in range(40)])
    assert abs(z_score(part[:, 0], X[:, 0].mean())) < 4


# -- a run, and going on with one


def run(folder, make=Gauss, *, generations=4, seeds=2, lams=(1.0, np.inf), measure=moments, **options):
    model = mcloop.external(make, X, measure, **options)
    return train(partial(arms, model), {"lam": list(lams)}, seeds, generations, folder=folder)


class Count:
    """How many fits there were in this process, which is no part of what a generator is."""

    def __init__(self):
        self.fits = 0

    def mcloop_identity(self):
        return None


COUNT = Count()


class Fails(Gauss):
    """Fails in the seventh fit of a process."""

    def fit(self, x):
        COUNT.fits += 1
        if COUNT.fits == 7:
            raise RuntimeError("the\ndisk of my server is away")
        super().fit(x)


def test_a_run_whose_generator_failed_goes_on_to_the_bit(tmp_path):
    COUNT.fits = 0
    with pytest.raises(OwnCodeError) as caught:
        run(tmp_path / "a", Fails)
    said = str(caught.value)
    assert "RuntimeError: the disk of my server is away" in said and "test_external.py:" in said
    assert "Generation 4" in said and "kept" in said and "\n" not in said
    again = run(tmp_path / "a", Fails)
    COUNT.fits = 100
    assert again.identical(run(tmp_path / "b", Fails))
    assert again.spread.notnull().all()
    assert len(np.unique(again.spread.sel(generation=4))) == 4  # seeds and arms differ


@pytest.mark.parametrize("kind", [lambda: GaussianMixture(2), lambda: KernelDensity(bandwidth=0.3)])
def test_generators_of_scikit_learn_go_on_to_the_bit(tmp_path, kind, monkeypatch):
    whole = run(tmp_path / "whole", kind, seeds=1)
    run(tmp_path / "cut", kind, seeds=1)
    for newest in sorted((tmp_path / "cut").glob("*/generation-000[34]")):
        for file in [f for f in newest.rglob("*") if f.is_file()]:
            file.unlink()
    with pytest.warns(UserWarning, match="damaged"):
        again = run(tmp_path / "cut", kind, seeds=1)
    assert again.identical(whole)
    assert "no seed of its own" not in whole.attrs["estimator"]


def test_a_checkpoint_holds_data_and_no_pickle(tmp_path):
    frame = pd.DataFrame({"x": X[:, 0], "kind": np.where(X[:, 1] > 0, "a", "b")})

    class Rows:
        def fit(self, rows):
            self.rows = rows

        def sample(self, num_rows):
            return self.rows.sample(num_rows, replace=True)

    model = mcloop.external(Rows, frame)
    train(partial(arms, model), {"arm": ["replace", "accumulate"]}, 1, 3, folder=tmp_path)
    files = [path for path in tmp_path.rglob("*.npy")]
    assert files
    for path in files:
        assert len(np.load(path, allow_pickle=False)) == 60
    # of an accumulating loop's generation only what is new is written
    grown = [path.name for path in tmp_path.glob("arm=accumulate*/shards/*.npy")]
    assert len(grown) == 2, grown


def test_a_shard_that_was_changed_is_walked_back_over(tmp_path):
    whole = run(tmp_path / "whole", seeds=1, lams=(1.0,))
    run(tmp_path / "cut", seeds=1, lams=(1.0,))
    flip(next((tmp_path / "cut").glob("*/shards/generation-0004*")), 999)
    for sealed in (tmp_path / "cut").glob("*/seen/generation-0004*"):
        sealed.unlink()
    with pytest.warns(UserWarning, match="damaged"):
        assert run(tmp_path / "cut", seeds=1, lams=(1.0,)).identical(whole)


def test_loops_of_a_replica_share_their_first_fit(tmp_path):
    COUNT.fits = 100
    run(tmp_path, Fails, lams=(0.5, 1.0, 2.0), generations=3)
    assert COUNT.fits == 100 + 2 * (1 + 3 * 2)


def test_another_generator_is_not_taken_for_this_one(tmp_path):
    run(tmp_path, lambda: GaussianMixture(2), generations=2, seeds=1)
    with pytest.raises(InputError, match="another loop"):
        run(tmp_path, lambda: GaussianMixture(3), generations=2, seeds=1)


def test_a_loop_says_the_same_of_itself_when_its_generator_begins_at_random():
    class Random(Gauss):
        def __init__(self):
            self.weights = np.random.default_rng().normal(size=3)

    one, other = (describe_loop(arms(mcloop.external(Random, X, moments))) for _ in range(2))
    assert one == other


# -- an object that is kept


class Drifting:
    """Goes on from where it was: a mean that moves half of the way."""

    def __init__(self):
        self.mean, self.fits = np.zeros(2), 0

    def fit(self, x):
        self.mean, self.fits = (self.mean + x.mean(0)) / 2, self.fits + 1

    def sample(self, n, random_state=None):
        return self.mean + np.random.default_rng(random_state).normal(size=(n, 2))


def save(model, folder):
    (folder / "model.json").write_text(json.dumps([model.mean.tolist(), model.fits]))


def load(folder):
    model = Drifting()
    mean, model.fits = json.loads((folder / "model.json").read_text())
    model.mean = np.array(mean)
    return model


def seen(real, drawn):
    return drawn.mean()


class Cut(Drifting):
    def fit(self, x):
        COUNT.fits += 1
        if COUNT.fits == 4:
            raise RuntimeError("gone")
        super().fit(x)


def test_an_object_that_is_kept_goes_on_from_where_it_was(tmp_path):
    model = mcloop.external(Drifting, X, seen, warm=True)
    states = walked(arms(model, arm="replace"), 0, 4)
    assert states[-1].params.held.model.fits == 4
    cold = walked(arms(mcloop.external(Drifting, X), arm="replace"), 0, 4)
    assert cold[-1].params.held.model.fits == 1

    def go(folder, make, **options):
        model = mcloop.external(make, X, seen, warm=True, **options)
        return train(partial(arms, model), {"lam": [1.0, 2.0]}, 1, 4, folder=folder)

    whole = go(tmp_path / "whole", Drifting)  # the second arm makes its own first fit again
    assert whole.identical(go(tmp_path / "whole", Drifting))
    COUNT.fits = 0
    with pytest.raises(OwnCodeError, match="gone"):
        go(tmp_path / "cut", Cut, save=save, load=load)
    assert np.array_equal(go(tmp_path / "cut", Cut, save=save, load=load).seen, whole.seen)
    COUNT.fits = 0
    with pytest.raises(OwnCodeError, match="gone"):
        go(tmp_path / "lost", Cut)
    with pytest.raises(InputError, match="give save and load"):
        go(tmp_path / "lost", Cut)


def test_a_save_that_fails_is_told_with_its_generation(tmp_path):
    def full(model, folder):
        raise OSError("no space")

    model = mcloop.external(Drifting, X, seen, warm=True, save=full, load=load)
    with pytest.raises(OwnCodeError, match=r"Generation 1 of .*save failed at test_external\.py.*no space"):
        train(partial(arms, model), {"lam": [1.0]}, 1, 2, folder=tmp_path)


def test_a_saved_model_that_was_changed_is_not_believed(tmp_path):
    def go():
        model = mcloop.external(Drifting, X, seen, warm=True, save=save, load=load)
        return train(partial(arms, model), {"lam": [1.0]}, 1, 3, folder=tmp_path)

    whole = go()
    for file in tmp_path.rglob("model.json"):
        if "0003" in str(file):
            file.write_text(file.read_text().replace("3]", "4]"))
    with pytest.warns(UserWarning, match="its model in 'generation-0003-model' was changed"):
        assert go().identical(whole)


# -- the names of the field


def frame_of(n=40):
    rng = np.random.default_rng(1)
    return pd.DataFrame({"x": rng.normal(size=n), "city": rng.choice(["Bern", "Zug"], n)})


class Wrapped:
    def __init__(self, rows):
        self.rows = rows

    def dataframe(self):
        return self.rows


def generators():
    """Every way of the field to say fit and sample."""
    found = {}
    for fit in ("fit", "train"):
        for sample, count in (
            ("sample", "num_rows"),
            ("generate", "count"),
            ("forge", "size"),
            ("generate_synthetic_data", "n"),
        ):
            body = {
                fit: lambda self, rows: setattr(self, "rows", rows),
                sample: eval(f"lambda self, {count}: self.rows.sample({count}, replace=True)"),
            }
            found[f"{fit} {sample} {count}"] = type("Tool", (), body)

    class Positional:
        def fit(self, rows):
            self.rows = rows

        def sample(self, how_many, /):
            return Wrapped(self.rows.sample(how_many, replace=True))

    class Keyword(Positional):
        def sample(self, *, n_samples):
            return self.rows.sample(n_samples, replace=True).to_dict("records")

    class Columns(Positional):
        def fit(self, rows, discrete_columns=()):
            assert list(discrete_columns) == ["city"]
            self.rows = rows

        def sample(self, n):
            return self.rows.sample(n, replace=True)[["city", "x"]]

    return {**found, "positional": Positional, "keyword": Keyword, "columns": Columns}


@pytest.mark.parametrize("name", generators())
def test_the_names_of_the_field_are_known(name):
    model = mcloop.external(generators()[name], frame_of(), lambda real, drawn: drawn["city"].eq("Bern").mean())
    loop = arms(model)
    _, info = loop.generation(jax.random.key(0), loop.init(jax.random.key(0)))
    assert 0 <= info["measure"] <= 1
    drawn = model.sample(jax.random.key(0), loop.init(jax.random.key(0)).params, 7)
    shown = model.hosted.shown(drawn.take(np.arange(7)))
    assert list(shown.columns) == ["x", "city"] and shown.dtypes.equals(frame_of().dtypes)


@pytest.mark.parametrize(("version", "named"), [("1.38.0", False), ("2.0.0", True)])
def test_sdv_is_given_a_table_by_its_name_from_2_on(version, named, monkeypatch):
    class Tool:
        def __init__(self):
            self.metadata = type("Metadata", (), {"tables": {"people": None}})()

        def fit(self, rows):
            assert (list(rows) == ["people"]) is named
            self.rows = rows["people"] if named else rows

        def sample(self, num_rows):
            drawn = self.rows.sample(num_rows, replace=True)
            return {"people": drawn} if named else drawn

    Tool.__module__ = "sdv.single_table.copulas"
    monkeypatch.setattr("mcloop.own.duck.metadata.version", lambda name: version)
    states = walked(arms(mcloop.external(Tool, frame_of())), 0, 3)
    assert list(states[-1].params.held.model.rows.columns) == ["x", "city"]


def test_two_functions_are_enough():
    def fit(model, x):
        return x.mean()

    def sample(model, n, seed):
        return np.random.default_rng(seed).normal(model, size=n)

    states = walked(arms(mcloop.external(None, X[:, 0], fit=fit, sample=sample)), 0, 3)
    assert np.isfinite(states[-1].params.held.model)


def test_pairs_are_fitted_and_drawn_as_pairs():
    class Pairs:
        def fit(self, x, y):
            self.x, self.y = x, y

        def sample(self, n):
            chosen = np.random.choice(len(self.x), n)  # noqa: NPY002
            return self.x[chosen], self.y[chosen]

    real = X, (X[:, 0] > 0).astype(int)
    model = mcloop.external(Pairs, real, lambda real, drawn: np.mean((drawn[0][:, 0] > 0) == drawn[1]))
    loop = arms(model)
    assert loop.generation(jax.random.key(0), loop.init(jax.random.key(0)))[1]["measure"] == 1.0


def test_seeds_are_set_and_put_back():
    class Global:
        def fit(self, x):
            self.a = np.random.normal(), random.random()  # noqa: NPY002

        def sample(self, n):
            return np.full((n, 2), sum(self.a)) + np.random.normal()  # noqa: NPY002

    loop = arms(mcloop.external(Global, X, seen))
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    told = [np.random.random(), random.random()]  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)
    one = walked(loop, 3, 3)[-1].params.held.model.a
    assert [np.random.random(), random.random()] == told  # noqa: NPY002
    assert walked(loop, 3, 3)[-1].params.held.model.a == one != walked(loop, 4, 3)[-1].params.held.model.a
    assert "no seed of its own" in loop.model.estimator
    state = walked(loop, 3, 1)[0].params
    assert len({float(loop.model.sample(jax.random.key(i), state, 1).take(np.arange(1))["x"][0, 0]) for i in range(4)}) == 4


def test_the_seed_of_torch_is_set_and_put_back():
    torch = pytest.importorskip("torch")

    class Net:
        def fit(self, x):
            self.shift = float(torch.randn(()))

        def sample(self, n):
            return torch.randn(n, 2) + self.shift

    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, other = (walked(arms(mcloop.external(Net, X.astype(np.float32))), 0, 2)[-1].params.held.model.shift for _ in range(2))
    assert one == other and torch.equal(torch.random.get_rng_state(), before)


def test_torch_is_not_imported():
    import subprocess

    code = "import sys, mcloop, numpy as np\nfrom mcloop.own import external\nassert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -- correctors and curation of a user's own points


def test_a_corrector_is_given_the_rows_and_gives_rows_back():
    def correct(key, rows, params):
        assert isinstance(rows, pd.DataFrame) and params.held.model is not None
        return rows.assign(city="Bern")

    class Rows:
        def fit(self, rows):
            self.rows = rows

        def sample(self, n):
            return self.rows.sample(n, replace=True)

    model = mcloop.external(Rows, frame_of(), lambda real, drawn: drawn.city.eq("Bern").mean())
    loop = make_loop(model, regimes.replace(), correct)
    state, _ = loop.generation(jax.random.key(0), loop.init(jax.random.key(0)))
    assert state.params.held.model.rows.city.eq("Bern").all()
    for wrong, said in (
        (lambda key, rows, params: rows[:3], "gave 3 back"),
        (lambda key, rows, params: rows.nothing, "nothing"),
    ):
        loop = make_loop(model, regimes.replace(), wrong)
        with pytest.raises(OwnCodeError, match=said):
            loop.generation(jax.random.key(0), loop.init(jax.random.key(0)))


def test_curation_chooses_among_rows():
    score = curation.points(lambda x: x[:, 0])
    model = mcloop.external(Gauss, X)
    plain, best = (
        np.mean([walked(make_loop(model, regimes.replace(), c), seed, 2)[-1].params.held.model.mean[0] for seed in range(20)])
        for c in (None, curation.best_of(4, score))
    )
    assert best > plain + 0.6  # the mean of the best of four normal ones is 1.03
    above = walked(make_loop(model, regimes.replace(), curation.keep(score, at_least=0.0)), 0, 2)[-1]
    assert above.params.held.model.mean[0] > 0.5
    for wrong, said in ((lambda x: 1.0, "a number for each of 60 points"), (lambda x: x.no, "has no attribute")):
        with pytest.raises(InputError, match=said):
            walked(make_loop(model, regimes.replace(), curation.best_of(2, curation.points(wrong))), 0, 2)


# -- what cannot be used


def drawn_from(sample, real=X):
    model = mcloop.external(lambda: None, real, fit=lambda model, x: 1, sample=sample)
    data, truth = model.observe(jax.random.key(0), None)
    return model.sample(jax.random.key(0), model.fit(jax.random.key(1), truth, data)[0], 5)


class Mute:
    def fit(self, x):
        pass


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((Mute, X), "A Mute has no method to sample (sample, generate, forge, generate_synthetic_data): give sample="),
        ((object, X), "An object has no method to fit"),
        ((lambda: None, X), "make must return a generator"),
        ((None, X), "make must be a function"),
        ((3, X), "make must be a function, not 3"),
        ((lambda: 1 / 0, X), "make failed at test_external.py:"),
        ((Gauss, None), "real must be a DataFrame, an array of numbers (n, ...), (X, y) or a list of strings, not nothing"),
        ((Gauss, X[:1]), "real must have at least two rows, not 1"),
        ((Gauss, []), "real must have at least two points, not 0"),
        ((Gauss, X * np.array([1, np.inf])), "real must be finite, and is infinite at 60 places"),
        ((Gauss, pd.DataFrame({"a": [1.0, np.inf]})), "Column 'a' of real is infinite at 1 of 2 rows"),
        ((Gauss, pd.DataFrame()), "real must have at least one column"),
        ((Gauss, pd.DataFrame({"a": [[1], [2]]})), "Column 'a' of real holds list"),
        ((Gauss, pd.DataFrame({"a": [None, None]})), "Column 'a' of real is empty"),
        ((Gauss, pd.DataFrame([[1, 2]] * 3, columns=["a", "a"])), "two columns named 'a'"),
        ((Gauss, pd.DataFrame(np.zeros((2, 3000)))), "3,000 columns"),
    ],
)
def test_what_cannot_enter_is_refused(arguments, said, refused):
    with refused(said):
        mcloop.external(*arguments)


@pytest.mark.parametrize(
    ("options", "said"), [({"save": print}, "only save was"), ({"load": print}, "only load was"), ({"samples": 0}, "samples")]
)
def test_options_are_checked(options, said, refused):
    with refused(said):
        mcloop.external(Gauss, X, **options)


@pytest.mark.parametrize(
    ("gives", "said"),
    [
        (lambda m, n: None, "must be a DataFrame, an array of numbers (n, ...), (X, y) or a list of strings, not nothing"),
        (lambda m, n: np.zeros((n, 3)), "has points of shape (3,), and real ones have (2,)"),
        (lambda m, n: np.zeros((n - 1, 2)), "must be 60 rows, as asked for, and is 59"),
        (lambda m, n: 1 / 0, "ZeroDivisionError"),
    ],
)
def test_what_is_drawn_is_checked(gives, said):
    with pytest.raises(OwnCodeError) as caught:
        drawn_from(gives)
    assert said in str(caught.value)


def test_what_is_not_finite_ends_the_loop_and_not_the_run(tmp_path):
    with pytest.raises(Diverged, match="60 of 60"):
        drawn_from(lambda m, n: np.full((n, 2), np.nan))

    class Ends(Gauss):
        def sample(self, n):
            return super().sample(n) * (np.nan if np.trace(self.cov) > 8 else 1.6)

    ds = run(tmp_path, Ends, generations=5, lams=(0.1, np.inf), seeds=1)
    assert ds.spread.sel(lam=0.1).notnull().all() and not ds.spread.sel(lam=np.inf).notnull().all()
    assert "is not finite at" in " ".join(ds.attrs["remarks"])


def test_what_is_drawn_keeps_its_values():
    """Of a real array of yes and no a generator may draw fractions, and counts: neither is rounded to yes."""
    truths = np.array([[True], [False]] * 5)
    for real, drawn in ((truths, 2.0), (truths, 0.5), (np.ones((9, 1), int), 1.5)):
        body = drawn_from(lambda m, n, drawn=drawn: np.full((n, 1), drawn), real)
        assert (body.take(np.arange(5))["x"] == drawn).all()
    whole = drawn_from(lambda m, n: np.full((n, 1), 3.0), np.ones((9, 1), int))
    assert whole.take(np.arange(5))["x"].dtype == int


def test_a_measure_that_gives_no_number_is_told():
    loop = arms(mcloop.external(Gauss, X, lambda real, drawn: {"far": "very"}))
    with pytest.raises(OwnCodeError, match="far is a str"):
        loop.measure(jax.random.key(0), loop.init(jax.random.key(0)))
    bad = arms(mcloop.external(Gauss, X, lambda real, drawn: drawn.nothing))
    with pytest.raises(OwnCodeError, match="measure failed at"):
        bad.measure(jax.random.key(0), bad.init(jax.random.key(0)))


def test_closed_forms_say_that_there_are_none():
    loop = make_loop(mcloop.external(Gauss, X), regimes.replace(), correctors.temperature(0.5))
    with pytest.raises(InputError, match="closed form"):
        loop.generation(jax.random.key(0), loop.init(jax.random.key(0)))


def test_results_do_not_say_where_a_run_lies(tmp_path):
    ds = run(tmp_path / "secret", seeds=1, generations=2)
    assert "secret" not in str(ds.attrs) and not any(isinstance(v, Path) for v in ds.attrs.values())


def test_no_certificate_of_what_has_no_numbers_for_parameters(refused):
    with refused("No certificate: Gauss is a generator of your own"):
        mcloop.certify(arms(mcloop.external(Gauss, X)), jax.random.key(0))


# -- tables as shards keep them


def every_kind(n=40):
    """A table with every kind of column that pandas has, with gaps and without."""
    rng = np.random.default_rng(2)
    half = n // 2
    return pd.DataFrame(
        {
            "number": rng.normal(size=n),
            "single": rng.normal(size=n).astype(np.float32),
            "gaps": np.where(rng.random(n) < 0.3, np.nan, 1.5),
            "whole": rng.integers(0, 9, n),
            "byte": rng.integers(0, 9, n).astype(np.int8),
            "whole with gaps": pd.array([1, None] * half, "Int64"),
            "truth": rng.random(n) < 0.5,
            "truth with gaps": pd.array([True, None] * half, "boolean"),
            "truth as objects": pd.Series([True, None] * half, dtype=object),
            "text": rng.choice(["x", "yé", ""], n),
            "text with gaps": pd.array(["k", None] * half, "string"),
            "category": pd.Categorical(rng.choice(["u", "v"], n), categories=["v", "u", "unused"]),
            "ordered": pd.Categorical(["low", None] * half, categories=["low", "high"], ordered=True),
            "numbers as categories": pd.Categorical(rng.choice([3, 7], n)),
            "date": pd.date_range("2020", periods=n),
            "date with a zone": pd.date_range("2020", periods=n, tz="Europe/Berlin"),
            "date with gaps": pd.Series(pd.date_range("2020", periods=n)).where(np.arange(n) % 2 == 0),
            "duration": pd.to_timedelta(np.arange(n), "s"),
        }
    )


def test_every_kind_of_column_comes_back():
    real = every_kind()
    model = mcloop.external(lambda: None, real, fit=lambda model, rows: rows, sample=lambda rows, n: rows)
    data, truth = model.observe(jax.random.key(0), None)
    seen = model.fit(jax.random.key(1), truth, data)[0].held.model  # all of them, in another order
    order = seen["number"].map({x: i for i, x in enumerate(real["number"])})
    pd.testing.assert_frame_equal(seen.set_index(order).sort_index(), real, check_names=False, check_index_type=False)


def test_what_a_generator_makes_of_a_column_is_kept():
    real = every_kind()
    drawn = real.astype({"category": object, "whole": float, "truth": float})
    drawn["whole"] += 0.5
    drawn["truth"] *= 0.5
    drawn.loc[0, "category"] = "new"
    model = mcloop.external(lambda: None, real, fit=lambda model, rows: 1, sample=lambda m, n: drawn)
    data, truth = model.observe(jax.random.key(0), None)
    body = model.sample(jax.random.key(0), model.fit(jax.random.key(1), truth, data)[0], len(real))
    seen = model.hosted.shown(body.take(np.arange(len(real))))
    assert sorted(seen["whole"]) == sorted(drawn["whole"]) and set(seen["truth"]) == {0.0, 0.5}
    assert list(seen["category"].cat.categories) == ["v", "u", "unused", "new"]
    assert (seen["category"] == "new").sum() == 1
