"""Condition-annealed sampling, which trades a little fidelity to the label for diversity."""

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

    The noise is added to the class weights of condition["label"]; the null column stays, and so do other conditions. It
    depends on a sample's key and on the noise level alone, so it is the same in every call at a level. The paper's time
    is read as the flow's, sigma / (1 + sigma).
    """

    inner: Guidance = ClassifierFree()
    """The guidance that takes these labels."""
    noise: float = 0.1
    """Scale of the noise, s."""
    tau1: float = 0.6
    """Time up to which labels are unchanged."""
    tau2: float = 0.9
    """Time from which they are noise alone."""
    mixing: float = 1.0
    """Share of the noisy labels that gets the original mean and spread back, psi."""

    def __post_init__(self) -> None:
        if not 0 <= self.tau1 < self.tau2 <= 1 or not 0 <= self.mixing <= 1 or self.noise < 0:
            raise UserError("Cads needs 0 <= tau1 < tau2 <= 1, mixing from 0 to 1, and noise of 0 or more")

    def check(self, *, conditional: bool, droppable: bool, guide: bool) -> None:
        if not conditional:
            raise UserError("Cads adds noise to labels, but this net takes none: use Unguided")
        self.inner.check(conditional=conditional, droppable=droppable, guide=guide)

    def evaluations(self, sigma: float) -> int:
        return self.inner.evaluations(sigma)

    def memory(self, x: Float[Array, "b *s"]) -> Tree:
        return self.inner.memory(x)

    def step(
        self, net: Guided, x: Float[Array, "b *s"], sigma: Float[Array, ""], memory: Tree
    ) -> tuple[Float[Array, "b *s"], Tree]:
        if "label" not in net.condition:
            raise UserError("Cads adds noise to labels, but the condition has none: use its inner guidance alone")
        weights = net.condition["label"]
        clean = weights[:, :-1]
        level = jax.lax.bitcast_convert_type(sigma.astype(jnp.float32), jnp.uint32)

        def draw(key: Key[Array, ""]) -> Float[Array, " n"]:
            return jax.random.normal(jax.random.fold_in(key, level), clean.shape[1:], clean.dtype)

        t = 1 - 1 / (1 + sigma)
        gamma = jnp.clip((self.tau2 - t) / (self.tau2 - self.tau1), 0, 1).astype(clean.dtype)
        noisy = jnp.sqrt(gamma) * clean + self.noise * jnp.sqrt(1 - gamma) * jax.vmap(draw)(net.keys)
        mean, spread = clean.mean(1, keepdims=True), clean.std(1, keepdims=True)
        centred = noisy - noisy.mean(1, keepdims=True)
        restored = centred * (spread / jnp.maximum(noisy.std(1, keepdims=True), 1e-12)) + mean
        noised = jnp.where(gamma < 1, self.mixing * restored + (1 - self.mixing) * noisy, clean)
        condition = {**net.condition, "label": jnp.concatenate([noised, weights[:, -1:]], 1)}
        return self.inner.step(dataclasses.replace(net, condition=condition), x, sigma, memory)
