"""What a classifier of handwritten digits sees in a picture, with the weights of one that was trained here.

`digits_cnn.safetensors` holds the averaged weights after
    uv run train.py configs/classification/digits_cnn.py
    uv run examples/export_digits_cnn.py runs/digits_cnn
It learned from the train split only. Accuracy on the test split: 0.9944, that is 358 of 360.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Array, Float
from safetensors.numpy import load_file, save_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.features.net import Features
from jaxgen.models.cnn import Cnn
from jaxgen.typing import Tree

NET = Cnn(classes=10, widths=(48, 64), hidden=(96,))  # the net of configs/classification/digits_cnn.py
WEIGHTS = pathlib.Path(__file__).with_suffix(".safetensors")
SHAPE = (8, 8, 1)


@dataclasses.dataclass(frozen=True)
class DigitsCnn(Features):
    """The classifier's last hidden layer, 96 numbers ≥ 0, for pictures f32[b 8 8 1] in [-1, 1].

    It tells digits from each other, not from what is none: of uniform noise, 0.74 count as precise (k = 5), for they
    fall into the wide balls of outliers; the noise's density, 0.26, and coverage, 0.04, show what it is.
    """

    @property
    def name(self) -> str:
        return "digits_cnn"

    def extractor(self) -> Callable[[Float[Array, "b h w c"]], Float[Array, "b d"]]:
        """Return the pure function of a batch.

        It raises UserError for pictures that are not 8 x 8 and grey.
        """
        return _features

    def classifier(self) -> Callable[[Float[Array, "b h w c"]], Float[Array, "b 10"]]:
        """Return the pure function from a batch to the logits of the digits 0..9.

        It raises UserError for pictures that are not 8 x 8 and grey.
        """
        return _logits


def write(variables: Tree, file: pathlib.Path) -> None:
    """Write a net's variables: kernels as float16, which costs no accuracy, and the few other numbers as float32.

    Raises UserError unless they are those of `NET`'s shapes.
    """
    flat = {path: np.asarray(leaf) for path, leaf in tree.leaves(variables)}
    expected = jax.eval_shape(lambda: NET.init(jax.random.key(0), jnp.zeros((1, *SHAPE)), train=False))
    if {path: leaf.shape for path, leaf in flat.items()} != {path: leaf.shape for path, leaf in tree.leaves(expected)}:
        raise UserError("these are not the variables of the net of configs/classification/digits_cnn.py")
    save_file({path: leaf.astype(np.float16 if leaf.ndim > 1 else np.float32) for path, leaf in flat.items()}, file)


def read(file: pathlib.Path) -> Tree:
    """Return the variables that `write` wrote, as f32."""
    flat = {path: leaf.astype(np.float32) for path, leaf in load_file(file).items()}
    return traverse_util.unflatten_dict(flat, sep="/")


@functools.cache
def _weights() -> Tree:
    return read(WEIGHTS)


def _features(images: Float[Array, "b h w c"]) -> Float[Array, "b d"]:
    return _run(images)[0]


def _logits(images: Float[Array, "b h w c"]) -> Float[Array, "b 10"]:
    return _run(images)[1]


def _run(images: Float[Array, "b h w c"]) -> tuple[Float[Array, "b d"], Float[Array, "b 10"]]:
    """Return (what enters the last layer, logits)."""
    if images.shape[1:] != SHAPE:
        raise UserError(f"DigitsCnn reads pictures of 8x8x1, not {'x'.join(map(str, images.shape[1:]))}")
    entering: list[Any] = []

    def watch(call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        if context.module.path == ("head", "score"):
            entering.append(args[0])
        return call(*args, **kwargs)

    with nn.intercept_methods(watch):
        logits: Any = NET.apply(_weights(), images, train=False)
    return entering[0], logits
