"""Prepared latents: images that an autoencoder encoded once, so that training need not run it."""

import dataclasses
import pathlib

import numpy as np

from jaxgen.data.fake import FakeLatents
from jaxgen.data.source import Examples, Shape, Source
from jaxgen.errors import DataNotFound, UserError
from jaxgen.typing import Example


@dataclasses.dataclass(frozen=True, kw_only=True)
class Latents:
    """Latents from `FOLDER/SPLIT_latents.npy` (f16 or f32[n h w c]) and `FOLDER/SPLIT_labels.npy` (integers [n]).

    Raises UserError when opened if a file is missing or the two do not fit each other.
    """

    folder: str
    split: str = "train"
    classes: int = 1000
    mean: tuple[float, ...] = ()
    """Subtracted from each channel; () for 0."""
    std: tuple[float, ...] = ()
    """What each channel is divided by afterwards, to have the standard deviation that the net expects; () for 1.
    Samples are decoded after the opposite: multiplied by it, the mean added."""

    def open(self) -> Examples:
        folder = pathlib.Path(self.folder)
        paths = [folder / f"{self.split}_{name}.npy" for name in ("latents", "labels")]
        for path in paths:
            if not path.is_file():
                raise DataNotFound(
                    f"there is no {path}: encode the data set once and save f16[n h w c] latents and integer labels "
                    "by numpy.save, or try the config with --train.source and --test.source replaced by FakeLatents"
                )
        latents, labels = (np.load(path, mmap_mode="r") for path in paths)
        if latents.ndim != 4 or labels.shape != latents.shape[:1]:
            raise UserError(
                f"{paths[0]} holds {latents.shape} and {paths[1]} {labels.shape}; expected [n h w c] and [n]"
            )
        if labels.min() < 0 or labels.max() >= self.classes:
            raise UserError(f"{paths[1]}: labels lie in {labels.min()}..{labels.max()}; expected 0..{self.classes - 1}")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (0, latents.shape[-1]):
                raise UserError(
                    f"Latents.{name} has {len(values)} values; the latents have {latents.shape[-1]} channels"
                )
        return _Latents(self, latents, labels)

    def shape(self) -> Shape:
        """Return the shape of the Stable Diffusion autoencoder's latents of 256x256 pixels."""
        return 32, 32, 4

    def fake(self, shape: Shape, classes: int, count: int) -> Source:
        return FakeLatents.of(shape, classes, count)


class _Latents:
    def __init__(self, source: Latents, latents: np.ndarray, labels: np.ndarray):
        self.classes = tuple(f"class {k}" for k in range(source.classes))
        self._latents, self._labels = latents, labels
        channels = latents.shape[-1]
        self._mean = np.array(source.mean or (0.0,) * channels, np.float32)
        self._std = np.array(source.std or (1.0,) * channels, np.float32)

    def __len__(self) -> int:
        return len(self._latents)

    def __getitem__(self, index: int) -> Example:
        image = (self._latents[index].astype(np.float32) - self._mean) / self._std
        return {"image": image, "label": np.array(self._labels[index], np.int32)}
