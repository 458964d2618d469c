"""Adversarial losses and penalties: numbers worked by hand, laws, and torch's gradients on copied weights."""

import math
import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.make_gan_penalties import FAKE, REAL, SHARES, parameters

from jaxgen.adversarial.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Saturating,
    Wasserstein,
    likely_real,
    per_row,
)
from jaxgen.adversarial.penalties import R1, R2, Discriminator, GradientPenalty, LeCam, Penalty
from jaxgen.errors import UserError
from jaxgen.optim.schedules import Constant, Cosine, CosineRamp, InverseSqrt, Poly

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "gan_penalties.npz")
LOSSES = {
    "relativistic_pairing": RelativisticPairing(),
    "relativistic_average": RelativisticAverage(),
    "non_saturating": NonSaturating(),
    "saturating": Saturating(),
    "hinge": Hinge(),
    "least_squares": LeastSquares(),
    "wasserstein": Wasserstein(),
}
PENALTIES = {"r1": R1(gamma=Constant(value=1.0)), "r2": R2(gamma=Constant(value=1.0)), "gp": GradientPenalty()}
every_loss = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
every_gradient_penalty = pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
LN2 = math.log(2)


def f32(*rows: float) -> jax.Array:
    return jnp.array(rows, jnp.float32)


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def rows(penalty: Penalty, critic: Discriminator, real: jax.Array, fake: jax.Array, memory: object = None) -> jax.Array:
    memory = penalty.init() if memory is None else memory
    return penalty.rows((critic, critic), real, fake, memory, jax.random.key(5))


