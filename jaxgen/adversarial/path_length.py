"""Path length regularisation: steps of one size in style space shall change the image by one size, anywhere."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jaxgen.adversarial.game import Rows, Term
from jaxgen.adversarial.generator import draw
from jaxgen.errors import UserError
from jaxgen.learner import Learner, Scalars
from jaxgen.noise import fold
from jaxgen.typing import Tree

Synthesize = Callable[[Float[Array, "b l s"]], Float[Array, "b h w c"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PathLength:
    """Path length regularisation of StyleGAN2 (arXiv:1912.04958, equation 4 and appendix B).

    (|Jᵀy| - a)², where J is the Jacobian of the image with respect to the styles, y an image of noise of variance
    1 / (h·w), and a the running mean of |Jᵀy|. It is computed every `every` steps, and counts `every` times as much
    then. Raises UserError if a number is out of its range.
    """

    weight: float = 2.0
    """Above 0; what the penalty is multiplied by, in the mean over steps."""
    decay: float = 0.01
    """Share of the newest mean in the running one, in (0, 1]."""
    every: int = 4
    """Steps from one penalty to the next."""
    shrink: int = 2
    """How many times smaller than the batch is what the penalty is computed on, since it takes so much memory."""

    def __post_init__(self) -> None:
        if self.weight <= 0 or not 0 < self.decay <= 1 or self.every < 1 or self.shrink < 1:
            raise UserError(f"{self}: weight is above 0, decay in (0, 1], every and shrink are 1 or more")

    def init(self) -> Tree:
        """Return what it keeps from step to step: the running mean of the path's length."""
        return {"mean": jnp.zeros(())}

    def share(self, batch: int) -> int:
        """Return how many samples it is computed on."""
        return max(1, batch // self.shrink)

    def factor(self) -> float:
        """Return what the penalty is multiplied by in a step that has it."""
        return self.weight * self.every

    def rows(
        self, synthesize: Synthesize, styles: Float[Array, "b l s"], memory: Tree, key: PRNGKeyArray
    ) -> tuple[Float[Array, ""], Tree]:
        """Return the mean penalty over the rows of `styles`, without its weight, and the memory after this step."""
        image, pull = jax.vjp(synthesize, styles)
        y = jax.random.normal(key, image.shape) / (image.shape[1] * image.shape[2]) ** 0.5
        (gradient,) = pull(y)
        # 1e-30 changes no length but 0, where it keeps the root's derivative finite.
        lengths = jnp.sqrt(jnp.square(gradient).sum(2).mean(1) + 1e-30)
        mean = memory["mean"] + self.decay * (lengths.mean() - memory["mean"])
        return jnp.square(lengths - mean).mean(), {"mean": jax.lax.stop_gradient(mean)}

    def term(self, generator: Learner, step: Int[Array, ""]) -> Term:
        """Return the weighted penalty as a term of the generator's loss; it is 0 in the steps without it."""
        module = generator.module

        def term(
            params: Tree, stats: Tree, memory: Tree, fake: Float[Array, "b *s"], rows: Rows, key: PRNGKeyArray
        ) -> tuple[Float[Array, ""], Tree, Scalars]:
            k_z, k_style, k_noise = jax.random.split(key, 3)
            keys = jax.random.split(k_z, self.share(len(fake)))
            few = jax.tree.map(lambda x: x[: len(keys)], rows["condition"])
            call = functools.partial(module.apply, {"params": params, **stats}, train=True, mutable=list(stats))

            def due() -> tuple[Float[Array, ""], Tree]:
                styles, _ = call(draw(module, keys), few, method="styles", rngs={"mixing": k_style})
                image = lambda w: call(w, fold(keys, 1), method="synthesize")[0]  # noqa: E731
                value, kept = self.rows(image, styles, memory, k_noise)
                return self.factor() * value, kept

            value, kept = jax.lax.cond(step % self.every == 0, due, lambda: (jnp.float32(0.0), memory))
            return value, kept, {}

        return term
