"""TFDS by name, without TensorFlow: tiny data sets with the features of the real ones, prepared on disk."""

import io
import pathlib
import sys
from typing import Any

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.dataset_metadata import DatasetMetadata

from jaxgen.data import cityscapes
from jaxgen.data.tfds import Tfds
from jaxgen.errors import UserError
from jaxgen.typing import IGNORE

CIFAR10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def encoded(array: np.ndarray, kind: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def prepare(
    folder: pathlib.Path, full_name: str, examples: list[dict[str, Any]], file_format: str = "array_record"
) -> None:
    """Write a data set in the form that TFDS gives the real one of this name."""
    real = tfds.builder(full_name, data_dir=folder)

    class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = real.name
        VERSION = real.version
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=real.builder_config.name)] if real.builder_config else []
        url_infos = None

        @classmethod
        def get_metadata(cls) -> DatasetMetadata:
            return DatasetMetadata(description="", citation="", tags=[])

        def _info(self) -> tfds.core.DatasetInfo:
            return self.dataset_info_from_configs(features=real.info.features, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            if self.name == "cifar10":  # learns its names from what it downloads
                self.info.features["label"].names = CIFAR10
            return {"train": self._generate_examples(examples), "test": self._generate_examples(examples[:1])}

        def _generate_examples(self, examples: list[dict[str, Any]]):
            yield from enumerate(examples)

    tfds.disable_progress_bar()
    Tiny(data_dir=folder, file_format=file_format).download_and_prepare()


def random_image(seed: int, height: int, width: int, *channels: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)


def test_labels_by_name(tmp_path: pathlib.Path) -> None:
    images = [random_image(i, 32, 32, 3) for i in range(5)]
    prepare(tmp_path, "cifar10", [{"id": f"{i}", "image": encoded(x), "label": i} for i, x in enumerate(images)])
    examples = Tfds("cifar10", split="train", data_dir=str(tmp_path)).open()
    assert examples.classes == tuple(CIFAR10)
    assert len(examples) == 5
    for i, image in enumerate(images):
        assert np.array_equal(examples[i]["image"], image)
        assert examples[i]["label"] == i
        assert examples[i]["label"].dtype == np.int32
    assert len(Tfds("cifar10", split="train[:40%]", data_dir=str(tmp_path)).open()) == 2
    assert len(Tfds("cifar10", split="train+test", data_dir=str(tmp_path)).open()) == 6
    assert set(Tfds("cifar10", label=None, data_dir=str(tmp_path)).open()[0]) == {"image"}
    assert "tensorflow" not in sys.modules


def test_masks_by_name_with_a_lookup(tmp_path: pathlib.Path) -> None:
    sizes = [(20, 30), (25, 17)]
    masks = [np.random.default_rng(i).integers(1, 4, size).astype(np.uint8) for i, size in enumerate(sizes)]
    examples = [
        {
            "image": encoded(random_image(i, *mask.shape, 3), "JPEG"),
            "label": 0,
            "species": 0,
            "file_name": "a",
            "segmentation_mask": encoded(mask),
            "head_bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0),
        }
        for i, mask in enumerate(masks)
    ]
    prepare(tmp_path, "oxford_iiit_pet", examples)
    source = Tfds("oxford_iiit_pet", mask="segmentation_mask", data_dir=str(tmp_path))
    with pytest.raises(UserError, match="does not name its classes"):
        source.open()
    classes = ("pet", "background", "border")
    with pytest.raises(UserError, match=r"oxford_iiit_pet, example 0: found ids \{1, 2, 3\}; expected 0..2"):
        Tfds("oxford_iiit_pet", mask="segmentation_mask", classes=classes, data_dir=str(tmp_path)).open()
    lookup = (255, 0, 1, 2)
    pets = Tfds(
        "oxford_iiit_pet", mask="segmentation_mask", classes=classes, lookup=lookup, data_dir=str(tmp_path)
    ).open()
    for i, mask in enumerate(masks):
        assert set(pets[i]) == {"image", "mask"}
        assert np.array_equal(pets[i]["mask"], mask - 1)
        assert pets[i]["image"].shape == (*mask.shape, 3)


def test_cityscapes_ids_become_train_ids(tmp_path: pathlib.Path) -> None:
    raw = np.arange(34, dtype=np.uint8).repeat(1024 * 2048 // 34 + 1)[: 1024 * 2048].reshape(1024, 2048)
    example = {
        "image_id": "a",
        "image_left": encoded(np.zeros((1024, 2048, 3), np.uint8)),
        "segmentation_label": encoded(raw),
    }
    prepare(tmp_path, "cityscapes/semantic_segmentation", [example])
    examples = Tfds(
        "cityscapes/semantic_segmentation",
        image="image_left",
        mask="segmentation_label",
        lookup=cityscapes.TRAIN_IDS,
        classes=cityscapes.CLASSES,
        data_dir=str(tmp_path),
    ).open()
    mapped = examples[0]["mask"]
    assert set(np.unique(mapped)) == {*range(19), IGNORE}
    names = {
        7: "road",
        11: "building",
        24: "person",
        26: "car",
        33: "bicycle",
    }  # raw ids, as the data set's authors list them
    for label_id, name in names.items():
        assert {examples.classes[k] for k in np.unique(mapped[raw == label_id])} == {name}
    assert (mapped[raw == 0] == IGNORE).all()


def test_what_is_not_prepared_says_how_to_prepare_it(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    command = "uv run --extra prepare tfds build cifar10 --file_format=array_record"
    with pytest.raises(UserError, match=rf"cifar10 is not prepared in {tmp_path}; .*: {command}$"):
        Tfds("cifar10").open()
    with pytest.raises(UserError, match="tfds build cityscapes/semantic_segmentation --file"):
        Tfds("cityscapes/semantic_segmentation").open()
    with pytest.raises(UserError, match=rf"--data_dir={tmp_path}/x$"):
        Tfds("cifar10", data_dir=f"{tmp_path}/x").open()


def test_data_that_only_tensorflow_reads_says_so(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, "cifar10", [{"id": "a", "image": encoded(random_image(0, 32, 32, 3)), "label": 1}])
    info = tmp_path / "cifar10" / "3.0.2" / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=r"needs TensorFlow to be read; .*--file_format=array_record.*--overwrite"):
        Tfds("cifar10", data_dir=str(tmp_path)).open()


def test_wrong_names_are_answered_with_right_ones(tmp_path: pathlib.Path) -> None:
    prepare(tmp_path, "cifar10", [{"id": "a", "image": encoded(random_image(0, 32, 32, 3)), "label": 1}])
    place = {"data_dir": str(tmp_path)}
    with pytest.raises(UserError, match="TFDS has no 'cifar11'; perhaps cifar10"):
        Tfds("cifar11", **place).open()
    with pytest.raises(UserError, match="configurations: semantic_segmentation, "):
        Tfds("cityscapes/semantic", **place).open()
    with pytest.raises(UserError, match="cifar10 has no split 'valid'; it has test, train"):
        Tfds("cifar10", split="valid", **place).open()
    with pytest.raises(UserError, match="cifar10 has no feature 'picture'; it has id, image, label"):
        Tfds("cifar10", image="picture", **place).open()
    with pytest.raises(UserError, match="'id' is not an image; there are image"):
        Tfds("cifar10", mask="id", classes=("a",), **place).open()