def with_gradients(side: Callable, real: jax.Array, fake: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return jax.value_and_grad(lambda r, f: side(r, f).mean(), argnums=(0, 1))(real, fake)


# (D's, G's) where D has no opinion; and at real 2, fake -1.
BY_HAND = {
    "relativistic_pairing": ((LN2, LN2), (softplus(-3), softplus(3))),
    "relativistic_average": ((2 * LN2, 2 * LN2), (2 * softplus(-3), 2 * softplus(3))),
    "non_saturating": ((2 * LN2, LN2), (softplus(-2) + softplus(-1), softplus(1))),
    "saturating": ((2 * LN2, -LN2), (softplus(-2) + softplus(-1), -softplus(-1))),
    "hinge": ((2.0, 0.0), (0.0, 1.0)),
    "least_squares": ((0.5, 0.5), (0.5 + 0.5, 2.0)),
    "wasserstein": ((0.0, 0.0), (-3.0, 1.0)),
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_what_they_are_by_hand(name: str) -> None:
    for (real, fake), expected in zip(((0.0, 0.0), (2.0, -1.0)), BY_HAND[name], strict=True):
        found = [LOSSES[name].discriminator(f32(real), f32(fake)), LOSSES[name].generator(f32(real), f32(fake))]
        np.testing.assert_allclose([float(x[0]) for x in found], expected, rtol=1e-6, atol=1e-7)


def test_hinge_wants_no_more_than_its_margin() -> None:
    found = Hinge().discriminator(f32(0.5, 1.0, 7.0), f32(-0.25, -1.0, 3.0))
    np.testing.assert_allclose(found, [0.5 + 0.75, 0.0, 4.0])


def test_the_average_is_over_all_rows_and_is_learned_through() -> None:
    real, fake = f32(1.0, 3.0), f32(-1.0, 2.0)  # averages 2 and 0.5
    found = RelativisticAverage().discriminator(real, fake)
    np.testing.assert_allclose(found, [softplus(-0.5) + softplus(-3), softplus(-2.5) + softplus(0)], rtol=1e-6)
    gradient = jax.grad(lambda x: RelativisticAverage().discriminator(x, fake)[0])(real)
    own = -1 / (1 + math.exp(0.5))  # of softplus(0.5 - real[0])
    through = -0.5 / (1 + math.exp(3))  # of softplus(fake[0] - mean(real)), to both rows
    np.testing.assert_allclose(gradient, [own + through, through], rtol=1e-6)


@every_loss
def test_neither_losses_nor_gradients_overflow(loss: AdversarialLoss) -> None:
    for real, fake in ((1e4, -1e4), (-1e4, 1e4), (0.0, 0.0)):
        for side in (loss.discriminator, loss.generator):
            value, gradients = with_gradients(side, f32(real), f32(fake))
            assert all(np.isfinite(x).all() for x in (value, *gradients)), (side, real, fake)


@every_loss
def test_both_sides_pull_the_right_way(loss: AdversarialLoss) -> None:
    real, fake = f32(0.3, -0.2), f32(0.1, 0.4)
    _, (up, down) = with_gradients(loss.discriminator, real, fake)
    assert (up < 0).all()  # D gains by raising what it gives real pictures,
    assert (down > 0).all()  # and by lowering what it gives fakes
    _, (towards_real, towards_fake) = with_gradients(loss.generator, real, fake)
    assert (towards_fake < 0).all()
    assert loss.paired() == bool(np.any(towards_real != 0))  # what `paired` promises


@pytest.mark.parametrize("loss", [RelativisticPairing(), RelativisticAverage()], ids=lambda x: type(x).__name__)
def test_relativistic_losses_are_symmetric_and_know_differences_only(loss: AdversarialLoss) -> None:
    real, fake = f32(0.3, -1.2, 2.0), f32(0.1, 0.4, -3.0)
    np.testing.assert_allclose(loss.generator(real, fake), loss.discriminator(fake, real), rtol=1e-6)
    np.testing.assert_allclose(loss.discriminator(real + 5, fake + 5), loss.discriminator(real, fake), rtol=2e-5)


def test_one_of_a_pair_is_the_real_one() -> None:
    logit, other = f32(0.3, -1.2, 20.0), f32(0.1, 0.4, -3.0)
    loss = RelativisticPairing()
    np.testing.assert_allclose(loss.probability(logit, other) + loss.probability(other, logit), 1.0, rtol=1e-6)


def test_probabilities_are_those_whose_logarithms_the_discriminator_is_judged_by() -> None:
    real, fake = f32(0.5, -2.0), f32(1.0, 0.0)
    for loss in LOSSES.values():
        p = loss.probability(real, fake)
        assert (p is None) == isinstance(loss, LeastSquares | Hinge | Wasserstein)
        if p is not None:
            surprise = -jnp.log(p)
            if not isinstance(loss, RelativisticPairing):  # the others judge each picture of a pair by itself
                surprise -= jnp.log1p(-loss.probability(fake, real))
            np.testing.assert_allclose(loss.discriminator(real, fake), surprise, rtol=1e-5)


REAL_POINTS, FAKE_POINTS = f32(1.0, 2.0, -1.0, 0.5).reshape(2, 2), f32(0.0, 1.0, 3.0, -1.0).reshape(2, 2)
W = f32(1.0, -3.0)


def flat(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1)


@every_gradient_penalty
@pytest.mark.parametrize("shape", [(2, 2), (2, 1, 2, 1)], ids=["points", "pictures"])
def test_a_linear_critic_has_one_gradient_everywhere(penalty: Penalty, shape: tuple[int, ...]) -> None:
    real, fake = REAL_POINTS.reshape(shape), FAKE_POINTS.reshape(shape)

    def found(w: jax.Array) -> jax.Array:
        return rows(penalty, lambda x: flat(x) @ w, real, fake)

    norm = np.sqrt(10.0)
    to_one = isinstance(penalty, GradientPenalty)
    value, gradient = ((norm - 1) ** 2, 2 * (norm - 1) * W / norm) if to_one else (norm**2, 2 * W)
    np.testing.assert_allclose(found(W), value, rtol=1e-5)
    np.testing.assert_allclose(jax.grad(lambda w: found(w).mean())(W), gradient, rtol=1e-5)


def test_a_critic_that_is_a_sum_of_squares() -> None:
    def critic(x: jax.Array) -> jax.Array:
        return jnp.square(x).sum(1)

    np.testing.assert_allclose(rows(PENALTIES["r1"], critic, REAL_POINTS, FAKE_POINTS), [20.0, 5.0], rtol=1e-6)
    np.testing.assert_allclose(rows(PENALTIES["r2"], critic, REAL_POINTS, FAKE_POINTS), [4.0, 40.0], rtol=1e-6)


def test_the_penalised_points_lie_between_the_pairs() -> None:
    """The gradient of |x|²/2 at x is x; between a fake at 0 and a real image of four ones it shows one's place."""
    real, fake = jnp.ones((500, 2, 2, 1)), jnp.zeros((500, 2, 2, 1))
    found = rows(GradientPenalty(target=0.0), lambda x: jnp.square(flat(x)).sum(1) / 2, real, fake)
    place = np.sqrt(np.asarray(found) / 4)  # one place for all numbers of a picture, and another for each row
    assert (place >= 0).all()
    assert (place <= 1).all()
    assert abs(place.mean() - 0.5) < 4 * math.sqrt(1 / 12 / 500)
    assert abs(place.var() - 1 / 12) < 0.02


def test_a_gradient_norm_of_zero_has_a_finite_gradient() -> None:
    def penalty(w: jax.Array) -> jax.Array:
        return rows(GradientPenalty(), lambda x: x @ w, REAL_POINTS, FAKE_POINTS).mean()

    value, gradient = jax.value_and_grad(penalty)(jnp.zeros(2))
    np.testing.assert_allclose(value, 1.0, rtol=1e-5)
    np.testing.assert_array_equal(gradient, 0.0)


@every_gradient_penalty
def test_gradients_are_each_examples_own_unless_the_critic_mixes(penalty: Penalty) -> None:
    real = fake = jax.random.normal(jax.random.key(0), (3, 2))  # of one place, so that where between does not matter

    def alone(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ W) + x[:, 0] ** 3

    def mixing(x: jax.Array) -> jax.Array:
        return alone(x) - alone(x).mean()

    own = jax.vmap(jax.grad(lambda x: alone(x[None])[0]))(real)
    square = jnp.square(own).sum(1)
    expected = jnp.square(jnp.sqrt(square) - 1) if isinstance(penalty, GradientPenalty) else square
    np.testing.assert_allclose(rows(penalty, alone, real, fake), expected, rtol=1e-5)
    found = rows(penalty, mixing, real, fake)  # the outputs' sum is 0 whatever the pictures are
    np.testing.assert_allclose(found, 1.0 if isinstance(penalty, GradientPenalty) else 0.0, atol=1e-5)
    assert penalty.needs_per_example_gradients()


def test_weights_follow_their_schedules_and_periods_are_known() -> None:
    ramp = CosineRamp(first=4.0, last=1.0, until=0.5)
    start, half, end = (jnp.int32(step) for step in (0, 25, 90))
    for penalty in (R1(gamma=ramp, every=16), R2(gamma=ramp, every=16)):  # a period leaves the weight to the caller
        np.testing.assert_allclose([penalty.weight(s, 100) for s in (start, half, end)], [2.0, 1.25, 0.5], rtol=1e-6)
        assert penalty.period() == 16
    assert float(GradientPenalty().weight(start, 100)) == 10.0
    assert GradientPenalty().period() == LeCam(strength=ramp).period() == 1
    late = LeCam(strength=Constant(value=0.3), start=25)
    np.testing.assert_allclose([late.weight(s, 100) for s in (start, half - 1, half)], [0.0, 0.0, 0.3], rtol=1e-6)


def test_lecam_holds_outputs_to_the_average_of_the_others() -> None:
    penalty = LeCam(strength=Constant(value=0.3), decay=0.75)
    real, fake = f32(1.0, -2.0).reshape(2, 1), f32(0.5, 4.0).reshape(2, 1)

    def critic(x: jax.Array) -> jax.Array:
        return x[:, 0]

    memory = penalty.init()
    np.testing.assert_array_equal(rows(penalty, critic, real, fake, memory), 0.0)  # nothing to hold them to yet
    memory = penalty.remember(memory, f32(1.0, 3.0), f32(-1.0, 0.0))
    # One step: its own means, 2 and -0.5. Real outputs 1 and -2 exceed -0.5 by 1.5 and not; 2 exceeds fakes by 1.5.
    np.testing.assert_allclose(rows(penalty, critic, real, fake, memory), [1.5**2 + 1.5**2, 0.0], rtol=1e-6)
    memory = penalty.remember(memory, f32(6.0, 6.0), f32(3.0, 3.0))
    # Two: (0.75 · 2 + 6) / 1.75 = 30 / 7, and (0.75 · -0.5 + 3) / 1.75 = 1.5.
    expected = [(30 / 7 - 0.5) ** 2, (30 / 7 - 4.0) ** 2]
    np.testing.assert_allclose(rows(penalty, critic, real, fake, memory), expected, rtol=1e-5)
    assert not penalty.needs_per_example_gradients()
    for _ in range(60):  # long after, what it holds to is what D gives now
        memory = penalty.remember(memory, f32(1.0, 1.0), f32(-1.0, -1.0))
    np.testing.assert_allclose(memory["real"], 1.0, rtol=1e-5)


def test_lecam_teaches_nothing_before_it_remembers() -> None:
    penalty = LeCam(strength=Constant(value=0.3))
    memory = penalty.remember(penalty.init(), f32(2.0), f32(-1.0))
    one = jnp.ones((1, 1))

    def slope(memory: object) -> jax.Array:
        return jax.grad(lambda w: rows(penalty, lambda x: w * x[:, 0], one, one, memory).sum())(jnp.float32(1.0))

    np.testing.assert_allclose(slope(memory), 2 * (1 + 1) - 2 * (2 - 1), rtol=1e-5)  # of (w + 1)² + (2 - w)² at 1
    assert slope(penalty.init()) == 0.0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: GradientPenalty(target=-1.0), "target is a norm"),
        (lambda: GradientPenalty(every=0), "GradientPenalty.every is a number of steps"),
        (lambda: R1(gamma=Constant(value=1.0), every=0), "R1.every is a number of steps"),
        (lambda: LeCam(strength=Constant(value=1.0), decay=1.0), "LeCam.decay is a share"),
        (lambda: LeCam(strength=Constant(value=1.0), start=-1), "LeCam.start is a number of steps"),
    ],
)
def test_what_means_nothing_is_refused(make: Callable, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()


class Falling:
    """A schedule of one's own, negative at the end only."""

    def over(self, steps: int) -> Callable:
        return lambda step: 1.0 - 2.0 * step / steps


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        (R1(gamma=Constant(value=-1.0)), "R1.gamma is 0 or more"),
        (R2(gamma=CosineRamp(first=1.0, last=-0.1)), "R2.gamma is 0 or more"),
        (R1(gamma=Falling()), "R1.gamma is 0 or more"),
        (R1(gamma=InverseSqrt(peak=-1.0, hold=10)), "R1.gamma is 0 or more"),
        (R1(gamma=Poly(peak=-1.0)), "R1.gamma is 0 or more"),
        (GradientPenalty(strength=Cosine(peak=-2.0)), "GradientPenalty.strength is 0 or more"),
        (LeCam(strength=Constant(value=-1.0)), "LeCam.strength is 0 or more"),
    ],
)
def test_a_strength_that_becomes_negative_is_refused_before_training(penalty: Penalty, message: str) -> None:
    with pytest.raises(UserError, match=message):
        penalty.check((8, 8, 1), 16, 100)


