"""Any TFDS data set by name, read without TensorFlow."""

import dataclasses
import difflib
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.data.decode import read_ids, read_image
from jaxgen.data.fake import FakeCaptions, FakeLabels, FakeMasks
from jaxgen.data.source import Examples, Shape, Source, check_names, checked
from jaxgen.errors import DataNotFound, UserError
from jaxgen.typing import Example


@dataclasses.dataclass(frozen=True)
class Tfds:
    """A data set of the TFDS catalogue (tensorflow.org/datasets), prepared as ArrayRecord.

    Raises UserError when opened if the name, the split or a feature is not there, or if the data are not prepared.
    """

    name: str
    """With its configuration, where it has several: "cityscapes/semantic_segmentation"."""
    split: str = "train"
    """A split or a slice of it: "train[:90%]"."""
    image: str = "image"
    """The feature that holds the image."""
    label: str | None = "label"
    """The feature that holds the class; not read where there is a mask. None for images alone."""
    mask: str | None = None
    """The feature that holds the mask."""
    caption: str | None = None
    """The feature that holds a text: "caption". None for data without."""
    lookup: tuple[int, ...] = ()
    """Position = raw mask id, entry = id; ids beyond its end stay as they are."""
    classes: tuple[str, ...] = ()
    """Names of the ids; empty to take the label's own."""
    data_dir: str | None = None
    """Where the data sets lie; None for $TFDS_DATA_DIR or ~/tensorflow_datasets."""

    def __post_init__(self) -> None:
        check_names(self.classes)

    def open(self) -> Examples:
        builder = _builder(self.name, data_directory(self.data_dir))
        keys = {"image": self.image}
        if self.mask is not None:
            keys["mask"] = self.mask
        elif self.label is not None:
            keys["label"] = self.label
        features = builder.info.features
        for feature in keys.values():
            if feature not in features:
                raise UserError(f"{self.name} has no feature {feature!r}; it has {', '.join(sorted(features))}")
        if self.caption is not None:
            keys["caption"] = _text_feature(self.name, features, self.caption)
        classes = self.classes or tuple(getattr(features[keys["label"]], "names", ()) if "label" in keys else ())
        if not classes and {"label", "mask"} & keys.keys():
            raise UserError(f"{self.name} does not name its classes: pass classes=(…)")
        return checked(records(builder, self.split, keys, classes), self.lookup, f"{self.name}, example {{}}".format)

    def shape(self) -> Shape | None:
        """Return height, width and channels of the images as the catalogue has them; None where it has not all."""
        import tensorflow_datasets as tfds

        try:
            found = tfds.builder(self.name).info.features[self.image].shape
        except ImportError:  # some entries of the catalogue import TensorFlow
            return None
        return found if len(found) == 3 and None not in found else None

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        if self.mask is not None:
            return FakeMasks.of(shape, classes, count)
        if self.caption is not None:
            return FakeCaptions.of(shape, 0 if self.label is None else classes, count)
        return FakeLabels.of(shape, 0 if self.label is None else classes, count)


def data_directory(data_dir: str | None = None) -> str:
    """Return where TFDS keeps its data sets: the argument, else $TFDS_DATA_DIR, else ~/tensorflow_datasets."""
    return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


def records(builder: Any, split: str, keys: Mapping[str, str], classes: tuple[str, ...]) -> Examples:
    """Return a split of a prepared builder; `keys` maps ours ("image", "mask", …) to the builder's features.

    Raises UserError if there is no such split.
    """
    import tensorflow_datasets as tfds

    splits = sorted(builder.info.splits)
    if not {part.split("[")[0].strip() for part in split.split("+")} <= set(splits):
        raise UserError(f"{builder.name} has no split {split!r}; it has {', '.join(splits)}")
    features = builder.info.features
    images = [name for name, feature in features.items() if isinstance(feature, tfds.features.Image)]
    for key in ("image", "mask"):
        if key in keys and keys[key] not in images:
            raise UserError(f"{builder.name}: {keys[key]!r} is not an image; there are {', '.join(images)}")
    source = builder.as_data_source(split, decoders=dict.fromkeys(images, tfds.decode.SkipDecoding()))
    origin = f"{builder.name} ({split})"
    channels = features[keys["image"]].shape[-1] if "image" in keys else None
    return _Records(source, keys, classes, channels or 3, origin)


class _Records:
    """The records of a data source as examples. Images are decoded here: TFDS would need OpenCV."""

    notes: tuple[str, ...] = ()

    def __init__(
        self, source: Sequence[Any], keys: Mapping[str, str], classes: tuple[str, ...], channels: int, origin: str
    ):
        self.classes, self.origin = classes, origin
        self._source, self._keys, self._channels = source, dict(keys), channels

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        record = self._source[index]
        return {key: self._decode(key, record[feature], index) for key, feature in self._keys.items()}

    def _decode(self, key: str, value: Any, index: int) -> np.ndarray:
        if key == "image":
            return read_image(value, self._channels, f"{self.origin}, example {index}")
        if key == "mask":
            return read_ids(value, f"{self.origin}, example {index}")
        if isinstance(value, bytes):
            return np.array(value.decode())
        return np.array(value, np.float32 if key == "boxes" else np.int32)


def _text_feature(name: str, features: Any, wanted: str) -> str:
    """The name of a feature that holds one text. Raises UserError if it is not there, or holds something else."""
    import tensorflow_datasets as tfds

    texts = sorted(key for key, feature in features.items() if isinstance(feature, tfds.features.Text))
    if wanted not in texts:
        found = f"it has {', '.join(texts)}" if texts else "it has none"
        raise UserError(f"{name} has no feature {wanted!r} that is one text; {found}")
    return wanted


def _builder(name: str, data_dir: str) -> Any:
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        near = difflib.get_close_matches(name.split("/")[0], known, n=3, cutoff=0.5)
        raise UserError(f"TFDS has no {name!r}{f'; perhaps {", ".join(near)}' if near else ''}") from error
    except ValueError as error:  # an unknown configuration or version
        known = ", ".join(tfds.builder_cls(re.split("[/:]", name)[0]).builder_configs) or "none"
        raise UserError(f"{name}: {str(error).splitlines()[0]} (configurations: {known})") from error

    elsewhere = "" if data_dir == data_directory() else f" --data_dir={data_dir}"
    command = f"uv run --extra prepare tfds build {name} --file_format=array_record{elsewhere}"
    if not builder.data_path.exists():
        raise DataNotFound(f"{name} is not prepared in {data_dir}; prepare it with: {command}")
    if not {"array_record", "parquet"} & {file_format.value for file_format in builder.info.available_file_formats()}:
        raise UserError(
            f"{name} in {data_dir} needs TensorFlow to be read; prepare it again with: {command} --overwrite"
        )
    return builder
