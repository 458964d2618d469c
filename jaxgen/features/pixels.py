"""The samples themselves as features: for points, and for small images as a comparison that needs no net."""

import dataclasses
from collections.abc import Callable

from jaxtyping import Array, Float

from jaxgen.features.net import Features


@dataclasses.dataclass(frozen=True)
class Pixels(Features):
    """Each sample flattened; points f32[b d] stay as they are."""

    @property
    def name(self) -> str:
        return "pixels"

    def extractor(self) -> Callable[[Float[Array, " b *s"]], Float[Array, "b d"]]:
        return _flat


def _flat(images: Float[Array, " b *s"]) -> Float[Array, "b d"]:
    return images.reshape(images.shape[0], -1)