def test_strengths_that_fall_to_zero_are_not_refused() -> None:
    for schedule in (Cosine(peak=1.0), Poly(peak=1.0), CosineRamp(first=1.0, last=0.0), Constant(value=0.0)):
        for penalty in (R1(gamma=schedule), GradientPenalty(strength=schedule), LeCam(strength=schedule)):
            penalty.check((8, 8, 1), 16, 100)


# --- patches ----------------------------------------------------------------------------------------------------------


@every_loss
def test_logits_of_patches_are_judged_as_logits_of_images_are(loss: AdversarialLoss) -> None:
    real, fake = 2 * jax.random.normal(jax.random.key(0), (2, 3, 4, 5))
    for side in (loss.discriminator, loss.generator):
        of_patches, of_images = side(real, fake), side(real.ravel(), fake.ravel())
        np.testing.assert_allclose(of_patches, of_images.reshape(3, 4, 5), rtol=1e-6)
        # The mean over patches of the loss of each patch by itself; RaGAN's own means are over all patches.
        if not isinstance(loss, RelativisticAverage):
            each = jax.vmap(side, (1, 1))(real.reshape(3, 20), fake.reshape(3, 20))
            np.testing.assert_allclose(per_row(of_patches), each.mean(0), rtol=1e-5)
        gradients = jax.grad(lambda r, f, side=side: per_row(side(r, f)).mean(), (0, 1))(real, fake)
        flat_gradients = jax.grad(lambda r, f, side=side: side(r, f).mean(), (0, 1))(real.ravel(), fake.ravel())
        for found, expected in zip(gradients, flat_gradients, strict=True):
            np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5, atol=1e-8)
    likely = likely_real(loss, real, fake)
    assert likely.shape == (3,)
    assert ((likely >= 0) & (likely <= 1)).all()
    if (p := loss.probability(real.ravel(), fake.ravel())) is not None:
        np.testing.assert_allclose(likely, p.reshape(3, 20).mean(1), rtol=1e-5)


