"""What a discriminator and a generator minimise, as functions of the discriminator's logits.

Logits are any real numbers, higher where an image looks more real; no sigmoid has been applied to them. There is one
for each image, f32[b], or one for each patch of it, f32[b h w] (PatchGAN, arXiv:1611.07004); a loss has the shape of
its logits, and its mean is the caller's. Logarithms of sigmoids are softplus, which neither overflows nor loses digits:
-log sigmoid(x) = softplus(-x), -log(1 - sigmoid(x)) = softplus(x).
"""

import dataclasses
from typing import Protocol, runtime_checkable

import jax
import jax.numpy as jnp
from jax.nn import softplus
from jaxtyping import Array, Float

Logits = Float[Array, "b *p"]  # of images f32[b], or of their patches f32[b h w]


@runtime_checkable
class AdversarialLoss(Protocol):
    """Two losses for each logit of real and of fake images; row i of both is a pair where pairs matter."""

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        """Return what the discriminator minimises."""
        ...

    def generator(self, real: Logits, fake: Logits) -> Logits:
        """Return what the generator minimises."""
        ...

    def paired(self) -> bool:
        """Whether the generator's loss looks at `real`, so that its step needs real images of its own."""
        ...

    def probability(self, logit: Logits, other: Logits) -> Logits | None:
        """Return the probability that what has these logits is real, None where the loss defines none.

        `other` holds logits of the opposite kind, which relativistic losses compare with.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativisticPairing:
    """RpGAN: each real image is to look more real than the fake one of its pair (arXiv:1807.00734; arXiv:2501.05441).

    f(D(x) - D(G(z))) with f(t) = softplus(-t) (arXiv:2501.05441, equation 2). Where the nets take a class, both of a
    pair must be of the same one. Only differences of D's logits have a meaning: a constant changes no loss.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        return softplus(fake - real)

    def generator(self, real: Logits, fake: Logits) -> Logits:
        return softplus(real - fake)

    def paired(self) -> bool:
        return True

    def probability(self, logit: Logits, other: Logits) -> Logits:
        return jax.nn.sigmoid(logit - other)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativisticAverage:
    """RaGAN: real images are to look more real than the average fake one, and fakes less so than the average real.

    arXiv:1807.00734, with the logistic loss, as in ESRGAN (arXiv:1809.00219, equations 1 and 2). The means are over
    all rows of all devices, and over all patches; gradients flow through them.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        return softplus(fake.mean() - real) + softplus(fake - real.mean())

    def generator(self, real: Logits, fake: Logits) -> Logits:
        return softplus(real - fake.mean()) + softplus(real.mean() - fake)

    def paired(self) -> bool:
        return True

    def probability(self, logit: Logits, other: Logits) -> Logits:
        return jax.nn.sigmoid(logit - other.mean())


class _Unpaired:
    """A loss whose generator looks at fakes alone, and whose logits are no log-odds."""

    def paired(self) -> bool:
        return False

    def probability(self, logit: Logits, other: Logits) -> Logits | None:
        del logit, other
        return None


class _Logistic(_Unpaired):
    """The discriminator of arXiv:1406.2661, equation 1: a classifier, whose logits are log-odds of being real."""

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        return softplus(-real) + softplus(fake)

    def probability(self, logit: Logits, other: Logits) -> Logits:
        del other
        return jax.nn.sigmoid(logit)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NonSaturating(_Logistic):
    """The generator maximises log D(G(z)), whose gradient is large where D is right (arXiv:1406.2661, section 3)."""

    def generator(self, real: Logits, fake: Logits) -> Logits:
        del real
        return softplus(-fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Saturating(_Logistic):
    """The generator minimises log(1 - D(G(z))): the minimax game itself (arXiv:1406.2661, equation 1).

    Its gradient vanishes where the discriminator is sure of a fake: it is here for study.
    """

    def generator(self, real: Logits, fake: Logits) -> Logits:
        del real
        return -softplus(fake)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hinge(_Unpaired):
    """The discriminator wants a margin of 1 and no more (arXiv:1705.02894; arXiv:1802.05957, equations 16 and 17)."""

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        return jax.nn.relu(1 - real) + jax.nn.relu(1 + fake)

    def generator(self, real: Logits, fake: Logits) -> Logits:
        del real
        return -fake


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeastSquares(_Unpaired):
    """LSGAN: logits of 1 for real and 0 for fake images (arXiv:1611.04076, equation 9: a = 0, b = c = 1)."""

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        return jnp.square(real - 1) / 2 + jnp.square(fake) / 2

    def generator(self, real: Logits, fake: Logits) -> Logits:
        del real
        return jnp.square(fake - 1) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wasserstein(_Unpaired):
    """WGAN: the difference of the outputs (arXiv:1701.07875, equation 2), for a D of bounded gradient norm.

    `GradientPenalty`, or spectral norms in the net, bound it.
    """

    def discriminator(self, real: Logits, fake: Logits) -> Logits:
        return fake - real

    def generator(self, real: Logits, fake: Logits) -> Logits:
        del real
        return -fake


def per_row(x: Float[Array, "b *p"]) -> Float[Array, " b"]:
    """Return each row's mean over its patches."""
    return x if x.ndim == 1 else x.mean(tuple(range(1, x.ndim)))


def likely_real(loss: AdversarialLoss, logit: Logits, other: Logits) -> Float[Array, " b"]:
    """Return for each row the probability of being real; where the loss defines none, the logit from least to most.

    `other` holds logits of the opposite kind. Both are in [0, 1].
    """
    probability = loss.probability(logit, other)
    if probability is None:
        low, high = (f(jnp.concatenate([logit, other])) for f in (jnp.min, jnp.max))
        probability = (logit - low) / jnp.maximum(high - low, 1e-6)
    return per_row(probability)
