"""Weights of InceptionV3 from a file with the names of pytorch-fid; torch-fidelity's are the same."""

import pathlib

import jax
import jax.numpy as jnp
import safetensors
from jaxtyping import Array
from safetensors.numpy import load_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.inception import SIDE, InceptionV3
from jaxgen.typing import Tree

LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def load(path: pathlib.Path) -> Tree:
    """Read the variables of InceptionV3 from a .safetensors file with the names of pytorch-fid.

    Raises UserError for a file that is missing, of another kind, or without a weight of the right shape.
    """
    if path.suffix != ".safetensors":
        raise UserError(
            f"inception: {path} is no .safetensors file; convert a .pth where torch is installed: python -c "
            f'"import torch, safetensors.torch as s; '
            f"s.save_file(torch.load('{path}'), '{path.with_suffix('.safetensors')}')\""
        )
    if not path.is_file():
        raise UserError(f"inception: there is no file {path}; it holds the weights, which jaxgen does not ship")
    try:
        weights = load_file(path)
    except safetensors.SafetensorError as error:
        raise UserError(f"inception: {path} cannot be read ({error}); convert or copy it anew") from error

    def one(path_: str, like: jax.ShapeDtypeStruct) -> Array:
        _, *modules, leaf = path_.split("/")
        name = ".".join([*modules, LEAVES[leaf]])
        if name not in weights:
            raise UserError(
                f"inception: {path} has no {name}; the net needs the weights of pytorch-fid or torch-fidelity"
            )
        value = weights[name]
        value = value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        if value.shape != like.shape:
            raise UserError(
                f"inception: {name} in {path} has shape {weights[name].shape}, not one of FID's InceptionV3"
            )
        return jnp.asarray(value, jnp.float32)

    return tree.map_with_path(one, shapes())


def shapes() -> Tree:
    """Return the shapes of InceptionV3's variables, without computing any."""
    image = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(InceptionV3().init, jax.random.key(0), image)
