"""Generated images of steps before, which a discriminator sees beside new ones (arXiv:1612.07828, section 2.3)."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jaxgen.errors import check_field
from jaxgen.typing import Tree


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """The last images that a discriminator has not forgotten, as CycleGAN keeps them (arXiv:1703.10593, section 4).

    Image by image: until the pool is full each one is stored and passed on; from then on, with probability 1/2, one
    that is stored is passed on and the new one takes its place, else the new one is passed on and not stored.
    """

    size: int = 50
    """Images that are stored; 0 passes everything on."""

    def __post_init__(self) -> None:
        check_field(self, "size", self.size >= 0, "0 or more")

    def init(self, shape: tuple[int, ...]) -> Tree:
        """Return an empty pool for images of this shape."""
        return {"images": jnp.zeros((self.size, *shape)), "count": jnp.int32(0)} if self.size else {}

    def query(self, memory: Tree, images: Float[Array, "b *s"], key: PRNGKeyArray) -> tuple[Float[Array, "b *s"], Tree]:
        """Return an image for each of these, and the pool that is left."""
        if not self.size:
            return images, memory

        def one(pool: Tree, xs: tuple[Float[Array, "*s"], PRNGKeyArray]) -> tuple[Tree, Float[Array, "*s"]]:
            image, key = xs
            k_old, k_slot = jax.random.split(key)
            stored, count = pool["images"], pool["count"]
            filling = count < self.size
            swapped = ~filling & jax.random.bernoulli(k_old)
            slot = jnp.where(filling, count, jax.random.randint(k_slot, (), 0, self.size))
            old = stored[slot]
            kept = jnp.where(filling | swapped, image, old)
            moved = {"images": stored.at[slot].set(kept), "count": count + filling}
            return moved, jnp.where(swapped, old, image)

        memory, passed = jax.lax.scan(one, memory, (images, jax.random.split(key, len(images))))
        return passed, memory
