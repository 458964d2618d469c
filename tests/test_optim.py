"""Optimizers, schedules, accumulation and averages against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen import state, tree
from jaxgen.errors import UserError
from jaxgen.optim.gradients import gradients
from jaxgen.optim.optimizer import Adam, Optimizer, RampedAdam, Sgd
from jaxgen.optim.schedules import Constant, Cosine, CosineRamp, InverseSqrt, Poly, check_schedule

PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}}
GRADS = {"conv": {"kernel": jnp.array([3.0, 4.0]), "bias": jnp.array([0.0])}}


def one_update(optimizer: Optimizer, steps: int = 10):
    tx = optimizer.transform(steps)
    updates, _ = tx.update(GRADS, tx.init(PARAMS), PARAMS)
    return updates


@pytest.mark.parametrize(
    ("schedule", "at", "expected"),
    [
        (Constant(value=0.1), 7, 0.1),
        (Cosine(peak=1.0, warmup=0.2), 10, 0.5),
        (Cosine(peak=1.0, warmup=0.2), 20, 1.0),
        (Cosine(peak=1.0, warmup=0.2), 60, 0.5),
        (Cosine(peak=1.0, warmup=0.2, end_factor=0.1), 100, 0.1),
        (Cosine(peak=1.0, warmup=0.0), 0, 1.0),
        (Poly(peak=1.0), 50, 0.5**0.9),
        (Poly(peak=1.0, warmup=0.1, power=1.0), 5, 0.5),
        (Poly(peak=1.0, warmup=0.1, power=1.0), 55, 0.5),
        (Poly(peak=2.0, end_factor=0.25), 100, 0.5),
        (InverseSqrt(peak=1.0, hold=16, warmup=4), 2, 0.5),
        (InverseSqrt(peak=1.0, hold=16, warmup=4), 16, 1.0),
        (InverseSqrt(peak=1.0, hold=16), 64, 0.5),
        (CosineRamp(first=4.0, last=1.0, until=0.5), 0, 4.0),
        (CosineRamp(first=4.0, last=1.0, until=0.6), 20, 1 + 3 * 0.75),  # a third of the way: cos(60°) is a half
        (CosineRamp(first=0.0, last=1.0, until=0.5), 25, 0.5),
        (CosineRamp(first=4.0, last=1.0, until=0.5), 50, 1.0),
        (CosineRamp(first=4.0, last=1.0, until=0.5), 99, 1.0),
        (CosineRamp(first=0.0, last=1.0), 100, 1.0),
        (CosineRamp(first=4.0, last=1.0, until=0.0), 1, 1.0),  # at once
    ],
)
def test_schedules_pass_through_known_points(schedule, at, expected):
    np.testing.assert_allclose(schedule.over(100)(at), expected, rtol=1e-5)


SHARE = "a share of the training, 0 to 1: for 500 of 1000 steps write 0.5"
SCHEDULE = r"it must be a schedule, such as Constant\(value=0.001\)"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Cosine(peak=1.0, warmup=500.0), f"Cosine.warmup is 500.0; it must be {SHARE}"),
        (lambda: Cosine(peak=1.0, warmup=-0.1), "Cosine.warmup is -0.1"),
        (lambda: Cosine(peak=1.0, end_factor=-1.0), "Cosine.end_factor is -1.0; it must be 0 or more"),
        (lambda: Poly(peak=1.0, warmup=100.0), f"Poly.warmup is 100.0; it must be {SHARE}"),
        (lambda: Poly(peak=1.0, power=0.0), "Poly.power is 0.0; it must be above 0"),
        (lambda: CosineRamp(first=1.0, last=0.0, until=100.0), f"CosineRamp.until is 100.0; it must be {SHARE}"),
        (lambda: InverseSqrt(peak=1.0, hold=0), "InverseSqrt.hold is 0; it must be a number of steps, at least 1"),
        (lambda: InverseSqrt(peak=1.0, hold=1, warmup=-1), "InverseSqrt.warmup is -1"),
        (lambda: Adam(b1=9.0), "Adam.b1 is 9.0; it must be at least 0 and below 1"),
        (lambda: Adam(b2=1.0), "Adam.b2 is 1.0"),
        (lambda: Adam(eps=-1.0), "Adam.eps is -1.0"),
        (lambda: RampedAdam(b1=-0.1), "RampedAdam.b1 is -0.1"),
        (lambda: Sgd(momentum=1.5), "Sgd.momentum is 1.5; it must be at least 0 and below 1"),
        (lambda: check_schedule(optimizer(), "learning_rate", 1e-3), f"Optimizer.learning_rate is 0.001; {SCHEDULE}"),
        (lambda: optimizer(clip=0.0), "Optimizer.clip is 0.0; it must be above 0, or None"),
        (lambda: optimizer(clip=-1.0), "Optimizer.clip is -1.0"),
        (lambda: optimizer(weight_decay=-1.0), "Optimizer.weight_decay is -1.0; it must be 0 or more"),
        (lambda: optimizer(weight_decay=float("nan")), "Optimizer.weight_decay is nan"),
        (lambda: optimizer(lr_multipliers=(("kernel", -1.0),)), "Optimizer.lr_multipliers is .* a factor of 0 or more"),
        (lambda: optimizer(weight_decay_mask="*.kernel"), r"'\*.kernel' is no regular expression"),
    ],
)
def test_values_out_of_range_are_refused_when_they_are_made(make, said):
    with pytest.raises(UserError, match=said) as caught:
        make()
    assert "\n" not in str(caught.value)


def optimizer(**fields) -> Optimizer:
    return Optimizer(learning_rate=Constant(value=0.1), **fields)


@pytest.mark.parametrize("rate", [Constant(value=-0.1), CosineRamp(first=1.0, last=-1.0), Poly(peak=-1.0)], ids=str)
def test_a_learning_rate_below_0_is_refused_before_the_first_step(rate):
    with pytest.raises(UserError, match="learning_rate must be 0 or more throughout"):
        Optimizer(learning_rate=rate).check(10)


def test_momentum_decays_through_the_gradient_and_adam_beside_it():
    sgd = one_update(Optimizer(learning_rate=Constant(value=0.1), method=Sgd(momentum=0.0), weight_decay=0.5))
    np.testing.assert_allclose(sgd["conv"]["kernel"], [-0.1 * (3 + 0.5), -0.1 * (4 - 1)], rtol=1e-6)
    adam = one_update(Optimizer(learning_rate=Constant(value=0.1), method=Adam(), weight_decay=0.5))
    # Adam's first step is the sign of the gradient, whatever its size.
    np.testing.assert_allclose(adam["conv"]["kernel"], [-0.1 * (1 + 0.5), -0.1 * (1 - 1)], rtol=1e-4, atol=1e-6)


def test_ramped_adam_looks_as_far_back_as_its_schedule_says(key):
    b1, b2, eps, steps = 0.5, CosineRamp(first=0.5, last=0.9, until=0.4), 1e-6, 10
    tx = Optimizer(learning_rate=Constant(value=0.1), method=RampedAdam(b1=b1, b2=b2, eps=eps)).transform(steps)
    grads = np.asarray(jax.random.normal(key, (6, 3)))
    held, m, v = tx.init(grads[0]), np.zeros(3), np.zeros(3)
    update = jax.jit(tx.update)
    for t, g in enumerate(grads):
        found, held = update(g, held)
        now = 0.9 - 0.4 * (0.5 + 0.5 * np.cos(np.pi * min(t / 4, 1)))
        m, v = b1 * m + (1 - b1) * g, now * v + (1 - now) * g**2
        # The first moment starts at 0 and is scaled up for it, and the second as if b2 had always been what it is now.
        wanted = m / (1 - b1 ** (t + 1)) / (np.sqrt(v / (1 - now ** (t + 1))) + eps)
        np.testing.assert_allclose(found, -0.1 * wanted, rtol=1e-4)


def test_ramped_adam_with_a_constant_is_adam(key):
    grads = jax.random.normal(key, (4, 3))
    made = []
    for method in (Adam(b1=0.0, b2=0.99), RampedAdam(b1=0.0, b2=Constant(value=0.99))):
        tx = Optimizer(
            learning_rate=Constant(value=0.1), method=method, weight_decay=0.5, weight_decay_mask="^w$"
        ).transform(10)
        params = {"w": jnp.ones(3)}
        held = tx.init(params)
        for g in grads:
            updates, held = tx.update({"w": g}, held, params)
            params = optax.apply_updates(params, updates)
        made.append(params["w"])
    np.testing.assert_allclose(made[1], made[0], rtol=1e-5)


def test_weight_decay_leaves_what_the_expression_does_not_find():
    updates = one_update(Optimizer(learning_rate=Constant(value=0.1), method=Sgd(momentum=0.0), weight_decay=0.5))
    assert updates["conv"]["bias"] == 0


def test_clipping_bounds_the_global_norm():
    updates = one_update(Optimizer(learning_rate=Constant(value=1.0), method=Sgd(momentum=0.0), clip=1.0))
    np.testing.assert_allclose(optax.tree.norm(updates), 1.0, rtol=1e-6)
    np.testing.assert_allclose(updates["conv"]["kernel"], [-0.6, -0.8], rtol=1e-6)


def test_multipliers_scale_and_freeze_by_path():
    slow = Optimizer(learning_rate=Constant(value=1.0), method=Sgd(momentum=0.0), lr_multipliers=((r"kernel$", 0.1),))
    np.testing.assert_allclose(one_update(slow)["conv"]["kernel"], [-0.3, -0.4], rtol=1e-6)
    frozen = Optimizer(learning_rate=Constant(value=1.0), weight_decay=1.0, lr_multipliers=((r"conv/kernel", 0.0),))
    assert not one_update(frozen)["conv"]["kernel"].any()


def test_weight_decay_that_finds_nothing_is_named():
    lost = optimizer(weight_decay=0.5, weight_decay_mask="weight$")
    with pytest.raises(UserError, match=r"optimizer.weight_decay_mask: 'weight\$' finds no parameter.*conv/bias"):
        lost.transform(1).init(PARAMS)
    optimizer(weight_decay=0.0, weight_decay_mask="weight$").transform(1).init(PARAMS)  # nothing to be placed


def test_a_multiplier_that_finds_nothing_is_named():
    with pytest.raises(UserError, match=r"multipliers.*'kernle'.*conv/bias"):
        Optimizer(learning_rate=Constant(value=1.0), lr_multipliers=(("kernle", 1.0),)).transform(1).init(PARAMS)


def quadratic(params, stats, batch, key):
    error = batch["x"] @ params["w"] - batch["y"]
    return (error**2).mean(), ({"seen": stats["seen"] + 1}, {"bias": error.mean()})


@pytest.mark.parametrize("microbatches", [2, 4, 8])
def test_accumulated_gradients_are_the_whole_batchs(microbatches, key):
    k1, k2, k3 = jax.random.split(key, 3)
    batch = {"x": jax.random.normal(k1, (8, 3)), "y": jax.random.normal(k2, (8,))}
    params, stats = {"w": jax.random.normal(k3, (3,))}, {"seen": jnp.int32(0)}
    whole, _, scalars = gradients(quadratic, params, stats, batch, key)
    parts, seen, mean = gradients(quadratic, params, stats, batch, key, microbatches)
    np.testing.assert_allclose(parts["w"], whole["w"], rtol=1e-5)
    np.testing.assert_allclose(mean["loss"], scalars["loss"], rtol=1e-5)
    np.testing.assert_allclose(mean["bias"], scalars["bias"], rtol=1e-5, atol=1e-6)
    assert seen["seen"] == microbatches  # statistics pass from part to part


def test_update_moves_each_average_by_its_decay():
    tx = optax.sgd(1.0)
    net = state.create(PARAMS, {}, tx, emas=2)
    net = state.update(net, tx, GRADS, stats={}, decays=(0.75, 0.5))
    np.testing.assert_allclose(net.params["conv"]["kernel"], [-2.0, -6.0])
    np.testing.assert_allclose(net.ema[0]["conv"]["kernel"], [0.75 * 1 + 0.25 * -2, 0.75 * -2 + 0.25 * -6])
    np.testing.assert_allclose(net.ema[1]["conv"]["kernel"], [0.5 * 1 + 0.5 * -2, 0.5 * -2 + 0.5 * -6])
    assert net.best_params is net.ema[0]
    assert state.create(PARAMS, {}, tx).best_params is PARAMS


def test_digest_tells_any_two_trees_apart():
    a = {"w": np.zeros(3, np.float32), "b": np.int32(1)}
    same = {"b": np.int32(1), "w": np.zeros(3, np.float32)}
    others = [
        {"w": np.zeros(3, np.float32), "b": np.int32(2)},
        {"w": np.zeros((3, 1), np.float32), "b": np.int32(1)},
        {"v": np.zeros(3, np.float32), "b": np.int32(1)},
        {"w": np.zeros(3, np.int32), "b": np.int32(1)},
    ]
    assert tree.digest(a) == tree.digest(same)
    assert len({tree.digest(a), *map(tree.digest, others)}) == 5


def test_unit_keeps_kernels_at_unit_mean_square():
    params = {"a": {"weight": jnp.arange(24.0).reshape(2, 3, 4) + 1}, "gain": jnp.float32(3.0)}
    grads = jax.tree.map(jnp.ones_like, params)
    tx = Optimizer(learning_rate=Constant(value=0.1), method=Sgd(), forced_weight_norm=r"weight$").transform(10)
    updates, _ = tx.update(grads, tx.init(params), params)
    after = optax.apply_updates(params, updates)
    np.testing.assert_allclose(jnp.square(after["a"]["weight"]).mean((0, 1)), 1.0, rtol=1e-3)
    stepped = params["a"]["weight"] - 0.1
    np.testing.assert_allclose(
        after["a"]["weight"], stepped / jnp.sqrt(jnp.square(stepped).mean((0, 1), keepdims=True)), rtol=1e-3
    )
    np.testing.assert_allclose(after["gain"], 2.9, rtol=1e-6)


def test_unit_that_finds_nothing_is_refused():
    with pytest.raises(UserError, match="finds no parameter"):
        Optimizer(learning_rate=Constant(value=0.1), forced_weight_norm="wieght").transform(10).init(PARAMS)
