"""The embedded data sets as TFDS builders, written and read without TensorFlow.

What keeps TensorFlow out: images are passed as PNG bytes (TFDS encodes arrays with TensorFlow), files are ArrayRecord,
and metadata and checksums are not read from files next to the module. A change of what a builder writes needs a new
VERSION: a prepared data set is never prepared again.
"""

import contextlib
import io
import sys
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.dataset_metadata import DatasetMetadata

from jaxgen.data import corpus, render, render_emoji
from jaxgen.data.tfds import data_directory
from jaxgen.errors import UserError
from jaxgen.progress import Line

DIGITS = tuple(str(digit) for digit in range(10))
SIZES = {"train": 6000, "test": 1000}  # scenes


def prepared(builder: type[tfds.core.GeneratorBasedBuilder]) -> tfds.core.GeneratorBasedBuilder:
    """Return the builder with its data on disk, which the first call writes.

    Data are written to a temporary folder and moved into place at once: of processes that start together, each writes,
    the first to finish moves, and the others use its data. Raises UserError if the place cannot be written.
    """
    directory = data_directory()
    ready = builder(data_dir=directory, file_format="array_record")
    if not ready.data_path.exists():
        print(f"preparing {builder.name} in {ready.data_path} (once)", file=sys.stderr)
        tfds.disable_progress_bar()
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # standard output may be for JSON alone
                ready.download_and_prepare()
        except OSError as error:
            if not ready.data_path.exists():  # another process may have been faster
                raise UserError(f"cannot write {directory} ({error}); set TFDS_DATA_DIR to another folder") from error
    return builder(data_dir=directory, file_format="array_record")


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What the builders share."""

    url_infos = None  # nothing is downloaded

    @classmethod
    def get_metadata(cls) -> DatasetMetadata:
        return DatasetMetadata(description=cls.__doc__ or "", citation="", tags=[])


class DigitsBuilder(_Builder):
    """8x8 grey scans of handwritten digits: `image` u8[8 8 1], `label` 0..9."""

    name = "digits"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        image = tfds.features.Image(shape=(8, 8, 1), encoding_format="png")
        label = tfds.features.ClassLabel(names=DIGITS)
        features = tfds.features.FeaturesDict({"image": image, "label": label})
        return self.dataset_info_from_configs(features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, (scan, digit) in enumerate(zip(*render.digits(split), strict=True)):
            yield i, {"image": png(Image.fromarray(scan)), "label": int(digit)}


class ScenesBuilder(_Builder):
    """64x64 scenes: `image`, `mask` (0 = background, d + 1 = digit d), `boxes`, `labels` and `caption`, see `Scene`."""

    name = "scenes"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        side = render.SIDE
        features = {
            "image": tfds.features.Image(shape=(side, side, 3), encoding_format="png"),
            "mask": tfds.features.Image(shape=(side, side, 1), encoding_format="png"),
            "boxes": tfds.features.Tensor(shape=(None, 4), dtype=np.float32),
            "labels": tfds.features.Tensor(shape=(None,), dtype=np.int32),
            "caption": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        return {split: self._generate_examples(split) for split in SIZES}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        with Line(sys.stderr) as line:
            for i, scene in enumerate(render.scenes(split, SIZES[split])):
                line.hear(f"scenes, {split}", i, SIZES[split])
                images = {"image": png(scene.image), "mask": png(scene.mask)}
                yield i, images | {"boxes": scene.boxes, "labels": scene.labels, "caption": scene.caption}


class EmojiBuilder(_Builder):
    """Emoji at 128x128 with alpha: `image`, `emoji`, `subject`, `tone`, `gender`, and `caption_en` … (14 languages)."""

    name = "emoji"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        side = render_emoji.SIDE
        features = {
            "image": tfds.features.Image(shape=(side, side, 4), encoding_format="png"),
            "emoji": tfds.features.Text(),
            "subject": tfds.features.Text(),
            "tone": tfds.features.Tensor(shape=(), dtype=np.int32),
            "gender": tfds.features.Tensor(shape=(), dtype=np.int32),
        } | {f"caption_{language}": tfds.features.Text() for language in render_emoji.LANGUAGES}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        known, drawn = render_emoji.known(), {}
        with Line(sys.stderr) as line:
            for i, text in enumerate(known):
                line.hear("emoji", i, len(known))
                image = render_emoji.draw(text, render_emoji.SIDE)
                if image is not None:
                    drawn[text] = png(image)
        shares = render_emoji.splits(drawn)
        return {split: self._generate_examples(texts, drawn) for split, texts in shares.items()}

    def _generate_examples(self, texts: list[str], drawn: dict[str, bytes]) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, text in enumerate(texts):
            meant = render_emoji.meaning(text)
            names = {f"caption_{language}": render_emoji.caption(text, language) for language in render_emoji.LANGUAGES}
            what = {"subject": meant.subject, "tone": meant.tone, "gender": meant.gender}
            yield i, {"image": drawn[text], "emoji": text} | what | names


class ChoralesBuilder(_Builder):
    """Four-part chorales by sixteenths: `pitch` and `onset` i32[t 4], and `bars` i32[n], see `music_xml.Score`."""

    name = "chorales"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        columns = {"pitch": (None, 4), "onset": (None, 4), "bars": (None,)}
        features = {name: tfds.features.Tensor(shape=shape, dtype=np.int32) for name, shape in columns.items()}
        features |= {"name": tfds.features.Text()}
        return self.dataset_info_from_configs(features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator[tuple[int, dict[str, Any]]]]:
        scores = corpus.scores()
        shares = corpus.splits(scores)
        return {split: self._generate_examples(names, scores) for split, names in shares.items()}

    def _generate_examples(
        self, names: list[str], scores: dict[str, corpus.Score]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for i, name in enumerate(names):
            score = scores[name]
            yield i, {"name": name, "pitch": score.pitch, "onset": score.onset.astype(np.int32), "bars": score.bars}


def png(image: Image.Image) -> bytes:
    """Encode losslessly: run lengths alone take half the time of the default settings, and no more space."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return buffer.getvalue()
