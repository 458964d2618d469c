"""What a discriminator and a generator want of the discriminator's outputs, each row's share of it.

Outputs ("logits") are any real numbers, higher where a picture looks more real; no sigmoid is applied to them before.
Losses are to be minimised, and their means over the batch are the caller's. Logarithms of sigmoids are softplus, which
neither overflows nor loses digits: -log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x).
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.nn import softplus
from jaxtyping import Array, Float

Rows = Float[Array, " b"]


@runtime_checkable
class AdversarialLoss(Protocol):
    """Two losses for each row of logits of real and of fake pictures; row i of both is a pair where pairs matter."""

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        """Return what the discriminator minimises."""
        ...

    def generator(self, real: Rows, fake: Rows) -> Rows:
        """Return what the generator minimises."""
        ...

    def paired(self) -> bool:
        """Whether the generator's loss looks at `real`, so that its step needs real pictures of its own."""
        ...

    def probability(self, logit: Rows, other: Rows) -> Rows | None:
        """Return the probability that the pictures with these logits are the real ones, None where there is no such.

        `other` holds logits of the opposite kind, which relativistic losses compare with.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativisticPairing:
    """RpGAN: each real picture is to look more real than the fake one beside it (arXiv:1807.00734; arXiv:2501.05441).

    f(D(x) - D(G(z))) with f(t) = softplus(-t) (arXiv:2501.05441, equation 2). Where the nets are told a class, both of
    a pair must be of the same one. D's outputs mean something only beside each other: a constant changes no loss.
    """

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        return softplus(fake - real)

    def generator(self, real: Rows, fake: Rows) -> Rows:
        return softplus(real - fake)

    def paired(self) -> bool:
        return True

    def probability(self, logit: Rows, other: Rows) -> Rows:
        return jax.nn.sigmoid(logit - other)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativisticAverage:
    """RaGAN: real pictures are to look more real than the average fake one, and fakes less so than the average real.

    arXiv:1807.00734, with the logistic loss, as in ESRGAN (arXiv:1809.00219, equations 1 and 2). The
    means are over all rows, of all devices, and gradients flow through them.
    """

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        return softplus(fake.mean() - real) + softplus(fake - real.mean())

    def generator(self, real: Rows, fake: Rows) -> Rows:
        return softplus(real - fake.mean()) + softplus(real.mean() - fake)

    def paired(self) -> bool:
        return True

    def probability(self, logit: Rows, other: Rows) -> Rows:
        return jax.nn.sigmoid(logit - other.mean())


class _Unpaired:
    """A loss whose generator looks at fakes alone, and whose outputs are no log-odds."""

    def paired(self) -> bool:
        return False

    def probability(self, logit: Rows, other: Rows) -> Rows | None:
        del logit, other
        return None


class _Logistic(_Unpaired):
    """The discriminator of arXiv:1406.2661, equation 1: a classifier, whose outputs are log-odds of being real."""

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        return softplus(-real) + softplus(fake)

    def probability(self, logit: Rows, other: Rows) -> Rows:
        del other
        return jax.nn.sigmoid(logit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonSaturating(_Logistic):
    """The generator maximises log D(G(z)), whose slope is steep where D is right (arXiv:1406.2661, section 3)."""

    def generator(self, real: Rows, fake: Rows) -> Rows:
        del real
        return softplus(-fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saturating(_Logistic):
    """The generator minimises log(1 - D(G(z))): the minimax game itself (arXiv:1406.2661, equation 1).

    Its slope vanishes where the discriminator is sure of a fake: it is here for study.
    """

    def generator(self, real: Rows, fake: Rows) -> Rows:
        del real
        return -softplus(fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hinge(_Unpaired):
    """The discriminator wants a margin of 1 and no more (arXiv:1705.02894; arXiv:1802.05957, equations 16 and 17)."""

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        return jax.nn.relu(1 - real) + jax.nn.relu(1 + fake)

    def generator(self, real: Rows, fake: Rows) -> Rows:
        del real
        return -fake


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeastSquares(_Unpaired):
    """LSGAN: outputs of 1 for real and 0 for fake pictures (arXiv:1611.04076, equation 9: a = 0, b = c = 1)."""

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        return jnp.square(real - 1) / 2 + jnp.square(fake) / 2

    def generator(self, real: Rows, fake: Rows) -> Rows:
        del real
        return jnp.square(fake - 1) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wasserstein(_Unpaired):
    """WGAN: the difference of the outputs (arXiv:1701.07875, equation 2), which wants a D of bounded slope.

    `GradientPenalty` sees to that, or spectral norms in the net.
    """

    def discriminator(self, real: Rows, fake: Rows) -> Rows:
        return fake - real

    def generator(self, real: Rows, fake: Rows) -> Rows:
        del real
        return -fake
