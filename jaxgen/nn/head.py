"""Dense layers that end a classifier, or, as convolutions, a fully convolutional net."""

import functools

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxgen.nn.resize import Padding
from jaxgen.typing import Precision


class Head(nn.Module):
    """Dense layers with ReLU and dropout after all but the last, on the whole map or on each window of it.

    Layers are named fc{first}, fc{first + 1}, … and, last, `score`.
    """

    classes: int
    hidden: tuple[int, ...] = ()
    """Widths of the layers before the last."""
    window: tuple[int, int] | None = None
    """Rows and columns that the first layer covers as it slides over the map, giving a map of logits: layers are
    convolutions. None: it takes the whole map, flattened, and gives one vector of logits."""
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
        # Logits are float32 for every `dtype`: they are few, and sums of many terms.
        return layers[-1](self.classes, kernel_init=self.score_init, name="score")(x.astype(jnp.float32))
