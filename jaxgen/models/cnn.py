"""A small classifier, stages of convolutions and pools and then dense layers, and the parts it shares with others."""

import functools
from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.resize import max_pool_2x2
from jaxgen.typing import Precision

Padding = Literal["SAME", "VALID"]  # a convolution keeps the side, a pool rounds it up; or neither sees added pixels


def max_pool(x: Float[Array, "b h w c"], padding: Padding) -> Float[Array, "b h2 w2 c"]:
    """Take the maximum of each 2 × 2 block; SAME keeps an odd side's last row or column, VALID drops it."""
    h, w = x.shape[1:3]
    if padding == "SAME":
        x = jnp.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=-jnp.inf)
    else:
        x = x[:, : h - h % 2, : w - w % 2]
    return max_pool_2x2(x)


class SmallBackbone(nn.Module):
    """Stages of 3 × 3 convolutions with batch norm, each halving the side: cheap enough to train on a CPU."""

    widths: tuple[int, ...] = (32, 64, 128, 128, 128)
    """Channels of each stage; stage i has stride 2^i."""
    depths: tuple[int, ...] = (1, 1, 2, 1, 1)
    """Convolutions in each stage."""
    padding: Padding = "SAME"
    """Of convolutions and pools."""
    dtype: Precision = "float32"
    """Type to compute in."""
    remat: bool = False
    """Compute each stage again in the backward pass instead of keeping what lies inside it."""

    @nn.compact
    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]:
        """Map image f32[b h w c] in [-1, 1] to the output of every stage, finest first."""

        def stage(self: nn.Module, x: Array, number: int, width: int, depth: int) -> Array:
            for i in range(1, depth + 1):
                conv = nn.Conv(
                    width, (3, 3), padding=self.padding, use_bias=False, dtype=self.dtype, name=f"conv{number}_{i}"
                )
                x = conv(x)
                # Pooled first: the norm and the activation then touch a quarter of the pixels.
                x = max_pool(x, self.padding) if i == depth else x
                norm = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-5, dtype=self.dtype, name=f"norm{number}_{i}")
                x = nn.relu(norm(x))
            return x

        run = nn.remat(stage, static_argnums=(2, 3, 4)) if self.remat else stage
        x, maps = image.astype(self.dtype), []
        for number, (width, depth) in enumerate(zip(self.widths, self.depths, strict=True), start=1):
            x = run(self, x, number, width, depth)
            maps.append(x)
        return tuple(maps)


class Head(nn.Module):
    """Dense layers with ReLU and dropout after all but the last, on the whole map or on each window of it.

    Layers are named fc{first}, fc{first + 1}, … and, last, `score`.
    """

    classes: int
    hidden: tuple[int, ...] = ()
    """Widths of the layers before the last."""
    window: tuple[int, int] | None = None
    """Rows and columns that the first layer sees as it slides over the map, giving a map of logits: layers are
    convolutions. None: it sees the whole map, flattened, and gives one vector of logits."""
    padding: Padding = "VALID"
    """Of the sliding window."""
    first: int = 1
    dropout: float = 0.0
    score_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Precision = "float32"

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b n"] | Float[Array, "b h2 w2 n"]:
        if self.window is None:
            x, first, later = x.reshape(x.shape[0], -1), nn.Dense, nn.Dense
        else:
            first = functools.partial(nn.Conv, kernel_size=self.window, padding=self.padding)
            later = functools.partial(nn.Conv, kernel_size=(1, 1))
        layers = [first, *[later] * len(self.hidden)]
        for number, (width, layer) in enumerate(zip(self.hidden, layers[:-1], strict=True), start=self.first):
            x = nn.relu(layer(width, kernel_init=nn.initializers.he_normal(), dtype=self.dtype, name=f"fc{number}")(x))
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        # Logits are float32 whatever the rest is: they are few, and sums of many terms.
        return layers[-1](self.classes, kernel_init=self.score_init, name="score")(x.astype(jnp.float32))


class Cnn(nn.Module):
    """Classify small pictures: a SmallBackbone, then dense layers over its last map."""

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
    """None: logits [b n] for the whole picture. (rows, columns): logits [b h w n], one for each window of the last
    map, from dense layers that `convolutionalize` turned into convolutions."""
    padding: Padding = "SAME"
    """Of convolutions and pools."""
    dtype: Precision = "float32"
    """Type to compute in; parameters and logits are float32."""
    remat: bool = False
    """Compute each stage again in the backward pass instead of keeping what lies inside it."""

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
