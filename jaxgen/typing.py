"""The words that every module uses: arrays, batches, conditions and shapes."""

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

# What a net is asked for, by name; {} for nothing. A net, and so guidance and solvers, take "label" as weights over the
# classes and a last, null column, f32[b n+1]. Objectives and commands take each array as it lies in a batch.
Condition = Mapping[str, jax.Array]

Precision = Literal["float32", "bfloat16"]  # the type that a model computes in; parameters stay float32

IGNORE = 255  # the mask id of a pixel that counts neither in a loss nor in a metric
