"""Features of FID: InceptionV3 with the weights of a file (arXiv:1706.08500)."""

import dataclasses
import pathlib
from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from jaxgen.features.net import Features
from jaxgen.models import inception
from jaxgen.pictures import pixels
from jaxgen.typing import Tree
from jaxgen.weights.inception import load


@dataclasses.dataclass(frozen=True)
class Inception(Features):
    """InceptionV3's pooled features, 2048 to a picture; the Fréchet distance between them is the FID."""

    weights: str
    """Path of a .safetensors file with pytorch-fid's or torch-fidelity's weights."""

    @property
    def name(self) -> str:
        """What the features are called."""
        return "inception"

    @property
    def metric(self) -> str:
        """What the Fréchet distance between them is called: nothing else may be called FID."""
        return "fid"

    def extractor(self) -> Callable[[Float[Array, "b h w c"]], Float[Array, "b d"]]:
        """Read the weights; return a pure function from pictures in [-1, 1], grey or RGB, to features.

        The function rounds nothing: FID is defined on 8-bit pictures, i/127.5 - 1 here. Its weights are leaves, so
        that it can also be an argument of a compiled function.

        Raises UserError for a file that does not hold the weights.
        """
        return jax.tree_util.Partial(_features, load(pathlib.Path(self.weights).expanduser()))


def _features(variables: Tree, image: Float[Array, "b h w c"]) -> Float[Array, "b 2048"]:
    features, _ = inception.InceptionV3().apply(variables, inception.preprocess(pixels.grey_to_rgb(image)))
    return features
