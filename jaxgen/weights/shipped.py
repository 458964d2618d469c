"""Weights that come with the package, and the nets that they are of.

`emoji_f4.safetensors` holds the averaged weights, and the latents' mean and deviation, after
    uv run train.py configs/autoencoder/emoji_f4.py
    uv run examples/export_emoji_f4.py runs/emoji_f4
It learned from the train split only.
"""

import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.autoencoder_kl import AutoencoderKl, Level
from jaxgen.typing import Tree
from jaxgen.weights import files

EMOJI_F4 = AutoencoderKl(
    channels=8,
    patch=4,
    encoder=(Level(96, 0),),
    decoder=(Level(96, 1),),
    attention=False,
    groups=8,
)
"""32×32 pixels in colour become 8×8 places of 8 channels: the net of configs/autoencoder/emoji_f4.py."""
WEIGHTS = pathlib.Path(__file__).with_name("emoji_f4.safetensors")


@dataclasses.dataclass(frozen=True)
class EmojiF4:
    """Weights of `EMOJI_F4`, trained on pictures of `Emoji` on white."""

    def read(self, variables: Tree) -> Tree:
        """Return the arrays, as f32. Raises UserError for the variables of another net."""
        return files.Safetensors(str(WEIGHTS)).read(variables)


def write_emoji_f4(variables: Tree, file: pathlib.Path) -> None:
    """Write the variables of a trained `EMOJI_F4`: kernels as float16, and the few other numbers as float32.

    Raises UserError unless they are those of its shapes.
    """
    shapes = {path: leaf.shape for path, leaf in tree.leaves(variables)}
    image = jnp.zeros((1, 4, 4, 3))
    expected = jax.eval_shape(lambda: EMOJI_F4.init(jax.random.key(0), image, train=False))
    if shapes != {path: leaf.shape for path, leaf in tree.leaves(expected)}:
        raise UserError("these are not the variables of the net of configs/autoencoder/emoji_f4.py")
    files.write(jax.tree.map(lambda x: np.asarray(x, np.float16 if np.ndim(x) > 1 else np.float32), variables), file)
