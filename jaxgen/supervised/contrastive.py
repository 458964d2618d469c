"""PatchNCE: what lies at a place of an image is to be told from what lies elsewhere in it (arXiv:2007.15651)."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray


def patch_nce(query: Float[Array, "b n d"], key: Float[Array, "b n d"], temperature: float) -> Float[Array, "b n"]:
    """Return the cross-entropy of each query's own key among all n keys of its image (equation 2).

    Queries and keys are unit vectors; row i of both is of the same place. No gradient flows into the keys.
    """
    similar = jnp.einsum("bnd,bmd->bnm", query, jax.lax.stop_gradient(key), precision=jax.lax.Precision.HIGHEST)
    return optax.softmax_cross_entropy_with_integer_labels(
        similar / temperature, jnp.broadcast_to(jnp.arange(query.shape[1]), query.shape[:2])
    )


def at_places(maps: Float[Array, "b h w c"], places: int, key: PRNGKeyArray) -> Float[Array, "b n c"]:
    """Return the vectors at so many random places, or at all where there are no more; the same places in each image."""
    b, h, w, c = maps.shape
    chosen = jax.random.permutation(key, h * w)[: min(places, h * w)]
    return maps.reshape(b, h * w, c)[:, chosen]
