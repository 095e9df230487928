"""Normalizing flows: invertible, with the determinant and the density that they claim, and able to learn one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import export
from scipy import stats

from mcloop.models.flow import normalizing_flow
from mcloop.nets.flow import flow, spline

KINDS = ("spline", "affine")
SHIFT, SCALE = np.float32([1.0, -2.0]), np.float32([2.0, 0.7])
SIDE, BLOCK = 640, 40  # fine grid of the density, and how many of its cells a side make one cell of the chi-square


def stirred(init, seed=0, size=0.15):
    """Variables away from the identity that every flow starts from; gentle, for float32 undoes no slope of 1e4."""
    variables = jax.jit(init)(jax.random.key(seed))
    rng = np.random.default_rng(seed)
    moved = jax.tree.map(lambda leaf: leaf + np.float32(size * rng.normal(size=leaf.shape)), variables.params)
    return variables._replace(params=moved)


def toy(kind, **changed):
    return normalizing_flow(**({"layers": 3, "bins": 4, "width": 16, "kind": kind, "shift": SHIFT, "scale": SCALE} | changed))


@pytest.mark.parametrize(("kind", "dim"), [("spline", 2), ("spline", 3), ("affine", 3)])
def test_inverse_and_determinant(kind, dim):
    net = flow(dim, layers=2, bins=3, width=16, kind=kind)
    variables = stirred(net.init)
    # most of these leave the spline's interval, [-4, 4], in some coordinate at some layer
    x = jnp.concatenate([2 * jax.random.normal(jax.random.key(2), (60, dim)), jnp.linspace(-9, 9, 20 * dim).reshape(20, dim)])

    @jax.jit
    def there_and_back(x):
        # jacfwd of every point at once: points do not see each other
        y, along, log_det = jax.linearize(lambda x: net.apply(variables, x)[0], x, has_aux=True)
        jacobian = jnp.stack([along(jnp.broadcast_to(axis, x.shape)) for axis in jnp.eye(dim)], 2)
        (back, log_det_back), _ = net.apply(variables, y, inverse=True)
        return y, back, log_det, log_det_back, jnp.linalg.slogdet(jacobian)

    y, back, log_det, log_det_back, (sign, expected) = there_and_back(x)
    assert np.abs(y - x).max() > 0.3  # not the identity
    np.testing.assert_allclose(back, x, atol=1e-4)
    assert (sign == 1).all() and expected.std() > 0.1
    np.testing.assert_allclose(log_det, expected, atol=2e-4)
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-3)


def test_spline_meets_its_knots():
    """Gregory & Delbourgo: at the knots, the given values and slopes; between them monotone; linear tails; C^1 throughout."""
    bins, bound = 5, 3.0
    raw = jax.random.normal(jax.random.key(0), (3 * bins - 1, 1, 1))

    @jax.jit
    def value(x):
        return spline(x.reshape(-1, 1), jnp.broadcast_to(raw, (len(raw), x.size, 1)), bound=bound)[0].reshape(x.shape)

    widths, heights = (2 * bound * (1e-3 + (1 - 1e-3 * bins) * jax.nn.softmax(r[:, 0, 0])) for r in (raw[:5], raw[5:10]))
    knots, values = (np.cumsum(np.r_[-bound, size]) for size in (widths, heights))
    slopes = np.r_[1, 1e-3 + jax.nn.softplus(raw[10:, 0, 0] + np.log(np.expm1(1 - 1e-3))), 1]
    np.testing.assert_allclose(value(jnp.float32(knots)), values, atol=1e-5)
    for side in (-2e-5, 2e-5):  # the slope from the left and from the right
        at = jnp.float32(knots) + side
        np.testing.assert_allclose(jax.grad(lambda x: value(x).sum())(at), slopes, rtol=0.02)
    line = jnp.linspace(-5, 5, 2001)
    assert (jnp.diff(value(line)) > 0).all()
    np.testing.assert_array_equal(value(line)[jnp.abs(line) > bound], line[jnp.abs(line) > bound])


@pytest.fixture(scope="module", params=KINDS)
def gridded(request):
    """A stirred flow of each kind, its density on a fine grid, and 40,000 samples."""
    learner = toy(request.param)
    variables = stirred(learner.init, seed=5, size=0.15)
    samples = jax.jit(lambda v: learner.sample(jax.random.key(11), v, 40_000))(variables)
    low, high = samples.min(0), samples.max(0)
    edges = [np.linspace(a - (b - a) / 5, b + (b - a) / 5, SIDE + 1) for a, b in zip(low, high, strict=True)]
    middles = [(edge[1:] + edge[:-1]) / 2 for edge in edges]
    points = jnp.float32(np.stack(np.meshgrid(*middles, indexing="ij"), -1).reshape(-1, 2))
    log_density = jax.jit(learner.log_prob)(variables, points)
    cell = np.prod([edge[1] - edge[0] for edge in edges])
    mass = np.exp(np.float64(log_density)).reshape(SIDE, SIDE) * cell
    return mass, edges, np.asarray(samples)


def test_density_integrates_to_one(gridded):
    mass, _, samples = gridded
    assert abs(mass.sum() - 1) < 1e-3
    assert np.abs(stats.skew(samples)).max() > 0.05  # not a Gaussian


def test_samples_have_the_density(gridded):
    mass, edges, samples = gridded
    side = SIDE // BLOCK
    expected = mass.reshape(side, BLOCK, side, BLOCK).sum((1, 3)).ravel() * len(samples)
    seen = np.histogram2d(*samples.T, bins=[edge[::BLOCK] for edge in edges])[0].ravel()
    enough = expected >= 20
    assert enough.sum() >= 15
    expected, seen = (np.r_[part[enough], part[~enough].sum()] for part in (expected, seen))
    assert stats.chisquare(seen, expected * seen.sum() / expected.sum()).pvalue > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_starts_as_the_gaussian_of_its_units(kind):
    learner = toy(kind)
    x = SHIFT + SCALE * jax.random.normal(jax.random.key(0), (50, 2))
    got = jax.jit(lambda key: learner.log_prob(learner.init(key), x))(jax.random.key(1))
    np.testing.assert_allclose(got, stats.multivariate_normal(SHIFT, np.diag(SCALE**2)).logpdf(x), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_learns_a_gaussian_to_its_entropy(kind):
    """KL(truth | model) after 400 steps, on fresh points: below .02 nats, and not below zero."""
    mean, root = jnp.float32([3.0, -1.0]), jnp.float32([[1.0, 0.0], [1.5, 0.7]])
    learner = toy(kind, layers=2, shift=mean, scale=1.5)
    truth = stats.multivariate_normal(mean, root @ root.T)
    adam = optax.adam(optax.cosine_decay_schedule(1e-2, 400))

    def draw(key, n):
        return mean + jax.random.normal(key, (n, 2)) @ root.T

    @jax.jit
    def trained(key):
        variables = learner.init(key)

        def step(carry, key):
            params, state = carry
            points = draw(key, 256)
            loss, gradient = jax.value_and_grad(lambda p: learner.loss(key, variables._replace(params=p), points)[0])(params)
            updates, state = adam.update(gradient, state)
            return (optax.apply_updates(params, updates), state), loss

        (params, _), losses = jax.lax.scan(step, (variables.params, adam.init(variables.params)), jax.random.split(key, 400))
        return variables._replace(params=params), losses

    variables, losses = trained(jax.random.key(0))
    assert losses[0] - truth.entropy() > 0.2  # there was something to learn
    fresh = draw(jax.random.key(99), 20_000)
    gap = truth.logpdf(fresh) - np.float64(learner.log_prob(variables, fresh))
    error = gap.std() / np.sqrt(len(gap))
    assert -4 * error < gap.mean() < 0.02
    nll, stats_ = learner.loss(None, variables, fresh)
    assert abs(nll - gap.mean() - truth.entropy()) < 0.05 and stats_ == variables.stats == {}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_far_out(kind):
    learner = normalizing_flow(layers=3, width=8, bins=3, kind=kind)
    far = [[0, 0], [4, -4], [-4, 4], [4.0000005, 3.9999998], [50, -50], [1e4, 3], [-2, 1e6], [-1e6, -1e6]]
    variables = stirred(learner.init, size=0.6)
    both = jax.jit(jax.value_and_grad(lambda v, x: learner.loss(None, v, x)[0], argnums=(0, 1)))
    loss, gradients = both(variables, jnp.float32(far))
    assert np.isfinite(loss) and all(np.isfinite(g).all() for g in jax.tree.leaves(gradients))


@pytest.mark.parametrize("inverse", [False, True])
def test_splines_own_gradients_are_finite_far_out(inverse):
    x = jnp.float32([[0], [3], [-3], [2.9999998], [50], [-1e6], [1e13]])
    raw = 2 * jax.random.normal(jax.random.key(0), (11, 7, 1))

    def total(x, raw):
        y, log_slope = spline(x, raw, inverse, bound=3.0)
        return y.sum() + log_slope.sum()

    gradients = jax.jit(jax.grad(total, argnums=(0, 1)))(x, raw)
    assert all(np.isfinite(g).all() for g in gradients)
    np.testing.assert_array_equal(gradients[0][4:], 1)


@pytest.fixture(scope="module")
def grid():
    """A flow, and three sets of variables with one leading axis."""
    learner = toy("spline", layers=2, bins=3)
    alone = [stirred(learner.init, seed) for seed in range(3)]
    return learner, alone, jax.tree.map(lambda *leaves: jnp.stack(leaves), *alone)


def test_vmap_is_the_loop(grid):
    learner, alone, together = grid
    keys = jax.random.split(jax.random.key(4), 3)

    def all_of_it(key, variables):
        points = learner.sample(key, variables, 20)
        loss, gradient = jax.value_and_grad(lambda v: learner.loss(key, v, points)[0])(variables)
        return points, loss, gradient, learner.log_prob(variables, points), learner.field(variables, points)

    mapped = jax.jit(jax.vmap(all_of_it))(keys, together)
    one = jax.jit(all_of_it)
    looped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *[one(k, v) for k, v in zip(keys, alone, strict=True)])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-3, atol=2e-4), mapped, looped)
    points, _, _, log_prob, field = mapped
    assert points.shape == (3, 20, 2) and field.shape == (3, 20, 1)
    np.testing.assert_array_equal(field[..., 0], log_prob)
    assert np.ptp(points[:, 0, 0]) > 0  # three models


def test_lowers_for_accelerators(grid):
    learner, _, together = grid

    def work(data, variables, points):
        keys = jax.random.wrap_key_data(data)
        gradient = jax.vmap(jax.grad(lambda v: learner.loss(None, v, points)[0]))(variables)
        return gradient, jax.vmap(lambda k, v: learner.sample(k, v, 8))(keys, variables)

    data = jax.ShapeDtypeStruct((3, 2), np.uint32)
    platforms = ("tpu", "cuda")
    exported = export.export(jax.jit(work), platforms=platforms)(data, together, jnp.zeros((8, 2)))
    assert exported.platforms == platforms and exported.out_avals[-1].shape == (3, 8, 2)


def test_points_keep_their_shape():
    learner = normalizing_flow((3, 2), layers=2, width=4, bins=2, scale=np.ones((3, 1)))

    def of(key):
        variables = learner.init(key)
        points = learner.sample(key, variables, 7)
        return points, learner.log_prob(variables, points)

    points, log_prob = jax.eval_shape(of, jax.random.key(0))
    assert points.shape == (7, 3, 2) and log_prob.shape == (7,)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"shape": (1,)}, ("dim", "1")),
        ({"layers": 1}, ("layers", "1")),
        ({"bins": 1}, ("bins", "1")),
        ({"bins": 1000}, ("bins", "1000")),
        ({"width": 0.5}, ("width", "0.5")),
        ({"kind": "cubic"}, ("kind", "cubic")),
        ({"bound": 0.0}, ("bound", "0.0")),
        ({"scale": 0.0}, ("scale", "0.0")),
        ({"scale": np.ones(3)}, ("scale", "(3,)")),
        ({"shift": np.nan}, ("shift", "nan")),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_refusals(refused, arguments, said):
    with refused(*said):
        normalizing_flow(**arguments)
    with refused("label"):
        toy("affine").sample(jax.random.key(0), None, 3, label=jnp.zeros(3))
