"""Averages: their decays, and the reconstruction of those that nobody kept."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.optim import ema
from jaxgen.optim.ema import (
    ConstantEma,
    HalfLifeEma,
    PowerEma,
    RampedHalfLifeEma,
    WarmupEma,
    initial_share,
    notes,
)


def averaged(kind, weights: np.ndarray) -> np.ndarray:
    """The average of a scalar weight after each step, begun with a value that no step has."""
    decays = np.asarray(jax.vmap(kind.decay_at)(jnp.arange(len(weights))), np.float64)
    ema, found = 1e3, []
    for d, w in zip(decays, weights, strict=True):
        ema = d * ema + (1 - d) * w
        found.append(ema)
    return np.array(found)


@pytest.mark.parametrize("kind", [ConstantEma, WarmupEma])
@pytest.mark.parametrize("decay", [1.0, 99.99, -0.1, float("nan")])
def test_a_decay_is_at_least_0_and_below_1(kind, decay):
    with pytest.raises(UserError, match=rf"{kind.__name__}.decay is {decay}; it must be at least 0 and below 1"):
        kind(decay=decay)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: HalfLifeEma(steps=-1.0), "HalfLifeEma.steps is -1.0; it must be above 0"),
        (lambda: HalfLifeEma(steps=1.0, ramp=-0.1), "HalfLifeEma.ramp is -0.1; it must be 0 or more"),
        (lambda: RampedHalfLifeEma(steps=0.0, until=1.0), "RampedHalfLifeEma.steps is 0.0; it must be above 0"),
        (lambda: RampedHalfLifeEma(steps=1.0, until=0.0), "RampedHalfLifeEma.until is 0.0; it must be a number of"),
    ],
)
def test_half_lives_out_of_range_are_refused(make, said):
    with pytest.raises(UserError, match=said):
        make()


@pytest.mark.parametrize(
    ("ema", "steps", "share"),
    [
        (ConstantEma(decay=0.9999), 300, 0.9999**300),
        (ConstantEma(decay=0.0), 3, 0.0),
        (WarmupEma(decay=0.5), 3, 1 / 10 * 2 / 11 * 3 / 12),
        (HalfLifeEma(steps=50.0, ramp=0.0), 100, 1 / 4),
        (HalfLifeEma(steps=50.0), 100, 0.0),
        (PowerEma(width=0.1), 100, 0.0),
    ],
    ids=str,
)
def test_what_stays_of_the_first_weights_is_the_product_of_the_decays(ema, steps, share):
    assert initial_share(ema, steps) == pytest.approx(share, rel=1e-4)


def test_an_average_that_hardly_leaves_the_first_weights_is_named():
    emas = (WarmupEma(decay=0.999), ConstantEma(decay=0.9999))
    assert notes("net", emas, 300) == [
        "note: after 300 steps, the net's ConstantEma(decay=0.9999) is still 97% the weights that it began with; "
        "train longer, lower the decay, or use WarmupEma"
    ]
    assert notes("net", emas, 100_000) == []


def test_warm_decay_rises_to_the_decay():
    steps = jnp.array([0, 8, 10_000])
    np.testing.assert_allclose(jax.vmap(WarmupEma(decay=0.99).decay_at)(steps), [0.1, 0.5, 0.99], rtol=1e-6)
    assert float(ConstantEma(decay=0.9).decay_at(jnp.int32(3))) == np.float32(0.9)


@pytest.mark.parametrize(
    "kind", [HalfLifeEma(steps=50.0, ramp=0.0), RampedHalfLifeEma(steps=50.0, until=40.0)], ids=str
)
def test_a_distance_halves_in_a_half_life(kind):
    path = averaged(kind, np.arange(200) < 45.0)
    np.testing.assert_allclose(path[99] / path[49], 0.5, rtol=1e-5)
    np.testing.assert_allclose(path[149] / path[99], 0.5, rtol=1e-5)


def test_a_half_life_rises_along_a_cosine():
    decay = RampedHalfLifeEma(steps=80.0, until=300.0).decay_at
    for step, life in ((100, 80 * 0.25), (150, 40), (300, 80), (10_000, 80)):
        np.testing.assert_allclose(decay(jnp.int32(step)), 0.5 ** (1 / life), rtol=1e-5)
    assert float(decay(jnp.int32(0))) == 0  # the first step replaces untrained weights


def test_a_ramped_half_life_is_a_share_of_the_training_so_far():
    decay = HalfLifeEma(steps=1000.0, ramp=0.1).decay_at
    np.testing.assert_allclose(decay(jnp.int32(100)), 0.5 ** (1 / 10), rtol=1e-5)
    np.testing.assert_allclose(decay(jnp.int32(100_000)), 0.5 ** (1 / 1000), rtol=1e-5)
    assert float(decay(jnp.int32(0))) == 0  # the first step replaces untrained weights


@pytest.mark.parametrize("width", [0.02, 0.05, 0.1, 0.25])
def test_the_power_functions_profile_has_the_width_it_says(width):
    # The weight of step s in the average after n steps, whose spread over s / n is the width.
    n = 4000
    decays = np.asarray(jax.vmap(PowerEma(width=width).decay_at)(jnp.arange(n)), np.float64)
    after = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
    profile = (1 - decays) * after
    s = (np.arange(n) + 0.5) / n
    mean = (profile * s).sum()
    np.testing.assert_allclose(profile.sum(), 1, rtol=1e-4)  # nothing is left of what was before the first step
    np.testing.assert_allclose(np.sqrt((profile * (s - mean) ** 2).sum()), width, rtol=0.01)


@pytest.mark.parametrize("width", [0.01, 0.1, 0.2886])
def test_width_and_exponent_are_inverse(width):
    g = ema.exponent(width)
    np.testing.assert_allclose(np.sqrt(g + 1) / (g + 2) / np.sqrt(g + 3), width, rtol=1e-9)


@pytest.mark.parametrize("width", [0.0, -0.1, 0.3])
def test_widths_that_no_profile_has_are_refused(width):
    with pytest.raises(UserError, match="relative width"):
        PowerEma(width=width)


def test_a_stored_ema_is_its_own_reconstruction():
    stored = [(100.0, 0.05), (100.0, 0.1), (200.0, 0.05), (200.0, 0.1)]
    factors = ema.reconstruction(stored, (200.0, 0.05))
    np.testing.assert_allclose(factors, [0, 0, 1, 0], atol=1e-6)
    assert ema.distance(stored, factors, (200.0, 0.05)) < 1e-4


@pytest.mark.parametrize("width", [0.03, 0.075, 0.15])
def test_an_average_made_afterwards_is_the_one_that_was_not_kept(width):
    # A weight that wanders smoothly, as weights do; snapshots every 5 % of the way.
    n, every = 2000, 100
    s = np.arange(1, n + 1) / n
    weights = np.sin(7 * s) + s**2
    kept = {w: averaged(PowerEma(width=w), weights) for w in (0.05, 0.1)}
    stored = [(float(step), w) for step in range(every, n + 1, every) for w in kept]
    factors = ema.reconstruction(stored, (float(n), width))
    made = sum(f * kept[w][int(step) - 1] for f, (step, w) in zip(factors, stored, strict=True))
    wanted = averaged(PowerEma(width=width), weights)[-1]
    assert abs(made - wanted) < 2e-3
    assert ema.distance(stored, factors, (float(n), width)) < 0.05


def test_a_reconstruction_from_too_little_says_how_far_off_it_is():
    stored = [(1000.0, 0.2)]
    assert ema.distance(stored, ema.reconstruction(stored, (1000.0, 0.02)), (1000.0, 0.02)) > 0.5
