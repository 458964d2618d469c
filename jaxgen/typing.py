"""The words that every module speaks: arrays, batches, shapes, and what a user's mistake looks like."""

from collections.abc import Mapping
from typing import Any, Literal

import jax
import numpy as np

Batch = Mapping[
    str, jax.Array
]  # "image" u8|f32[b h w c], "label" i32[b], "mask" u8[b h w], "valid" bool[b], "index" i32[b]
Spec = Mapping[str, jax.ShapeDtypeStruct]  # the shapes and types of a Batch, without its data
Example = dict[str, np.ndarray]  # one element of a Batch, on the host, without the b axis
Tree = Any  # any pytree of arrays

Precision = Literal["float32", "bfloat16"]  # the type that a model computes in; parameters stay float32

IGNORE = 255  # the mask id of a pixel that counts neither in a loss nor in a metric
