"""Which modes of a known distribution a sample reaches, how evenly, and a picture of it."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from mcloop.errors import InputError


def mode_statistics(x: jax.Array, modes: jax.Array, std: float, radius: float = 3.0) -> dict[str, jax.Array]:
    """How many modes a sample reaches, how much of it is near one, and how evenly: the field's three numbers.

    Srivastava et al. 2017 (VEEGAN), section 4: a point is of high quality if it is within three standard deviations of its
    nearest mode, and a mode is captured if at least one point of high quality is nearest to it. That threshold is
    generous for large samples; `kl_modes` also sees a mode that is held by a few points only.

    Args:
        x: (n, d), data units.
        modes: centres (k, d), taken to be equally likely.
        std: standard deviation of a mode a coordinate, data units.
        radius: in those standard deviations.

    Returns:
        Scalars: `mode_coverage`, the share of the modes captured; `high_quality`, the share of points of high quality (of
        true samples in the plane: 1 - exp(-radius^2 / 2) = .9889); `kl_modes`, nats, the divergence from uniform of the
        share of points nearest to each mode (true samples: (k - 1) / (2 n) in the mean; one mode only: log k).
        Points that are not finite are nearest to no mode and of low quality; if there are no others, `kl_modes` is 0.

    Raises:
        InputError: arrays that are not (n, d) and (k, d).
    """
    modes = jnp.asarray(modes)
    if x.ndim != 2 or modes.ndim != 2 or x.shape[1] != modes.shape[1]:
        raise InputError(f"x and modes must be (n, d) and (k, d), not arrays {list(x.shape)} and {list(modes.shape)}.")
    k = len(modes)
    square = sum(((x[:, None, i] - modes[None, :, i]) ** 2 for i in range(x.shape[1])), jnp.zeros(()))
    least = square.min(1)
    nearest = (jnp.argmin(square, 1)[:, None] == jnp.arange(k)) & jnp.isfinite(least)[:, None]
    good = least <= (radius * std) ** 2
    count = nearest.sum(0)
    share = count / jnp.maximum(count.sum(), 1)
    return {
        "mode_coverage": (nearest & good[:, None]).any(0).mean(),
        "high_quality": good.mean(),
        "kl_modes": jnp.where(share > 0, share * jnp.log(jnp.where(share > 0, share, 1.0) * k), 0.0).sum(),
    }


def density_threshold(log_prob: jax.Array, quantile: float = 1e-3) -> jax.Array:
    """The log-density, nats, below which a share `quantile` of real points lies, from theirs (n,), n >= 100 / quantile."""
    return jnp.quantile(log_prob, quantile)


def density_quality(log_prob: jax.Array, threshold: jax.Array | float) -> jax.Array:
    """`high_quality` where there are no modes to be near: the share of points whose true log-density reaches a threshold.

    Args:
        log_prob: of the model's points under the truth, (n,), nats.
        threshold: `density_threshold` of real points; those then have the share 1 - quantile.
    """
    return (log_prob >= threshold).mean()


def density(x: jax.Array, box: tuple[float, float, float, float], bins: int = 64) -> jax.Array:
    """A histogram of points in the plane as a density: the picture of one generation.

    A product of indicators, not a scatter, so that it is quick under vmap and on an accelerator.

    Args:
        x: (n, 2), data units.
        box: (left, right, bottom, top), data units. Points outside (or not finite) are counted in n and drawn nowhere.
        bins: cells a side.

    Returns:
        (bins, bins) float32, per square unit; the first axis goes from left to right, the second from bottom to top. It
        integrates over the box to the share of points inside. matplotlib: `imshow(density.T, origin="lower", extent=box)`.

    Raises:
        InputError: points that are not (n, 2), an empty box, no bins.
    """
    left, right, bottom, top = box
    if x.ndim != 2 or x.shape[1] != 2:
        raise InputError(f"x must be points (n, 2), not an array {list(x.shape)}.")
    if not (left < right and bottom < top):
        raise InputError(f"box is {box!r}; it must be (left, right, bottom, top) with left < right and bottom < top.")
    if bins < 1:
        raise InputError(f"bins is {bins!r}; it must be an integer of at least 1.")
    sides = ((x[:, 0], left, right), (x[:, 1], bottom, top))
    column, row = (jnp.floor((side - low) * (bins / (high - low)))[:, None] == jnp.arange(bins) for side, low, high in sides)
    # counts are whole numbers: exact in float32 up to 2^24, and the indicators in any precision
    count = column.astype(jnp.float32).T @ row.astype(jnp.float32)
    return count * (bins**2 / (len(x) * (right - left) * (top - bottom)))
