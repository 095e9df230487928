"""What is not finite is no data, in hosted and in compiled loops; and a fit of another length compiles nothing anew."""

import jax
import jax.numpy as jnp
import learners
import numpy as np
import pytest

from mcloop import make_loop, regimes, train
from mcloop.errors import Diverged
from mcloop.models import hosted
from mcloop.models.compiled import compiled_model
from mcloop.models.decoding import decoder
from mcloop.models.training import Budget, adamw, averaged, begin, staircase, step, training
from mcloop.nets.network import Variables
from mcloop.nets.transformer import Shape, transformer

NAN = float("nan")


def drawing_nan(fails=True):
    """The smallest learner; one coordinate of a point in eight that it draws is no number."""
    plain = learners.gaussian_learner()

    def sample(key, variables, count, label=None):
        x = plain.sample(key, variables, count)
        return x.at[::8, 0].set(NAN) if fails else x

    return plain._replace(sample=sample)


def hosted_of(learner, **options):
    real = {"x": np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)}
    # as the codec of images does: a cast makes numbers of everything
    codec = hosted.Codec(lambda points: {"x": np.nan_to_num(np.asarray(points))}, lambda stored: stored["x"])
    spec = training(30, 7, **{"rate": 0.05, "batch": 16, **options})
    return hosted.hosted_model(learner, spec, real, codec=codec, evaluate=learners.evaluate, samples=20, chunk=20)


def test_a_hosted_draw_that_is_not_finite_ends_the_loop_with_its_generation(tmp_path):
    model = hosted_of(drawing_nan())
    ds = train(lambda: make_loop(model, regimes.replace()), {}, 1, 3, folder=tmp_path)
    assert np.isnan(ds.get("spread", np.nan)).all()
    assert "generation 1 could not be fitted: what its network draws is not finite" in ds.attrs["remarks"][0]


def test_parameters_that_are_lost_in_the_last_step_end_the_loop():
    model = hosted_of(learners.gaussian_learner(), later_rate=lambda share: NAN if share > 0.8 else 0.01)
    loop = make_loop(model, regimes.replace())
    state = loop.init(jax.random.key(0), None, 3)
    with pytest.raises(Diverged, match="parameters are not finite after 7 steps"):  # of which every loss was a number
        loop.generation(jax.random.key(0), state)


def test_images_are_not_cast_from_what_is_no_number():
    with pytest.raises(Diverged, match="not finite"):
        hosted.images().encode({"x": jnp.full((1, 2, 2, 1), NAN), "label": jnp.zeros(1, int)})


@pytest.mark.parametrize("fault", ["rate", "draw"])
def test_a_compiled_loop_that_is_not_finite_is_nan_and_said(tmp_path, fault):
    learner = drawing_nan(fault == "draw")
    model = compiled_model(
        learner,
        training(30, 10, rate=0.05, later_rate=nan_late if fault == "rate" else 0.01, batch=16),
        learners.Normal,
        40,
        capacity=40,
        evaluate=lambda points, variables: {"share": (points > 0).mean()},  # a number, whatever the points are
        samples=20,
        reference=False,
    )
    ds = train(lambda lam: make_loop(model, regimes.augment(lam)), {"lam": [0.0, 1.0]}, 2, 3, folder=tmp_path)
    first = 1 if fault == "draw" else 2
    for lam in (0.0, 1.0):
        assert np.isfinite(ds.share.sel(lam=lam)).values.tolist() == [[t < first for t in (1, 2, 3)]] * 2
        assert any(f"lam={lam}, seed 1: generation {first} could not be fitted" in said for said in ds.attrs["remarks"])
    if fault == "draw":  # what was drawn is in no fit where lam is 0
        assert np.isfinite(ds.loss.sel(lam=0.0, generation=3)).all() and np.isnan(ds.loss.sel(lam=1.0, generation=3)).all()


def nan_late(share):
    return jnp.where(share > 0.8, jnp.nan, 0.01)


