"""VGG (Simonyan and Zisserman, arXiv:1409.1556): stages of 3 × 3 convolutions and pools, then three dense layers."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxgen.nn.backbones import VggBackbone
from jaxgen.nn.head import Head
from jaxgen.nn.resize import Padding
from jaxgen.typing import Precision


class Vgg(nn.Module):
    """Classify with VGG: its convolutions, then fc6, fc7 and score (fc8), which the paper runs on 224 × 224 images.

    Parameters and results are torchvision's, but for the order in which fc6 sees the last map: here rows, columns,
    channels; there channels, rows, columns.
    """

    classes: int = 1000
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage; every stage halves the side."""
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions in each stage: configuration D, VGG-16, by default."""
    hidden: tuple[int, ...] = (4096, 4096)
    """Widths of fc6 and fc7."""
    dropout: float = 0.5
    """Share of the outputs of fc6 and fc7 set to 0 in training."""
    window: tuple[int, int] | None = None
    """None: logits [b n] for the whole image. (rows, columns): logits [b h w n], one for each window of the last
    map, from dense layers that `convolutionalize` turned into convolutions."""
    padding: Padding = "SAME"
    """Of convolutions; pools round down."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""
    remat: bool = False
    """Recompute each stage in the backward pass rather than keep its activations."""

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b n"] | Float[Array, "b h2 w2 n"]:
        backbone = VggBackbone(self.widths, self.depths, self.padding, "VALID", self.dtype, self.remat, name="features")
        maps = backbone(image, train=train)
        head = Head(
            self.classes,
            self.hidden,
            self.window,
            first=len(maps) + 1,
            dropout=self.dropout,
            dtype=self.dtype,
            name="head",
        )
        return head(maps[-1], train=train)
