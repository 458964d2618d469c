"""Where samples go as they are drawn: a sheet, an .npz, a folder of pictures; none of them holds all samples."""

import contextlib
import csv
import json
import pathlib
import re
import unicodedata
import zipfile
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from jaxgen.data.source import Portrayed
from jaxgen.errors import UserError
from jaxgen.pictures import sheet

BROKEN = 8  # numbers of samples that are not finite to name
SLUG = 100  # most bytes of a prompt in the name of a file


class Samples(Protocol):
    """What takes samples f32[b *s] and their class ids i32[b], batch by batch in order."""

    def add(self, samples: np.ndarray, labels: np.ndarray | None) -> None: ...

    def close(self) -> None:
        """Write what is left to write."""
        ...

    def drop(self) -> None:
        """Remove what is only half a file, where sampling was left before `close`."""
        ...


class Sheet:
    """One picture of the first samples with their prompts below, where there are any, or of all points."""

    def __init__(
        self,
        path: pathlib.Path,
        shown: int,
        classes: Sequence[str],
        columns: int | None,
        alpha: bool,
        own: Portrayed | None,
        prompts: Sequence[str] = (),
    ) -> None:
        self._path, self._shown, self._classes, self._columns = path, shown, classes, columns
        self._alpha, self._own = alpha, own
        self._prompts = prompts[:shown]
        self._samples: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def add(self, samples: np.ndarray, labels: np.ndarray | None) -> None:
        room = self._shown - sum(map(len, self._samples)) if samples.ndim == 4 else len(samples)
        if room > 0:
            self._samples.append(picture(samples[:room], self._alpha, self._own))
            self._labels += [] if labels is None else [labels[:room]]

    def close(self) -> None:
        images = np.concatenate(self._samples)
        labels = np.concatenate(self._labels) if self._labels else None
        sheet.save(self._path, sheet.samples(images, labels, self._classes, self._columns, self._prompts))

    def drop(self) -> None:
        """Nothing is half a file."""


class Npz:
    """The values of all samples, `samples` f32[n *s] in the data's units, with `labels` i32[n] and `prompts` str[n]
    where there are any."""

    def __init__(self, path: pathlib.Path, count: int, shape: tuple[int, ...], prompts: Sequence[str] = ()) -> None:
        self._prompts = prompts
        self._path, self._part = path, path.with_name(path.name + ".part")  # never half a file under its name
        self._labels: list[np.ndarray] = []
        self._archive = zipfile.ZipFile(self._part, "w", allowZip64=True)
        self._file = self._archive.open("samples.npy", "w", force_zip64=True)
        header = {"descr": "<f4", "fortran_order": False, "shape": (count, *shape)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def add(self, samples: np.ndarray, labels: np.ndarray | None) -> None:
        self._file.write(np.ascontiguousarray(samples, "<f4").tobytes())
        self._labels += [] if labels is None else [labels]

    def close(self) -> None:
        self._file.close()
        more = {"labels": np.concatenate(self._labels).astype(np.int32)} if self._labels else {}
        more |= {"prompts": np.asarray(self._prompts)} if self._prompts else {}
        for name, values in more.items():
            with self._archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, values)
        self._archive.close()
        self._part.replace(self._path)

    def drop(self) -> None:
        with contextlib.suppress(OSError):  # of a disk that is full, which is why it is dropped
            self._file.close()
            self._archive.close()
        self._part.unlink(missing_ok=True)


