"""The Dirac-GAN (arXiv:1801.04406): the smallest game there is, in which convergence has a closed form.

All data lies at 0, all samples at theta, and D(x) = psi x. Gradient descent of both follows the field
v(psi, theta) = (-d/dpsi L_D, -d/dtheta L_G), which rests at (0, 0). Near it D(real) = 0, D(fake) = psi theta, and

    v' = [[-d, -a], [b, 0]],   eigenvalues -d/2 ± sqrt(d²/4 - a b),

a and b being the derivatives of the losses of D and of G at a logit of 0, d the sum of the penalties' strengths. R1 and
R2 are gamma/2 psi² each, wherever the images lie, so that d is the sum of their gammas. So D and G circle each other
at frequency sqrt(a b) where no penalty acts; with one they spiral in, and beyond d = 2 sqrt(a b) they come straight.

For the logistic losses a = b = |f'(0)| = 1/2, f(t) = softplus(-t), and the critical d is 1. RpGAN's are the very same
game, since D(real) is 0: f(D(real) - D(fake)) = softplus(psi theta) (arXiv:2501.05441, whose equation 15 gives the
f'(0)² of this product). RaGAN sums two such terms: 1 and 1. So have the hinge, within its margin, and WGAN.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.adversarial.losses import (
    AdversarialLoss,
    Hinge,
    LeastSquares,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Saturating,
    Wasserstein,
)
from jaxgen.adversarial.penalties import R1, R2, GradientPenalty, Penalty
from jaxgen.optim.schedules import Constant

PULLS = {  # a and b
    NonSaturating(): (0.5, 0.5),
    Saturating(): (0.5, 0.5),
    RelativisticPairing(): (0.5, 0.5),
    RelativisticAverage(): (1.0, 1.0),
    Hinge(): (1.0, 1.0),
    Wasserstein(): (1.0, 1.0),
    LeastSquares(): (0.0, 1.0),  # fakes of 0 are what its D wants: theta does not act on it to first order
}
Field = Callable[[jax.Array], jax.Array]


def r1(gamma: float) -> Penalty:
    return R1(gamma=Constant(value=gamma))


def r2(gamma: float) -> Penalty:
    return R2(gamma=Constant(value=gamma))


def field(loss: AdversarialLoss, penalties: tuple[Penalty, ...] = ()) -> Field:
    """Return v on f32[2], from the losses and penalties as training uses them."""

    def critic(psi: jax.Array) -> Callable[[jax.Array], jax.Array]:
        return lambda x: psi * x[:, 0]

    def discriminator(psi: jax.Array, theta: jax.Array) -> jax.Array:
        real, fake = jnp.zeros((1, 1)), theta.reshape(1, 1)
        logits = critic(psi)
        total = loss.discriminator(logits(real), logits(fake)).mean()
        for penalty in penalties:
            rows = penalty.rows((logits, logits), real, fake, penalty.init(), jax.random.key(0))
            total += penalty.weight(jnp.int32(0), 1) * rows.mean()
        return total

    def generator(psi: jax.Array, theta: jax.Array) -> jax.Array:
        logits = critic(psi)
        return loss.generator(logits(jnp.zeros((1, 1))), logits(theta.reshape(1, 1))).mean()

    def v(at: jax.Array) -> jax.Array:
        return -jnp.stack([jax.grad(discriminator)(at[0], at[1]), jax.grad(generator, 1)(at[0], at[1])])

    return v


def descend(v: Field, start: tuple[float, float], rate: float, steps: int) -> np.ndarray:
    """Return the distance from the equilibrium after each of the steps, which both nets take at once."""

    @jax.jit
    def run(at: jax.Array) -> jax.Array:
        def one(at: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
            at = at + rate * v(at)
            return at, jnp.linalg.norm(at)

        return jax.lax.scan(one, at, None, steps)[1]

    return np.asarray(run(jnp.array(start)))


@functools.cache
def jacobian(loss: AdversarialLoss, penalties: tuple[Penalty, ...] = ()) -> np.ndarray:
    return np.asarray(jax.jacfwd(field(loss, penalties))(jnp.zeros(2)), np.float64)


def eigenvalues(pull: tuple[float, float], damping: float) -> np.ndarray:
    root = np.emath.sqrt(damping**2 / 4 - pull[0] * pull[1])
    return np.sort_complex([-damping / 2 - root, -damping / 2 + root])


@pytest.mark.parametrize("loss", PULLS, ids=lambda loss: type(loss).__name__)
def test_without_a_penalty_both_circle(loss: AdversarialLoss) -> None:
    a, b = PULLS[loss]
    np.testing.assert_allclose(jacobian(loss), [[0.0, -a], [b, 0.0]], atol=1e-6)
    found = np.sort_complex(np.linalg.eigvals(jacobian(loss)))
    np.testing.assert_allclose(found, eigenvalues((a, b), 0.0), atol=1e-6)  # ±i/2, ±i; LeastSquares 0


PENALISED = {"r1": lambda d: (r1(d),), "r2": lambda d: (r2(d),), "r1_r2": lambda d: (r1(d / 4), r2(3 * d / 4))}


@pytest.mark.parametrize("loss", [NonSaturating(), RelativisticPairing()], ids=lambda loss: type(loss).__name__)
@pytest.mark.parametrize("penalties", PENALISED.values(), ids=PENALISED)
@pytest.mark.parametrize("damping", [0.5, 1.0, 2.0])
def test_penalties_damp_by_the_sum_of_their_gammas(loss: AdversarialLoss, penalties: Callable, damping: float) -> None:
    found = jacobian(loss, penalties(damping))
    np.testing.assert_allclose(found, [[-damping, -0.5], [0.5, 0.0]], atol=1e-6)
    # At the critical damping both coincide, and move by the root of any rounding: by 1e-3 for 1e-6 in the matrix.
    values = np.sort_complex(np.linalg.eigvals(found))
    np.testing.assert_allclose(values, eigenvalues((0.5, 0.5), damping), atol=2e-3 if damping == 1 else 1e-5)
    assert (values.real < 0).all()
    if damping != 1:
        assert bool(np.all(values.imag == 0)) == (damping > 1)  # above the critical gamma, 1, nothing circles


@pytest.mark.parametrize(("loss", "grows"), [(Wasserstein(), 1.0), (Hinge(), 1.0), (NonSaturating(), 0.5)], ids=str)
def test_discrete_steps_without_a_penalty_lead_away(loss: AdversarialLoss, grows: float) -> None:
    radius = descend(field(loss), (0.03, 0.04), rate=0.1, steps=300)
    factor = math.sqrt(1 + (0.1 * grows) ** 2)  # |1 + h i w|
    np.testing.assert_allclose(radius, 0.05 * factor ** np.arange(1, 301), rtol=1e-2)
    assert (np.diff(radius) > 0).all()


@pytest.mark.parametrize("loss", [NonSaturating(), RelativisticPairing(), Wasserstein()], ids=str)
def test_discrete_steps_with_a_penalty_lead_home(loss: AdversarialLoss) -> None:
    rate, gamma = 0.1, 0.3
    radius = descend(field(loss, (r1(gamma),)), (1.0, 1.0), rate, steps=800)
    assert radius[-1] < 1e-3
    a, b = PULLS[loss]
    shrinks = math.sqrt(1 - rate * gamma + rate**2 * a * b)  # |1 + h lambda| of both: the root of det(1 + h v')
    # Far from the start, where the losses are not yet straight; the slope of a line, since it shrinks along ellipses.
    measured = np.polyfit(np.arange(300), np.log(radius[300:600]), 1)[0]
    np.testing.assert_allclose(measured, math.log(shrinks), rtol=0.03)


def test_wgan_gp_does_not_come_home() -> None:
    """It wants a gradient norm of 1 where the game rests at 0 (arXiv:1801.04406), and drives D away whenever near."""
    v = field(Wasserstein(), (GradientPenalty(),))
    radius = descend(v, (0.1, 0.1), rate=0.01, steps=6000)
    assert radius[:500].max() > 0.5
    assert radius[3000:].min() > 0.5
    damped = descend(field(Wasserstein(), (r1(1.0),)), (0.1, 0.1), rate=0.01, steps=6000)
    assert damped[-1] < 1e-6