@every_gradient_penalty
def test_a_gradient_norm_is_of_the_sum_of_a_rows_patches(penalty: Penalty) -> None:
    real, fake = jax.random.normal(jax.random.key(0), (2, 3, 4))

    def patches(x: jax.Array) -> jax.Array:
        return jnp.tanh(x).reshape(3, 2, 2)

    np.testing.assert_allclose(
        rows(penalty, patches, real, fake), rows(penalty, lambda x: patches(x).sum((1, 2)), real, fake), rtol=1e-6
    )


def test_lecam_holds_each_patch() -> None:
    penalty = LeCam(strength=Constant(value=0.3))
    real, fake = jax.random.normal(jax.random.key(0), (2, 3, 4))
    memory = penalty.remember(penalty.init(), real.reshape(3, 2, 2), fake.reshape(3, 2, 2))
    np.testing.assert_allclose(memory["real"], penalty.remember(penalty.init(), real, fake)["real"], rtol=1e-6)
    found = rows(penalty, lambda x: x.reshape(3, 2, 2), real, fake, memory)
    each = [rows(penalty, lambda x, i=i: x[:, i], real, fake, memory) for i in range(4)]
    np.testing.assert_allclose(found, jnp.stack(each).mean(0), rtol=1e-5)


def small_critic(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    for name in ("conv1", "conv2"):
        layout = ("NHWC", "OIHW", "NHWC")
        x = jax.lax.conv_general_dilated(x, params[name], (2, 2), ((1, 1), (1, 1)), dimension_numbers=layout)
        x = jax.nn.leaky_relu(x + params[f"{name}_bias"].reshape(1, 1, 1, -1), 0.2)
    return flat(x) @ params["dense"]


def agree(found: jax.Array, name: str) -> None:
    expected = GOLDEN[name]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max(), err_msg=name)