class Folder:
    """A PNG for each sample, 000000.png and so on, and labels.csv where there are classes.

    Beside it lie the files that data which are no pictures make of a sample, such as 000000.mid. Where there are
    prompts each is in the name of its file, and `metadata.jsonl` has them as `Captioned` data do.
    """

    def __init__(
        self,
        path: pathlib.Path,
        count: int,
        classes: Sequence[str],
        alpha: bool,
        own: Portrayed | None,
        prompts: Sequence[str] = (),
    ) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self._path, self._classes, self._alpha, self._own, self._prompts = path, classes, alpha, own, prompts
        self._writers = {} if own is None else own.writers()
        self._digits = max(6, len(str(count - 1)))
        self._names: list[str] = []
        self._labels: list[int] = []

    def add(self, samples: np.ndarray, labels: np.ndarray | None) -> None:
        drawn = own_channels(samples, self._alpha) if self._own is None else self._own.picture(samples)
        for i, pixels in enumerate(drawn):
            number = len(self._names)
            words = slug(self._prompts[number]) if self._prompts else ""
            name = f"{number:0{self._digits}}{'_' if words else ''}{words}.png"
            sheet.save(self._path / name, pixels)
            for suffix, written in self._writers.items():
                (self._path / name).with_suffix(suffix).write_bytes(written(samples[i]))
            self._names.append(name)
            self._labels += [] if labels is None else [int(labels[i])]

    def close(self) -> None:
        if self._labels:
            with (self._path / "labels.csv").open("w", newline="", encoding="utf-8") as file:
                writer = csv.writer(file)
                writer.writerow(("file", "label", "class"))
                rows = zip(self._names, self._labels, strict=True)
                writer.writerows((name, label, self._classes[label]) for name, label in rows)
        if self._prompts:
            rows = [{"file_name": name, "text": text} for name, text in zip(self._names, self._prompts, strict=True)]
            lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
            (self._path / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")

    def drop(self) -> None:
        """Each file is whole."""


def slug(text: str) -> str:
    """Return the words of a text with hyphens between them, as many as fit into the name of a file."""
    words = re.findall(r"\w+", unicodedata.normalize("NFC", text).lower())
    return "-".join(words).encode()[:SLUG].decode(errors="ignore").strip("-")


class Broken:
    """Counts samples that hold a value that is not finite, which a picture cannot show."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self._seen = 0

    def add(self, samples: np.ndarray, labels: np.ndarray | None) -> None:
        del labels
        bad = ~np.isfinite(samples.reshape(len(samples), -1)).all(1)
        self.numbers += (self._seen + np.flatnonzero(bad)).tolist()
        self._seen += len(samples)

    def close(self) -> None:
        """Nothing is left to do."""

    def drop(self) -> None:
        """There is no file."""

    def line(self) -> str:
        """Say which samples are not finite, in one line."""
        few = ", ".join(map(str, self.numbers[:BROKEN])) + (", …" if len(self.numbers) > BROKEN else "")
        return (
            f"warning: {len(self.numbers)} of {self._seen} samples are not finite (numbers {few}), red in pictures: "
            "the training diverged, or guidance or truncation goes too far; try an earlier --step"
        )


def check_folder_of(shape: tuple[int, ...], alpha: bool, own: Portrayed | None) -> None:
    """Raise UserError unless samples of this shape are pictures, or what their data draws, and each can be a file."""
    if own is not None:
        own.writers()
        return
    if len(shape) != 3:
        raise UserError("this run makes points, not pictures: write them with --npz, or draw them with --out")
    if shape[2] not in (1, 3) and not (alpha and shape[2] in (2, 4)):
        raise UserError(f"samples of {shape[2]} channels are no pictures; write them with --npz")


def picture(samples: np.ndarray, alpha: bool, own: Portrayed | None = None) -> np.ndarray:
    """Return bytes of images, on white where their last channel is alpha; points are returned unchanged.

    `own` draws those that are no pictures.
    """
    if own is not None:
        return own.picture(samples)
    if samples.ndim == 2:
        return samples
    if alpha and samples.shape[-1] in (2, 4):
        return sheet.on_white(sheet.to_bytes(samples))
    return np.stack([sheet.to_rgb(one) for one in samples])


def own_channels(samples: np.ndarray, alpha: bool) -> np.ndarray:
    """Return bytes of images with the channels that they have, but RGB where a grey one has a value that is none."""
    broken: Any = not np.isfinite(samples).all()
    return picture(samples, alpha=False) if broken and not alpha else sheet.to_bytes(samples)
