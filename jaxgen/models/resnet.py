"""ResNet (arXiv:1512.03385) as a classifier, in torchvision's geometry; its stages lie in `nn.resnet`."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.resnet import Stem, residual_stages
from jaxgen.typing import Precision

IMAGENET = Stem()
CIFAR = Stem(kernel=3, stride=1, pool=1)  # arXiv:1512.03385, section 4.2: images of 32×32 keep their resolution


class ResNet(nn.Module):
    """Residual network: image f32[b h w c] in [-1, 1] to logits f32[b classes].

    Raises UserError for a depth that is not in `nn.resnet.STAGES` and for an output stride below the stem's.
    """

    classes: int = 1000
    depth: int = 50
    """Layers: 18, 34, 50, 101 or 152; or 10, 14 (with bottlenecks), 26."""
    width: int = 64
    """Channels of the stem; the stages have 1, 2, 4 and 8 times as many (4 times that with bottlenecks)."""
    stem: Stem = IMAGENET
    output_stride: int = 32
    """The coarsest that features may get, in pixels per cell; beyond it strides become dilations."""
    remat: bool = False
    """Recompute each block in the backward pass rather than keep its activations."""
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, image: Float[Array, "b _ _ _"], *, train: bool) -> Float[Array, "b n"]:
        *_, last = residual_stages(
            image,
            train,
            depth=self.depth,
            width=self.width,
            stem=self.stem,
            output_stride=self.output_stride,
            remat=self.remat,
            dtype=self.dtype,
        )
        head = nn.Dense(self.classes, kernel_init=nn.initializers.normal(0.01), name="head")
        return head(last.astype(jnp.float32).mean((1, 2)))
