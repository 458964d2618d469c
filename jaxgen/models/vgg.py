"""VGG (Simonyan and Zisserman, arXiv:1409.1556): stages of 3 × 3 convolutions and pools, then three dense layers."""

import flax.linen as nn
from jaxtyping import Array, Float

from jaxgen.models.cnn import Head, Padding, max_pool
from jaxgen.typing import Precision


class VggBackbone(nn.Module):
    """The convolutions of VGG; the default is configuration D, VGG-16."""

    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of each stage; stage i has stride 2^i."""
    depths: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions in each stage."""
    padding: Padding = "SAME"
    """Of convolutions."""
    pool: Padding = "SAME"
    """SAME rounds an odd side up, as Caffe and so FCN do; VALID rounds it down, as torchvision does."""
    dtype: Precision = "float32"
    """Type to compute in."""
    remat: bool = False
    """Compute each stage again in the backward pass instead of keeping what lies inside it."""

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Map image f32[b h w c] in [-1, 1] to pool1 … pool5, the output of every stage, finest first."""
        del train  # nothing in here behaves differently in training

        def stage(self: nn.Module, x: Array, number: int, width: int, depth: int) -> Array:
            for i in range(1, depth + 1):
                conv = nn.Conv(
                    width,
                    (3, 3),
                    padding=self.padding,
                    kernel_init=nn.initializers.he_normal(),
                    dtype=self.dtype,
                    name=f"conv{number}_{i}",
                )
                x = nn.relu(conv(x))
            return max_pool(x, self.pool)

        run = nn.remat(stage, static_argnums=(2, 3, 4)) if self.remat else stage
        x, maps = image.astype(self.dtype), []
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            x = run(self, x, number, width, depth)
            maps.append(x)
        return tuple(maps)


class Vgg(nn.Module):
    """Classify with VGG: its convolutions, then fc6, fc7 and score (fc8), which the paper runs on 224 × 224 pictures.

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
    """None: logits [b n] for the whole picture. (rows, columns): logits [b h w n], one for each window of the last
    map, from dense layers that `convolutionalize` turned into convolutions."""
    padding: Padding = "SAME"
    """Of convolutions; pools round down."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""
    remat: bool = False
    """Compute each stage again in the backward pass instead of keeping what lies inside it."""

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
