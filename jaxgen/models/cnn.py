"""A small classifier: stages of convolutions and pools, then dense layers."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxgen.nn.backbones import SmallBackbone
from jaxgen.nn.head import Head
from jaxgen.nn.resize import Padding
from jaxgen.typing import Precision


class Cnn(nn.Module):
    """Classify small images: a SmallBackbone, then dense layers over its last map."""

    classes: int = 10
    widths: tuple[int, ...] = (64, 128)
    """Channels of each stage; every stage halves the side."""
    depths: tuple[int, ...] = (2, 2)
    """Convolutions in each stage."""
    hidden: tuple[int, ...] = (128,)
    """Widths of the dense layers before the last."""
    dropout: float = 0.5
    """Share of a hidden dense layer's outputs set to 0 in training."""
    window: tuple[int, int] | None = None
    """None: logits [b n] for the whole image. (rows, columns): logits [b h w n], one for each window of the last
    map, from dense layers that `convolutionalize` turned into convolutions."""
    padding: Padding = "SAME"
    """Of convolutions and pools."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""
    remat: bool = False
    """Recompute each stage in the backward pass rather than keep its activations."""

    @nn.compact
    def __call__(
        self, image: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b n"] | Float[Array, "b h2 w2 n"]:
        backbone = SmallBackbone(self.widths, self.depths, self.padding, self.dtype, self.remat, name="features")
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