@pytest.mark.parametrize("options", [{}, {"top_k": 3}, {"top_p": 0.9}, {"temperature": 0.0}], ids=str)
def test_a_token_is_of_the_alphabet_whatever_the_logits(options):
    shape = Shape("gpt2", 1, 8, 16, 2, 7, 4)  # 7 tokens in groups of 2: there are places for 8
    net = transformer(shape)
    variables = net.init(jax.random.key(0))
    draw = jax.jit(decoder(net, 4, 0, stop=False, checked=True, blocks=1, **options), static_argnums=2)
    tokens, sound = draw(jax.random.key(1), variables, 50)
    assert np.all(tokens < 7) and np.all(sound)
    broken = variables._replace(params=jax.tree.map(lambda x: x * NAN, variables.params))
    tokens, sound = draw(jax.random.key(1), broken, 50)
    assert np.all((tokens >= 0) & (tokens < 7)) and not np.any(sound)


def test_a_longer_fit_compiles_nothing():
    compiled = []
    model = hosted_of(learners.gaussian_learner())
    key, data = jax.random.key(0), model.observe(jax.random.key(0), None)[0]
    state = make_loop(model, regimes.replace()).init(key, None, 3)
    fitted, _ = hosted.with_budget(model, Budget(40)).fit(key, state.params, data)

    def listen(event, seconds, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + 17.25)(1.0)
        assert len(compiled) == 1  # so that what follows is counted
        for steps in (41, 57, 300):
            fitted, _ = hosted.with_budget(model, Budget(steps)).fit(key, fitted, data)
        assert len(compiled) == 1
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_a_staircase_falls_an_epoch_at_a_time_and_not_to_zero():
    steps, epochs = 20 * 47, 20
    rates = np.array([float(staircase(1e-4, epochs)(i / steps)) for i in range(steps)])
    np.testing.assert_allclose(rates, 1e-4 * (1 - np.arange(steps) // 47 / epochs), rtol=1e-5)
    assert abs(rates[-1] / (1e-4 / 20) - 1) < 1e-5


def test_weight_decay_spares_norms_biases_and_positions():
    ones = transformer(Shape("gpt2", 2, 8, 16, 2, 7, 4)).init(jax.random.key(0))
    ones = jax.tree.map(jnp.ones_like, ones.params)
    still = jax.tree.map(jnp.zeros_like, ones)
    transform = adamw(0.1)
    change, _ = transform.update(still, transform.init(ones), ones)
    decayed = {str(path[-1].key) for path, x in jax.tree_util.tree_leaves_with_path(change) if np.any(x != 0)}
    assert decayed == {"kernel", "tokens"}


def test_running_statistics_are_averaged_with_the_parameters():
    def loss(key, variables, points):
        return variables.params["a"].sum(), {"mean": variables.stats["mean"] + 1, "count": variables.stats["count"] + 1}

    learner = learners.gaussian_learner()._replace(loss=loss)
    spec = training(1, 1, ema=0.9)
    run = begin(spec, Variables({"a": jnp.zeros(1)}, {"mean": jnp.zeros(1), "count": jnp.int32(0)}))
    run = run._replace(moments=spec.transform.init(run.variables.params))
    for _ in range(3):
        run = step(learner, spec, jax.random.key(0), run, None, 0.1)[0]
    now = averaged(run)
    np.testing.assert_allclose(now.stats["mean"], 0.1 * (3 + 0.9 * 2 + 0.81), rtol=1e-6)
    assert run.variables.stats["mean"] == 3 and now.stats["count"] == 3


def test_a_loop_that_several_cells_share_runs_once(tmp_path):
    model = hosted_of(learners.gaussian_learner())
    same = make_loop(model, regimes.baseline())

    def make(arm, lam):
        return same if arm == "baseline" else make_loop(model, regimes.augment(lam))

    grid = {"arm": ["baseline", "augment"], "lam": [0.5, 1.0]}
    ds = train(make, grid, 1, 2, folder=tmp_path)
    baseline = ds.spread.sel(arm="baseline")
    assert np.isfinite(ds.spread).all() and (baseline.sel(lam=0.5) == baseline.sel(lam=1.0)).all()
    assert len(list(tmp_path.glob("arm=baseline*"))) == 1 and len(list(tmp_path.glob("arm=augment*"))) == 2