@every_gradient_penalty
def test_penalties_and_their_gradients_are_torchs(penalty: Penalty) -> None:
    name = next(key for key, value in PENALTIES.items() if value is penalty)
    real, fake = (jnp.asarray(REAL), jnp.asarray(FAKE))
    if name == "gp":  # a line from a point to itself: the shares are torch's
        real = fake = fake + SHARES * (real - fake)

    @jax.jit
    def both(params: dict[str, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        value, pull = jax.vjp(lambda p: rows(penalty, lambda x: small_critic(p, x), real, fake), params)
        return value, pull(jnp.full_like(value, 1 / len(value)))[0]

    value, gradients = both(jax.tree.map(jnp.asarray, parameters()))
    agree(value, f"{name}_rows")
    for key, gradient in gradients.items():
        if (
            "bias" in key
        ):  # a net of leaky rectifiers is linear between kinks: its gradients do not depend on the biases
            np.testing.assert_array_equal(gradient, 0.0)
        else:
            agree(gradient, f"{name}_{key}")


@pytest.mark.parametrize("name", LOSSES)
def test_losses_and_their_gradients_are_torchs(name: str) -> None:
    real, fake = jnp.asarray(GOLDEN["real_logits"]), jnp.asarray(GOLDEN["fake_logits"])
    for side in ("discriminator", "generator"):
        value, gradients = with_gradients(getattr(LOSSES[name], side), real, fake)
        agree(value, f"{name}_{side}")
        agree(jnp.stack(gradients), f"{name}_{side}_gradients")


def test_the_small_critic_is_torchs() -> None:
    params = jax.tree.map(jnp.asarray, parameters())
    agree(small_critic(params, jnp.asarray(REAL)), "real_logits")
    agree(small_critic(params, jnp.asarray(FAKE)), "fake_logits")
