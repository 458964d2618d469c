"""Previews as data, before they are drawn."""

from typing import Any

from flax import struct


@struct.dataclass
class Panels:
    """n rows of m images, in [-1, 1]."""

    images: Any  # f32[n m h w c]
    titles: tuple[str, ...] = struct.field(pytree_node=False, default=())  # one for each of the n rows, or none
    guess: Any = None  # i32[n m]: class ids to write beneath, -1 for none
    truth: Any = None  # i32[n m]: what the guess should have been
    columns: tuple[str, ...] = struct.field(pytree_node=False, default=())  # one for each of the m columns, or none
    frame: Any = None  # f32[n m 3] in [-1, 1]: the colour of a frame around each image
    reach: Any = None  # f32[n m]: of pictures of points, the distance from the middle to the edge


@struct.dataclass
class Curves:
    """Lines of y over x, one for each row of y."""

    x: Any  # f32[n]
    y: Any  # f32[m n]
    labels: tuple[str, ...] = struct.field(pytree_node=False)  # one for each line
    axes: tuple[str, str] = struct.field(pytree_node=False)  # what x and y are


Picture = Panels | Curves
