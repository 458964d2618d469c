"""A generator of noise as a function of keys, in training and afterwards."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PRNGKeyArray

from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.nn.conditioning import one_hot
from jaxgen.nn.lowest import halvings_of, nearest
from jaxgen.noise import fold, normal
from jaxgen.state import Net
from jaxgen.typing import Condition, Tree


def blank_inputs(module: nn.Module) -> tuple[Float[Array, "1 z"], Condition, Key[Array, "1"]]:
    """Return inputs of a generator (z, condition, keys of its noise), to make it with."""
    net: Any = module
    condition = {"label": one_hot(jnp.zeros(1, jnp.int32), net.classes)} if net.classes else {}
    return jnp.zeros((1, net.latent)), condition, jax.random.split(jax.random.key(0), 1)


def output_shape(module: nn.Module) -> tuple[int, ...]:
    """Return the shape of one example that a generator makes."""

    def first() -> Float[Array, "1 *s"]:
        return module.init_with_output(jax.random.key(0), *blank_inputs(module), train=False)[0]

    return jax.eval_shape(first).shape[1:]


def check_size(module: nn.Module, shape: tuple[int, ...]) -> None:
    """Raise UserError unless a generator makes examples of the data's shape."""
    own = output_shape(module)
    if own != shape:
        hint = _hint(module, own, shape)
        raise UserError(
            f"the generator makes {_size(own)}, but the data is {_size(shape)}; change its fields{hint}, or "
            "bring the data to one size with Resize in the transforms of both pipelines"
        )


def draw(module: nn.Module, keys: Key[Array, " b"]) -> Float[Array, "b z"]:
    """Return the z of each sample's key."""
    net: Any = module
    return normal(keys, 0, (net.latent,))


def make_fakes(
    generator: Learner, params: Tree, stats: Tree, rows: Mapping[str, Any], key: PRNGKeyArray
) -> tuple[Float[Array, "b *s"], Tree]:
    """Return a fake for each row of rows["real"] and rows["condition"], by a generator in training, and new stats."""
    k_z, k_net = jax.random.split(key)
    keys = jax.random.split(k_z, len(rows["real"]))
    z = draw(generator.module, keys)
    fake, _, stats = generator.train(params, stats, k_net, z, rows["condition"], fold(keys, 1))
    return fake, stats


def sample(
    generator: Learner,
    net: Net,
    z: Float[Array, "b z"],
    condition: Condition,
    keys: Key[Array, " b"],
    truncation: float,
) -> Float[Array, "b *s"]:
    """Make an image of each z, by the generator's first EMA where it keeps one."""
    apply: Any = generator.module.apply
    variables = {"params": net.best_params, **net.stats}
    return apply(variables, z, condition, fold(keys, 1), train=False, truncation=truncation)


def _size(shape: tuple[int, ...]) -> str:
    return f"points of {shape[0]} numbers" if len(shape) == 1 else "images of " + "×".join(map(str, shape))


def _hint(module: nn.Module, own: tuple[int, ...], shape: tuple[int, ...]) -> str:
    """Name the size of the first map that images of this shape grow from, for nets that have such a field."""
    if "lowest" not in {field.name for field in dataclasses.fields(module)} or len(shape) != 3 or own[2] != shape[2]:
        return ""
    halvings = halvings_of(*shape[:2])
    if shape[0] % 2**halvings or shape[1] % 2**halvings:
        return f"; the nearest size that it can make is {nearest(*shape[:2])}"
    net: Any = module
    times = (own[0] // net.lowest[0]).bit_length() - 1  # the net doubles its first map so often
    more = "" if times == halvings else f" and {halvings - times:+d} doublings"
    return f" (lowest=({shape[0] >> halvings}, {shape[1] >> halvings}){more})"
