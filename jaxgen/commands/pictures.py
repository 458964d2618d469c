"""The pictures that a command is asked for: files and folders of them, and a name of its own for each."""

import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Callable, Sequence

from jaxgen.commands.output import shown
from jaxgen.data import files
from jaxgen.errors import UserError


@dataclasses.dataclass(frozen=True)
class Picture:
    """A picture file, and the name of what is made of it."""

    path: pathlib.Path
    name: str
    """Relative to the folder of results, without a suffix; no two pictures' names are the same on any file system."""


def pictures(paths: Sequence[pathlib.Path], out: pathlib.Path, say: Callable[[str], None]) -> list[Picture]:
    """Return every picture once: the files that are named, and all image files below the folders that are.

    What lies below `out` is left out of folders, as it is the command's own. A name is the file's own, or its path
    below its folder; where two would be the same, all are paths below the folder that holds all pictures, and where
    suffixes alone tell them apart, they stay. Raises UserError for a path that is not there, and for a folder without
    pictures.
    """
    found: dict[pathlib.Path, pathlib.PurePath] = {}
    own = 0
    for path in paths:
        if path.is_dir():
            there = files.pictures(path)
            outside = there if path.resolve() == out.resolve() else [file for file in there if not _below(file, out)]
            own += len(there) - len(outside)
            if not outside:
                there_is = files.others(list(files.below(path)))
                raise UserError(f"{shown(path)} holds no pictures{f' ({there_is})' if there_is else ''}")
            for file in outside:
                found.setdefault(file, file.relative_to(path))
        elif path.exists():
            found.setdefault(path, pathlib.PurePath(path.name))
        else:
            raise UserError(_missing(path))
    if own:
        say(f"note: {own} picture(s) in {shown(out)} are results and not predicted again")
    once = {path.resolve(): path for path in reversed(found)}  # the same file by two ways is one picture
    kept = [path for path in found if once[path.resolve()] == path]
    return [Picture(path, name) for path, name in zip(kept, _names(kept, found), strict=True)]


def _names(kept: list[pathlib.Path], found: dict[pathlib.Path, pathlib.PurePath]) -> list[str]:
    whole = [path.absolute() for path in kept]
    common = pathlib.Path(os.path.commonpath([path.parent for path in whole]))
    below = [path.relative_to(common) for path in whole]
    for names in ([found[path].with_suffix("") for path in kept], [path.with_suffix("") for path in below], below):
        if len({_folded(name) for name in names}) == len(names):
            return [name.as_posix() for name in names]
    return [f"{name.as_posix()}.{i}" for i, name in enumerate(below)]  # apart by case or Unicode form only


def _folded(name: pathlib.PurePath) -> str:
    return unicodedata.normalize("NFC", name.as_posix()).casefold()


def _below(path: pathlib.Path, folder: pathlib.Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())


def _missing(path: pathlib.Path) -> str:
    text = shown(path)
    scheme = next((each for each in ("https:", "http:", "file:", "s3:", "gs:") if text.lower().startswith(each)), None)
    if scheme:
        return f"there is no image {text}: addresses are not read; download the picture and name the file"
    return f"there is no image {text}"
