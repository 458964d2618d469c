"""How many of the thousand modes of stacked digits a generator reaches, and how evenly."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Float32, Int

from jaxgen.data.stacked import MODES, StackedDigits
from jaxgen.errors import UserError
from jaxgen.features.digits_cnn import SHAPE, DigitsCnn
from jaxgen.metrics import fidelity
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.view import View, as_shown, finite


@dataclasses.dataclass(frozen=True, kw_only=True)
class StackedModes:
    """Mode coverage of `StackedDigits` by PacGAN's protocol (arXiv:1712.04086, section 4.2).

    The classifier of `DigitsCnn` reads each channel: `modes`, of 1,000, that a sample is read as, and `kl` of the
    modes' shares to the uniform distribution in nats, whose expectation for a perfect generator is `kl_floor`.
    `modes_real` and `kl_real` are the same for as many triples of the train split; all include the classifier's
    errors.
    """

    samples: int = 26_000
    seed: int = 1
    """Of the real triples; another than the data's, so that they are no copies of it."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise UserError(f"StackedModes.samples is {self.samples}; it must be at least 1")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError for samples that are not 8 × 8 pictures of three channels.
        """
        _check_shape(outlook.shape)
        return ["modes", "kl"]

    def measure(self, view: View) -> dict[str, Any]:
        """Return the numbers by name.

        Raises UserError for samples that are not 8 × 8 pictures of three channels, or not finite.
        """
        image = finite(view.samples(self.samples)).image
        _check_shape(image.shape[1:])
        source = StackedDigits(split="train", size=len(image), seed=self.seed).open()
        data = np.stack([source[i]["image"] for i in range(len(source))])
        fake, real = _counts(view, image), _counts(view, data.astype(np.float32) / np.float32(127.5) - np.float32(1))
        return {
            "modes": int((fake > 0).sum()),
            "modes_real": int((real > 0).sum()),
            "kl": fidelity.kl_to_uniform(fake),
            "kl_real": fidelity.kl_to_uniform(real),
            "kl_floor": fidelity.kl_baseline(fake),
            "protocol": view.protocol
            | {"triples": {"samples": len(image), "of": MODES, "classifier": DigitsCnn().name, "real_seed": self.seed}},
        }


def _check_shape(shape: tuple[int, ...]) -> None:
    if shape != (*SHAPE[:2], 3):
        text = "x".join(map(str, shape))
        raise UserError(f"StackedModes reads pictures of 8x8x3, not {text}; remove it, or learn StackedDigits")


def _counts(view: View, image: Float32[np.ndarray, "n 8 8 3"]) -> Int[np.ndarray, " k"]:
    """Return how many pictures the classifier reads as each of the modes."""
    channels = np.moveaxis(as_shown(image), -1, 1).reshape(-1, *SHAPE)
    read = view.map(DigitsCnn().classifier(), channels).argmax(-1).reshape(-1, 3)
    return np.bincount(read @ [100, 10, 1], minlength=MODES)
