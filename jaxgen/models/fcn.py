"""Fully convolutional networks for semantic segmentation: FCN-32s, 16s and 8s (Shelhamer et al., arXiv:1605.06211).

Cell i of a map, along either side, is centred on the image's pixel origin + stride · i. All layers move these two
numbers in known ways:

    2 × 2 pools, down to stride s       origin = (s - 1) / 2 - margin
    a window of k, q of it in padding   origin + stride · ((k - 1) / 2 - q)
    deconvolution by f, nothing cropped origin - stride + stride / (2 f), then stride / f

So the crops that lay one map over another, and the last one over the image, follow from the geometry. For the
paper's geometry they are its well-known numbers: 19 (32s); 5, 27 (16s); 5, 9, 31 (8s).
"""

import dataclasses
from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.errors import UserError
from jaxgen.nn.backbones import VggBackbone
from jaxgen.nn.head import Head
from jaxgen.nn.resize import Padding
from jaxgen.nn.upsample import Deconvolution
from jaxgen.typing import Precision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where an FCN pads its input and its last map with zeros."""

    margin: int
    """Pixels added on each side of the image."""
    multiple: int
    """Further pixels at the bottom and on the right make both sides a multiple of this."""
    padding: Padding
    """Of the window over the last map."""


# The paper's: conv1_1 padded by 100, that is a margin of 99 before a convolution padded by 1; fc6 not padded.
PAPER = Geometry(margin=99, multiple=1, padding="VALID")
# No margin, hence far less work on a small image; where sides are multiples of 32 no pixel is added at all.
SAME = Geometry(margin=0, multiple=32, padding="SAME")


class Scores(NamedTuple):
    """A map of class scores f32[b h w n], with its stride and origin in the image."""

    values: Array
    stride: int
    origin: float


def upsample(coarse: Scores, deconvolution: Deconvolution) -> Scores:
    """Enlarge a map by the deconvolution's factor."""
    stride = coarse.stride // deconvolution.factor
    return Scores(deconvolution(coarse.values), stride, coarse.origin - coarse.stride + stride / 2)


def fuse(coarse: Scores, fine: Scores) -> Scores:
    """Add two maps of the same stride where both lie."""
    shift = int((coarse.origin - fine.origin) / fine.stride)
    a = coarse.values[:, max(-shift, 0) :, max(-shift, 0) :]
    b = fine.values[:, max(shift, 0) :, max(shift, 0) :]
    h, w = min(a.shape[1], b.shape[1]), min(a.shape[2], b.shape[2])
    return Scores(a[:, :h, :w] + b[:, :h, :w], fine.stride, max(coarse.origin, fine.origin))


class Fcn(nn.Module):
    """Segment images of any size: a classifier's maps, scored at strides 32, 16 and 8, enlarged and added.

    The layers that score begin at zero: training begins from an even guess.
    """

    classes: int = 21
    stride: Literal[8, 16, 32] = 8
    """Stride of the finest map that is scored: FCN-8s, 16s or 32s."""
    backbone: nn.Module = VggBackbone()
    """Gives five maps, finest first, of strides 2 to 32. It computes in the dtype of this net, not in its own."""
    hidden: tuple[int, ...] = (4096, 4096)
    """Channels of the convolutions between the last map and its scores: fc6 and fc7."""
    window: int = 7
    """Rows and columns of the last map that the first of them covers."""
    dropout: float = 0.5
    """Share of their outputs set to 0 in training."""
    skip_scale: tuple[float, float] = (0.01, 0.0001)
    """Factors on pool4 and pool3 before they are scored. By default the paper's for training all at once: without
    norms the finer maps of VGG are large. (1, 1) suits a backbone with batch norm."""
    geometry: Geometry = SAME
    dtype: Precision = "float32"
    """Type to compute in; parameters, scores and logits are float32."""

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w n"]:
        """Map image f32[b h w c] in [-1, 1] to logits f32[b h w n].

        Raises UserError where the geometry leaves part of the image without scores.
        """
        _, height, width, _ = image.shape
        margin, window, padding = self.geometry.margin, self.window, self.geometry.padding
        rows, columns = [(margin, margin + -(side + 2 * margin) % self.geometry.multiple) for side in (height, width)]
        x = jnp.pad(image, ((0, 0), rows, columns, (0, 0)))
        maps = self.backbone.copy(dtype=self.dtype, name="features")(x, train=train)
        if len(maps) != 5:
            raise UserError(f"fcn: the backbone gives {len(maps)} maps: it needs five stages, of strides 2 to 32")

        head = Head(
            self.classes,
            self.hidden,
            (window, window),
            padding,
            first=6,
            dropout=self.dropout,
            score_init=nn.initializers.zeros,
            dtype=self.dtype,
            name="head",
        )
        coarsest = head(maps[4], train=train)
        inside = (window - 1) // 2 if padding == "SAME" else 0
        scores = Scores(coarsest, 32, 15.5 - margin + 32 * ((window - 1) / 2 - inside))

        for number, scale in zip((4, 3), self.skip_scale, strict=True):
            stride = 2**number
            if stride >= self.stride:
                score = nn.Conv(self.classes, (1, 1), kernel_init=nn.initializers.zeros, name=f"score_pool{number}")
                values = score(scale * maps[number - 1].astype(jnp.float32))
                fine = Scores(values, stride, (stride - 1) / 2 - margin)
                scores = fuse(upsample(scores, Deconvolution(2, name=f"upsample_to_pool{number}")), fine)

        scores = upsample(scores, Deconvolution(self.stride, name="upsample"))
        first = -int(scores.origin)
        logits = scores.values[:, max(first, 0) : first + height, max(first, 0) : first + width]
        if logits.shape[1:3] != (height, width) or 0 in coarsest.shape:
            raise UserError(
                f"fcn: {self.geometry} and a window of {window} leave part of a {height} × {width} image without"
                " scores: use a wider margin, a smaller window, or the geometry SAME"
            )
        return logits
