"""Read-back of scenes: whether a picture shows the digits, the colours and the places that its caption names.

After GenEval (arXiv:2310.11513), with the data's own rules in the place of thresholds: a digit is what a segmenter
sees, a colour the nearest of the eight in OKLab, and a relation that of the boxes, as captions are made.
"""

import collections
import dataclasses
import functools
import re
from collections.abc import Collection, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8
from scipy import ndimage

from jaxgen.data import render
from jaxgen.data.scenes import COLOURS, DrawnScenes, Pair, Scenes
from jaxgen.data.tokenizers import captions_of
from jaxgen.errors import UserError, check_field
from jaxgen.metrics.outlook import Outlook, check_net
from jaxgen.metrics.view import View, as_shown, finite

LEAST = 10  # pixels of a digit; fewer are a segmenter's mistake
NOUN = re.compile(rf"\b({'|'.join(COLOURS)}) (\d)\b")
RELATION = re.compile("left of|right of|above|below")
NAMES = ("presence", "colour", "binding", "relation", "exact")

Shares = dict[str, float]


@dataclasses.dataclass(frozen=True)
class Asked:
    """What a caption asks for, from left to right."""

    pairs: tuple[Pair, ...]
    relations: tuple[str, ...]
    """Of each digit to the next one."""


@dataclasses.dataclass(frozen=True)
class Thing:
    """A digit in a picture."""

    pair: Pair
    box: render.Box


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScenesRead:
    """Shares of what captions of `Scenes` and `DrawnScenes` ask for that a segmenter finds in the samples.

    `scenes_presence` counts digits, `scenes_colour` colours, `scenes_binding` digits in their own colour,
    `scenes_relation` relations between digits that are there in their colours, `scenes_exact` pictures in which all of
    it is right and nothing else is there. `…_real` is what the segmenter finds in the true pictures, its own limit;
    `…_shuffled` holds each sample against another's caption. `scenes_binding_held_out` counts the pairs that `truth`
    keeps from training alone. The test examples must be those of `truth`, in their order.
    """

    net: nn.Module
    """A segmenter of scenes, such as that of configs/segmentation/scenes_fcn8s.py."""
    weights: Any
    """Its weights: FromRun("runs/scenes_fcn8s"), or Safetensors(FILE)."""
    truth: Scenes | DrawnScenes = Scenes(split="test")
    samples: int = 256
    """Samples to draw, for the test examples in turn; test examples at most."""

    def __post_init__(self) -> None:
        check_field(self, "samples", self.samples >= 2, "at least 2")
        check_field(self, "weights", hasattr(self.weights, "read"), "FromRun(FOLDER) or Safetensors(FILE)")

    def check(self, outlook: Outlook) -> Collection[str]:
        """Return the names of the numbers.

        Raises UserError unless samples are pictures that the segmenter reads.
        """
        check_net(functools.partial(_shapes, self.net), outlook, "ScenesRead")
        held_out = ["scenes_binding_held_out"] if self.truth.without else []
        return [f"scenes_{name}{control}" for name in NAMES for control in ("", "_real", "_shuffled")] + held_out

    def measure(self, view: View) -> dict[str, Any]:
        """Return the shares by name.

        Raises UserError for samples that are not finite, and for other test examples.
        """
        asked = [parsed(caption) for caption in captions_of(self.truth)]
        real = view.rows("test").image
        if len(real) != len(asked):
            raise UserError(
                f"ScenesRead reads the {len(asked):,} scenes of {self.truth}, and the test data has {len(real):,}; set "
                "metrics' `truth` to the test data's source, or remove it"
            )
        n = min(self.samples, len(asked))
        made, known = (self._read(view, image) for image in (finite(view.samples(n)).image, real[:n]))
        asked = asked[:n]
        result: dict[str, Any] = {f"scenes_{name}": value for name, value in shares(asked, made).items()}
        result |= {f"scenes_{name}_real": value for name, value in shares(asked, known).items()}
        others = asked[n // 2 :] + asked[: n // 2]
        result |= {f"scenes_{name}_shuffled": value for name, value in shares(others, made).items()}
        if self.truth.without:
            result["scenes_binding_held_out"] = bound(asked, made, self.truth.without)
        protocol = {"samples": n, "segmenter": f"{type(self.net).__name__}, {self.weights}"}
        return result | {"protocol": view.protocol | {"read_back": protocol}}

    def _read(self, view: View, image: Float32[np.ndarray, "n h w c"]) -> list[tuple[Thing, ...]]:
        """The things that the segmenter sees in each picture."""
        blank = jax.ShapeDtypeStruct((1, *image.shape[1:]), jnp.float32)
        shapes = jax.eval_shape(lambda x: self.net.init(jax.random.key(0), x, train=False), blank)
        variables = self.weights.read(shapes)

        def ids(x: Float[Array, "b h w c"]) -> Float[Array, "b h w"]:
            logits: Any = self.net.apply(variables, x, train=False)
            return logits.argmax(-1).astype(jnp.float32)

        shown = as_shown(image)
        masks = view.map(ids, shown).astype(np.uint8)
        pixels = np.round((shown + 1) * 127.5).astype(np.uint8)
        return [things(mask, picture) for mask, picture in zip(masks, pixels, strict=True)]


def parsed(caption: str) -> Asked:
    """Return what a caption of `Scenes` asks for. Raises UserError for a caption of another form."""
    pairs = tuple((colour, int(digit)) for colour, digit in NOUN.findall(caption))
    relations = tuple(RELATION.findall(caption))
    if not pairs or len(relations) != len(pairs) - 1:
        raise UserError(f"{caption!r} is no caption of scenes: colours and digits, and a relation between each two")
    return Asked(pairs, relations)


def things(mask: UInt8[np.ndarray, "h w"], image: UInt8[np.ndarray, "h w 3"]) -> tuple[Thing, ...]:
    """Return the digits of a mask (0 = background, d + 1 = digit d), each with the colour that it has in the image.

    What touches, or lies nearer than two digits ever do, is one; its digit is that of most of its pixels.
    """
    near = ndimage.binary_dilation(mask > 0, np.ones((render.MARGIN, render.MARGIN)))
    parts, count = ndimage.label(near, np.ones((3, 3)))
    found = []
    for k in range(1, count + 1):
        inside = (parts == k) & (mask > 0)
        if inside.sum() < LEAST:
            continue
        digit = int(np.bincount(mask[inside])[1:].argmax())
        colour = np.median(render.oklab(image[inside].astype(float)), axis=0)
        name = COLOURS[int(np.linalg.norm(render.tones()[0] - colour, axis=1).argmin())]
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
        found.append(Thing((name, digit), box))
    return tuple(found)


def shares(asked: Sequence[Asked], found: Sequence[tuple[Thing, ...]]) -> Shares:
    """Return the share of what was asked for that was found, by name; see `ScenesRead`.

    A relation counts where both its digits are there in their colours, and each once; NaN where none does.
    """
    right: dict[str, list[bool | float]] = {name: [] for name in NAMES}
    for want, there in zip(asked, found, strict=True):
        pairs = [thing.pair for thing in there]
        for name, part in (("presence", 1), ("colour", 0)):
            right[name] += _among([pair[part] for pair in want.pairs], [pair[part] for pair in pairs])
        right["binding"] += _among(want.pairs, pairs)
        boxes = {thing.pair: thing.box for thing in there if pairs.count(thing.pair) == 1}
        placed = [
            render.relation(boxes[a], boxes[b]) == said
            for a, b, said in zip(want.pairs, want.pairs[1:], want.relations, strict=False)
            if a in boxes and b in boxes
        ]
        right["relation"] += placed
        right["exact"].append(sorted(pairs) == sorted(want.pairs) and len(placed) == sum(placed) >= _clear(want))
    return {name: float(np.mean(values)) if values else float("nan") for name, values in right.items()}


def bound(asked: Sequence[Asked], found: Sequence[tuple[Thing, ...]], pairs: Collection[Pair]) -> float:
    """Return the share of these pairs, where they are asked for, that is found; NaN where none is asked for."""
    right: list[bool] = []
    for want, there in zip(asked, found, strict=True):
        hits = _among(want.pairs, [thing.pair for thing in there])
        right += [hit for pair, hit in zip(want.pairs, hits, strict=True) if pair in pairs]
    return float(np.mean(right)) if right else float("nan")


def _among(asked: Sequence[Any], there: Sequence[Any]) -> list[bool]:
    """Whether each thing that is asked for is there; one that is there answers for one only."""
    left = collections.Counter(there)
    hits = []
    for thing in asked:
        hits.append(left[thing] > 0)
        left[thing] -= 1
    return hits


def _clear(want: Asked) -> int:
    """How many relations are between digits that the caption names once, so that it is clear which are meant."""
    once = {pair for pair in want.pairs if want.pairs.count(pair) == 1}
    return sum(a in once and b in once for a, b in zip(want.pairs, want.pairs[1:], strict=False))


def _shapes(net: nn.Module, image: Float[Array, "b h w c"]) -> Int[Array, "b h w"]:
    logits: Any = net.init_with_output(jax.random.key(0), image, train=False)[0]
    return logits.argmax(-1)
