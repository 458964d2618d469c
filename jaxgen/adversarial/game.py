"""A GAN's two nets as functions: numbers become pictures, and pictures are judged."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from jaxgen import learner
from jaxgen.adversarial.path_length import PathLength
from jaxgen.errors import UserError
from jaxgen.noise import Towards, fold, normal
from jaxgen.state import Net
from jaxgen.typing import Tree


def blank(generator: nn.Module) -> tuple[Float[Array, "1 z"], Int[Array, "1"] | None, Key[Array, "1"]]:
    """Return empty inputs of a generator, to make it with."""
    net: Any = generator
    label = jnp.zeros(1, jnp.int32) if net.classes else None
    return jnp.zeros((1, net.latent)), label, jax.random.split(jax.random.key(0), 1)


def check_size(generator: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise UserError unless a generator makes examples of the data's shape."""
    inputs = blank(generator)
    made = jax.eval_shape(lambda: generator.init_with_output(jax.random.key(0), *inputs, train=False)[0])
    if made.shape[1:] != shape:
        raise UserError(
            f"the generator makes {_size(made.shape[1:])}, but the data is {_size(shape)}; change its fields, or "
            "bring the data to one size with Resize in the transforms of both pipelines"
        )


def draw(generator: nn.Module, keys: Key[Array, " b"], towards: Towards | None = None) -> Float[Array, "b z"]:
    """Return the z that each sample's key stands for, or what lies towards those of other keys."""
    net: Any = generator
    return normal(keys, 0, (net.latent,), towards)


def make(
    generator: nn.Module, params: Tree, stats: Tree, key: PRNGKeyArray, n: int, label: Int[Array, " b"] | None
) -> tuple[Float[Array, "b *s"], Tree]:
    """Return n pictures by a generator in training, and its new stats."""
    k_z, k_net = jax.random.split(key)
    keys = jax.random.split(k_z, n)
    made, _, moved = learner.train(
        generator, params, stats, k_net, draw(generator, keys), label, fold(keys, 1)
    )  # fmt: skip
    return made, moved


def sample(
    generator: nn.Module,
    net: Net,
    z: Float[Array, "b z"],
    label: Int[Array, " b"] | None,
    keys: Key[Array, " b"],
    truncation: float,
) -> Float[Array, "b *s"]:
    """Let a generator, with its averaged weights where it keeps an average, make a picture of each z."""
    apply: Any = generator.apply
    variables = {"params": net.best_params, **net.stats}
    return apply(variables, z, label, fold(keys, 1), train=False, truncation=truncation)


def judge(
    discriminator: nn.Module, net: Net, x: Float[Array, "b *s"], label: Int[Array, " b"] | None
) -> Float[Array, " b"]:
    """Return a discriminator's outputs as a fixed function of each picture by itself."""

    def one(x: Array, label: Array | None) -> Array:
        alone = None if label is None else label[None]
        return discriminator.apply({"params": net.params, **net.stats}, x[None], alone, train=False)[0]

    return jax.vmap(one)(x, label)


def path_length(
    penalty: PathLength,
    generator: nn.Module,
    variables: Tree,
    memory: Tree,
    n: int,
    label: Int[Array, " b"] | None,
    key: PRNGKeyArray,
    step: Int[Array, ""],
) -> tuple[Float[Array, ""], Tree]:
    """Return the weighted penalty of a batch of n, 0 in the steps that do without, and what it remembers."""
    k_z, k_style, k_noise = jax.random.split(key, 3)
    keys = jax.random.split(k_z, penalty.share(n))
    few = None if label is None else label[: len(keys)]
    moving = [name for name in variables if name != "params"]
    call = functools.partial(generator.apply, variables, train=True, mutable=moving)

    def term() -> tuple[Float[Array, ""], Tree]:
        styles, _ = call(draw(generator, keys), few, method="styles", rngs={"mixing": k_style})
        value, kept = penalty.rows(lambda w: call(w, fold(keys, 1), method="synthesize")[0], styles, memory, k_noise)
        return penalty.factor() * value, kept

    return jax.lax.cond(step % penalty.every == 0, term, lambda: (jnp.float32(0.0), memory))


def lazily(term: Callable[[], Float[Array, ""]], step: Int[Array, ""], period: int) -> Float[Array, ""]:
    """Return the term, or each `period`-th step as many times it and 0 in between."""
    if period == 1:
        return term()
    return jax.lax.cond(step % period == 0, lambda: period * term(), lambda: jnp.float32(0.0))


def _size(shape: tuple[int, ...]) -> str:
    return f"points of {shape[0]} numbers" if len(shape) == 1 else "pictures of " + "×".join(map(str, shape))
