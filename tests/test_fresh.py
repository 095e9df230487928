"""New real points: from the source that a loop knows, or the user's own drawn again, never from a fit to them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import learners
import numpy as np
import pytest
from scipy import stats

from mcloop import exact, random, regimes
from mcloop.data.grammar import story_grammar
from mcloop.exact.student_t import Mixture
from mcloop.loop import _as_real, _fresh, make_loop
from mcloop.memory.rows import Rows
from mcloop.models import hosted
from mcloop.models.compiled import compiled_model
from mcloop.models.training import training
from mcloop.nets.transformer import Shape
from mcloop.studies.story_models import corpus_of, story_model
from mcloop.types import State

KEYS = random.fold_in(jnp.broadcast_to(jax.random.key(4), (1, 2000)), np.arange(2000)[None])
SKEWED = np.random.default_rng(0).exponential(size=20)
HUMPS = Mixture((0.6, 0.4), (-1.0, 2.0), (0.5, 1.0))


def new_points(model, real, count=20):
    loop = make_loop(model, regimes.fresh(1.0, 1.0))

    def run(keys):
        state = loop.init(keys, real, 2)
        return _fresh(random.fold_in(keys, 99), loop.model, state, jnp.float32(count))

    return jax.jit(run)(KEYS)


KEPT = {
    "gaussian": (exact.gaussian(1, 20, literal=True), SKEWED[:, None]),
    "gamma_family": (exact.gamma_family(n=20, literal=True), SKEWED),
    "kde": (exact.kde(1, 20, 5.0), SKEWED[:, None]),
    "student_t": (exact.student_t(20), SKEWED),
}


@pytest.mark.parametrize("family", KEPT)
def test_new_real_points_are_the_users_own(family):
    model, real = KEPT[family]
    drawn = new_points(model, real)
    assert isinstance(drawn, Rows)
    values, weight = np.ravel(drawn.values)[:20], np.asarray(drawn.weight).reshape(20, 2000)
    np.testing.assert_allclose(np.sort(values), np.sort(SKEWED), rtol=1e-6)
    assert (weight.sum(0) == 20).all()
    for row in weight[:3]:  # each point is drawn Binomial(20, 1/20) times
        assert stats.chisquare(np.bincount(np.minimum(row.astype(int), 3)), 2000 * _cells()).pvalue > 1e-4


def _cells():
    p = stats.binom(20, 1 / 20).pmf(np.arange(21))
    return np.append(p[:3], p[3:].sum())


def test_statistics_are_those_of_points_drawn_again():
    moved = new_points(exact.gaussian(1, 20), SKEWED[:, None])
    rng = np.random.default_rng(1)
    mean = rng.choice(SKEWED, (2000, 20)).mean(1)
    assert stats.ks_2samp(np.ravel(moved.mean), mean).pvalue > 1e-3
    np.testing.assert_allclose(np.mean(np.square(moved.root)) / 20, SKEWED.var() * 19 / 20, rtol=0.05)
    # skewed as the data are, which no Gaussian is: the mean and the spread of a sample go together
    together = np.corrcoef(np.ravel(moved.mean), np.ravel(moved.root))[0, 1]
    assert together > 0.3


def test_a_family_with_a_source_of_its_own_draws_from_it():
    drawn = new_points(exact.student_t(20, 5.0, HUMPS), None)
    x = np.ravel(drawn.values)

    def cdf(x):
        return stats.norm.cdf((x[:, None] - HUMPS.mean) / np.array(HUMPS.std)) @ HUMPS.weight

    assert stats.kstest(x, cdf).pvalue > 1e-3


# networks


class Corners:
    """A source of points of which every coordinate is -1 or 1, as no network draws them."""

    name = "corners"

    @staticmethod
    def sample(key, count):
        return jnp.sign(random.normal(key, (count, 2)))


class Named(NamedTuple):
    """Points as a source may give them."""

    x: jax.Array


class NamedCorners:
    """The same, as a tuple with names."""

    name = "corners"

    @staticmethod
    def sample(key, count):
        return Named(Corners.sample(key, count))


def compiled(source):
    learner = learners.gaussian_learner()
    if source is NamedCorners:
        learner = learner._replace(
            loss=lambda key, variables, points: learners.gaussian_learner().loss(key, variables, points.x),
            sample=lambda key, variables, count: Named(learners.gaussian_learner().sample(key, variables, count)),
        )
    return compiled_model(learner, training(3, 3, batch=8), source, 20, capacity=20, reference=False)


@pytest.mark.parametrize("source", [Corners, NamedCorners], ids=lambda s: s.__name__)
@pytest.mark.parametrize("own", [False, True], ids=["source", "own"])
def test_a_compiled_network_has_new_real_points_of_the_source_or_of_the_users_own(source, own):
    """The user's own are told from the source's by their size, and from the network's by being among the user's."""
    mine = np.float32(np.random.default_rng(0).uniform(3, 4, (20, 2)))
    real = None if not own else mine if source is Corners else Named(mine)
    loop = make_loop(compiled(source), regimes.fresh(1.0, 0.5))
    state = jax.jit(lambda key: loop.init(key, real, 3))(jax.random.key(0))
    state = jax.jit(loop.generation)(jax.random.key(0), state)[0]
    drawn = jax.jit(lambda key: _fresh(key, loop.model, state, jnp.float32(20)))(jax.random.key(5))
    values, weight = np.asarray(jax.tree.leaves(drawn.values)[0]), np.asarray(drawn.weight)
    assert weight.sum() == 20
    if own:
        np.testing.assert_array_equal(values, mine)
        assert weight.max() >= 2 and (weight == np.round(weight)).all()  # drawn again, and so some of them twice
    else:
        assert set(np.abs(values[weight > 0]).ravel()) == {1.0}


IMAGES = np.random.default_rng(0).integers(0, 255, (12, 4, 4, 1), dtype=np.uint8)
GRAMMAR = story_grammar(20)
TOLD = corpus_of(GRAMMAR, 30, 24, 128)


def of_images():
    learner = learners.gaussian_learner()  # never asked: only the truth is drawn from
    real = {"x": IMAGES, "label": np.arange(12, dtype=np.int32)}
    return hosted.hosted_model(learner, training(1, 1, batch=4), real, codec=hosted.images())


def of_stories(grammar):
    spec, shape = training(1, 1, batch=4), Shape("gpt2", 1, 8, 16, 2, TOLD.tokenizer.vocabulary, 128)
    return story_model(TOLD, shape, spec, grammar=grammar, inclusive=False, samples=8, chunk=8).model


@pytest.mark.parametrize("kind", ["images", "texts", "grammar"])
def test_a_hosted_network_has_new_real_points_of_its_data_or_of_their_grammar(kind):
    model = of_images() if kind == "images" else of_stories(GRAMMAR if kind == "grammar" else None)
    data, origin = model.observe(jax.random.key(0), None)
    state = State(2, origin, (), data, origin, ())
    drawn = [_as_real(_fresh(jax.random.key(i), model, state, 25)) for i in range(2)]
    for body in drawn:
        assert len(body) == 25 == model.memory.real(body)
    first, second = (body.take(np.arange(25)) for body in drawn)
    if kind == "images":
        assert all((IMAGES[label] == x).all() for x, label in zip(first["x"], first["label"], strict=True))
        assert not np.array_equal(first["label"], second["label"])
        return
    own = {row.tobytes() for row in TOLD.train}
    assert not np.array_equal(first["tokens"], second["tokens"])
    if kind == "texts":
        assert all(row.tobytes() in own for row in first["tokens"])
    else:  # stories that the grammar tells, and not only those that it has told
        end = TOLD.tokenizer.end
        told = [row[: np.argmax(row == end)] for row in first["tokens"]]
        assert all(np.isfinite(GRAMMAR.log_prob(story)) for story in told)
        assert any(row.tobytes() not in own for row in first["tokens"])


def test_where_only_a_summary_is_kept_new_points_are_refused(refused):
    x = np.random.default_rng(0).normal(size=(30, 2))
    loop = make_loop(exact.linear_regression(2, 30), regimes.fresh())
    with refused("regime 'fresh' draws new real points", "literal=True"):
        loop.init(jax.random.key(0), (x, x[:, 0] + x[:, 1] ** 2), 2)
