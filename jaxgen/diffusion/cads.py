"""Condition-annealed sampling, which trades a little of what labels say for variety."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from jaxgen.diffusion.guidance import ClassifierFree, Guidance, Guided
from jaxgen.errors import UserError
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cads:
    """Condition-annealed sampling: noise on the labels while x is noisy makes samples more varied (arXiv:2310.17347).

    The noise falls on the classes' weights, the null column stays. It depends on a sample's key and on the level alone,
    so that it is the same in every call at a level. The paper's time is read as the flow's, sigma / (1 + sigma).
    """

    inner: Guidance = ClassifierFree()
    """The guidance that is given these labels."""
    noise: float = 0.1
    """Scale of the noise, s."""
    tau1: float = 0.6
    """Time up to which labels are as given."""
    tau2: float = 0.9
    """Time from which they are noise alone."""
    mixing: float = 1.0
    """Share of the noisy labels that gets the mean and spread of the given ones back, psi."""

    def __post_init__(self) -> None:
        if not 0 <= self.tau1 < self.tau2 <= 1 or not 0 <= self.mixing <= 1 or self.noise < 0:
            raise UserError("Cads needs 0 <= tau1 < tau2 <= 1, mixing from 0 to 1, and noise of 0 or more")

    def check(self, *, conditional: bool, droppable: bool, weak: bool) -> None:
        if not conditional:
            raise UserError("Cads puts noise on labels, but this net takes none: use Unguided")
        self.inner.check(conditional=conditional, droppable=droppable, weak=weak)

    def evaluations(self, sigma: float) -> int:
        return self.inner.evaluations(sigma)

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return self.inner.memory(x)

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        given = net.label[:, :-1]
        level = jax.lax.bitcast_convert_type(sigma.astype(jnp.float32), jnp.uint32)

        def draw(key: Key[Array, ""]) -> Float[Array, " n"]:
            return jax.random.normal(jax.random.fold_in(key, level), given.shape[1:], given.dtype)

        t = 1 - 1 / (1 + sigma)
        gamma = jnp.clip((self.tau2 - t) / (self.tau2 - self.tau1), 0, 1).astype(given.dtype)
        noisy = jnp.sqrt(gamma) * given + self.noise * jnp.sqrt(1 - gamma) * jax.vmap(draw)(net.keys)
        mean, spread = given.mean(1, keepdims=True), given.std(1, keepdims=True)
        centred = noisy - noisy.mean(1, keepdims=True)
        restored = centred * (spread / jnp.maximum(noisy.std(1, keepdims=True), 1e-12)) + mean
        label = jnp.where(gamma < 1, self.mixing * restored + (1 - self.mixing) * noisy, given)
        noised = dataclasses.replace(net, label=jnp.concatenate([label, net.label[:, -1:]], 1))
        return self.inner.step(noised, x, sigma, memory)
