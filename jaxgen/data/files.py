"""Which files of a folder are pictures. Hidden files and folders, and what systems leave behind, are never data."""

import collections
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxgen.errors import DataNotFound, UserError

SUFFIXES = frozenset({
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".npy",
})  # fmt: skip
UNREADABLE = frozenset({  # pictures that are not read: what is left out of these is said
    ".heic", ".heif", ".svg", ".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf", ".psd", ".pdf", ".jxl",
    ".exr", ".hdr", ".ico", ".eps", ".dcm", ".nii", ".npz",
})  # fmt: skip
LEFTOVERS = frozenset({"__macosx", "thumbs.db", "desktop.ini", "@eadir", "$recycle.bin", "lost+found"})


def hidden(name: str) -> bool:
    """Return whether a file or folder of this name is none of the user's data: `.ipynb_checkpoints`, `._a.jpg`, …"""
    return name.startswith(".") or name.lower() in LEFTOVERS


def directory(path: str | Path) -> Path:
    """Return the path of a folder. Raises DataNotFound if there is none, UserError if the path is no folder's."""
    if not str(path).strip() or "://" in str(path):
        raise UserError(f"{str(path)!r} is no folder on this machine; download the data and name their folder")
    path = Path(path).expanduser()
    if path.is_file():
        raise UserError(f"{path} is a file; a folder is needed: unpack an archive first")
    if not path.is_dir():
        raise DataNotFound(f"no folder {path}" + ("" if path.is_absolute() else f", looked for in {Path.cwd()}"))
    return path


def folders(root: Path) -> list[Path]:
    """Return the folders in a folder that may hold data."""
    return [Path(entry.path) for entry in _entries(root) if entry.is_dir() and not hidden(entry.name)]


def pictures(root: Path) -> list[Path]:
    """Return the pictures anywhere below a folder, sorted; symbolic links are followed."""
    return sorted(file for file in below(root) if file.suffix.lower() in SUFFIXES)


def beside(root: Path) -> list[Path]:
    """Return the pictures that lie in a folder itself."""
    entries = [entry for entry in _entries(root) if not entry.is_dir() and not hidden(entry.name)]
    return sorted(Path(entry.path) for entry in entries if Path(entry.name).suffix.lower() in SUFFIXES)


def below(root: Path) -> Iterator[Path]:
    """Yield all files anywhere below a folder, in no order. Raises UserError for a folder that cannot be read."""
    return _below(root, frozenset())


def others(files: Sequence[Path], suffixes: frozenset[str] | None = None) -> str:
    """Say what files there are that are not read, of these suffixes or of all: "2 .heic, 1 .txt"; "" for none."""
    counts = collections.Counter(
        file.suffix.lower() or "without suffix"
        for file in files
        if file.suffix.lower() not in SUFFIXES and (suffixes is None or file.suffix.lower() in suffixes)
    )
    return ", ".join(f"{count:,} {suffix}" for suffix, count in counts.most_common(5))


def composed(name: str) -> str:
    """Return a name in Unicode's composed form: macOS writes é as two characters, others as one."""
    return unicodedata.normalize("NFC", name)


def _below(root: Path, above: frozenset[str]) -> Iterator[Path]:
    real = os.path.realpath(root)
    if real in above:  # a link to a folder that it lies in
        return
    for entry in _entries(root):
        if hidden(entry.name):
            continue
        if entry.is_dir():
            yield from _below(Path(entry.path), above | {real})
        else:  # a link to nothing too: reading it says so
            yield Path(entry.path)


def _entries(root: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(root) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"cannot read the folder {root}: {error.strerror}") from error
