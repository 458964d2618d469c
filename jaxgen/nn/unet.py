"""The way through a U-Net (arXiv:1505.04597) of a denoiser: down to the smallest map, and up again with skips."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from jaxtyping import Array, Float

from jaxgen.nn import resample

Map = Float[Array, "b _ _ _"]
Block = Callable[[Map, Float[Array, "b e"], bool], Map]  # (x, embedding, train) -> x


@runtime_checkable
class MakeBlock(Protocol):
    """Make a block with so many channels out; it resamples its input first, and may end in self-attention."""

    def __call__(
        self, features: int, resample: Callable[[Map], Map] = resample.keep, attention: bool = False, *, name: str
    ) -> Block: ...


def walk(
    x: Map,
    embedding: Float[Array, "b e"],
    train: bool,
    *,
    encoder: MakeBlock,
    decoder: MakeBlock,
    join: Callable[[Map, Map], Map],
    widths: list[int],
    blocks: int,
    attention: tuple[int, ...],
    attending: int,
) -> Map:
    """Take a map down, through the middle and up; call it inside a compact method.

    `widths` are the channels at each resolution, full first; each resolution has `blocks` blocks on the way down and
    one more on the way up, where `join` adds the skip. Maps of the heights `attention` get self-attention: after every
    block on the way down, after the last `attending` blocks of a resolution on the way up.
    """
    skips = [x]
    for level, width in enumerate(widths):
        if level:
            x = encoder(x.shape[-1], resample.halve, name=f"down{level}")(x, embedding, train)
            skips.append(x)
        for i in range(blocks):
            x = encoder(width, attention=x.shape[1] in attention, name=f"encode{level}_{i}")(x, embedding, train)
            skips.append(x)
    x = decoder(x.shape[-1], attention=True, name="middle0")(x, embedding, train)
    x = decoder(x.shape[-1], name="middle1")(x, embedding, train)
    for level, width in reversed(list(enumerate(widths))):
        for i in range(blocks + 1):
            attends = i > blocks - attending and x.shape[1] in attention
            x = join(x, skips.pop())
            x = decoder(width, attention=attends, name=f"decode{level}_{i}")(x, embedding, train)
        if level:
            x = decoder(width, resample.double, name=f"up{level}")(x, embedding, train)
    return x
