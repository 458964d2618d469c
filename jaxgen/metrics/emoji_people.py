"""Whether the people that a text-to-image model draws have the tone of skin and the gender that were asked for."""

import dataclasses
from collections.abc import Collection
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from jaxgen.data.emoji import NOBODY, TONES, Emoji
from jaxgen.errors import UserError, check_field
from jaxgen.metrics.outlook import Outlook
from jaxgen.metrics.retrieval import squared
from jaxgen.metrics.view import View, as_shown, finite

NAMES = ("tone", "gender")


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmojiPeopleRead:
    """Shares of samples whose tone of skin, and whose gender, are those of the nearest picture of the same subject.

    A sample for "woman firefighter, dark skin tone" is held against all firefighters with a tone, five tones of up to
    three genders, by mean squared difference of pixels. The test examples must be those of `Emoji(split="held_out")`,
    in their order. `…_shuffled` holds each sample against the subject and the attributes of another caption.
    """

    samples: int = 512
    """Samples to draw, for the test examples in turn; test examples at most."""

    def __post_init__(self) -> None:
        check_field(self, "samples", self.samples >= 2, "at least 2")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError unless samples are square and in colour.
        """
        if len(outlook.shape) != 3 or outlook.shape[0] != outlook.shape[1] or outlook.shape[2] != 3:
            shape = "x".join(map(str, outlook.shape))
            raise UserError(
                f"EmojiPeopleRead compares samples with square pictures in RGB, not with {shape}; remove it"
            )
        return [f"readback_{name}{control}" for name in NAMES for control in ("", "_shuffled")]

    def measure(self, view: View) -> dict[str, Any]:
        """Return the shares by name.

        Raises UserError for samples that are not finite, and for other test examples.
        """
        real = view.rows("test").image
        known = _Known.of(real.shape[1])
        if len(real) != known.asked:
            raise UserError(
                f"EmojiPeopleRead reads the {known.asked} people of Emoji(split='held_out'), and the test data has "
                f"{len(real)} examples; remove it, or test on those"
            )
        n = min(self.samples, known.asked)
        made = as_shown(finite(view.samples(n)).image)
        result: dict[str, Any] = {}
        for control, wanted in (("", np.arange(n)), ("_shuffled", np.roll(np.arange(n), n // 2))):
            right = np.array(
                [known.read(image, i) == known.shows[i] for image, i in zip(made, wanted.tolist(), strict=True)]
            )
            result |= {f"readback_{name}{control}": float(right[:, j].mean()) for j, name in enumerate(NAMES)}
        protocol = {"samples": n, "reader": "the nearest picture of the subject, by mean squared difference of pixels"}
        return result | {"protocol": view.protocol | {"readback": protocol}}


@dataclasses.dataclass(frozen=True)
class _Known:
    """The pictures of people with a tone of skin: those that are asked for first, then those of the train split."""

    image: Float[np.ndarray, "n h w 3"]
    shows: Int[np.ndarray, "n 2"]
    """Tone and gender."""
    subject: np.ndarray
    asked: int

    @classmethod
    def of(cls, size: int) -> "_Known":
        held_out, train = Emoji(split="held_out", size=size), Emoji(split="train", size=size)
        found = [(split, i, shown) for split in (held_out, train) for i, shown in enumerate(split.attributes())]
        found = [(s, i, a) for s, i, a in found if s is held_out or (0 < a.tone < len(TONES) and a.gender != NOBODY)]
        opened = {split: split.open() for split in (held_out, train)}
        image = np.stack([opened[split][i]["image"] for split, i, _ in found])
        return cls(
            image=image / np.float32(127.5) - np.float32(1),
            shows=np.array([(a.tone, a.gender) for _, _, a in found]),
            subject=np.array([a.subject for _, _, a in found]),
            asked=len(opened[held_out]),
        )

    def read(self, image: Float[np.ndarray, "h w 3"], number: Any) -> Int[np.ndarray, "2"]:
        """Return tone and gender of the picture that is nearest, of those of the subject that is asked for."""
        same = np.flatnonzero(self.subject == self.subject[number])
        return self.shows[same[squared(image[None], self.image[same])[0].argmin()]]
