"""How folders are laid out: which folder is which class, which mask belongs to which image, and what looks odd."""

import collections
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from jaxgen.data.files import SUFFIXES, UNREADABLE, beside, composed, folders, others
from jaxgen.errors import UserError

SPLITS = re.compile("(train|val|valid|test|dev|eval)(ing|idation|uation|val)?", re.IGNORECASE)
PAIRS = re.compile("(image|img|picture|mask|label|annotation|ann|gt)s?", re.IGNORECASE)
SHOWN = 3  # names that a message shows


def class_folders(root: Path, classes: Sequence[str]) -> dict[str, Path]:
    """Return the folder of each class by its name, in the order of `classes`, or sorted where that is empty.

    Names are in Unicode's composed form. Raises UserError for a class without a folder, and for two folders of a name.
    """
    found: dict[str, list[Path]] = {}
    for folder in folders(root):
        found.setdefault(composed(folder.name), []).append(folder)
    if classes and (missing := [name for name in classes if composed(name) not in found]):
        near = f"; it has {few(sorted(found))}" if found else ""
        raise UserError(f"no folder {root / missing[0]}{near}")
    names = [composed(name) for name in classes] or sorted(found)
    if len(set(names)) < len(names):
        raise UserError(f"classes names {max(names, key=names.count)!r} twice; each folder is one class")
    for name in names:
        if len(found[name]) > 1:
            raise UserError(
                f"{root} holds two folders named {name!r}, which differ in how Unicode writes it; move them into one"
            )
    if not classes:
        by_case = collections.Counter(name.casefold() for name in names)
        if twice := [name for name in names if by_case[name.casefold()] > 1]:
            raise UserError(
                f"the class folders {few(twice)} in {root} differ only in case: move them into one, or name the "
                "classes by classes=(…) if they are several"
            )
    return {name: found[name][0] for name in names}


def class_notes(root: Path, classes: Sequence[str], named: Sequence[str], labels: Collection[int]) -> tuple[str, ...]:
    """Say what looks odd about class folders; `named` are the classes that were asked for, `labels` the examples'."""
    notes = []
    if not named and all(SPLITS.fullmatch(name) for name in classes):
        notes.append(
            f"the classes of {root} are {few(classes)}, which look like splits; "
            f"to train on one of them, set the path to {root / classes[0]}"
        )
    elif not named and all(PAIRS.fullmatch(name) for name in classes):
        notes.append(
            f"the classes of {root} are {few(classes)}; for images and their masks, take SegmentationFolder(images=…, "
            "masks=…, classes=(…))"
        )
    if not named and all(name.isdecimal() for name in classes) and sorted(classes, key=int) != list(classes):
        notes.append(f"class folders are sorted as text: {few(classes)}; classes=(…) gives another order")
    present = set(labels)
    if empty := [name for label, name in enumerate(classes) if label not in present]:
        notes.append(f"{counted(len(empty), 'class')} of {root} without an image: {few(empty)}")
    if named:
        ours = {composed(name) for name in named}
        if rest := sorted(f.name for f in folders(root) if composed(f.name) not in ours):
            notes.append(f"{counted(len(rest), 'folder')} of {root} not among `classes`, left out: {few(rest)}")
    if loose := beside(root):
        names = few([file.name for file in loose])
        notes.append(f"{counted(len(loose), 'image')} beside the class folders of {root}, left out: {names}")
    return tuple(notes)


def unread(root: Path, files: Sequence[Path]) -> tuple[str, ...]:
    """Say which pictures among files are of forms that are not read."""
    said = others(files, UNREADABLE)
    return (f"left out of {root}: {said}; convert them to PNG or JPEG to have them read",) if said else ()


def no_images(root: Path, files: Sequence[Path], *, classes: bool) -> UserError:
    """Return what to say of a folder where no image was found, but these files, below class folders or anywhere."""
    if classes and (loose := beside(root)):
        return UserError(
            f"{root} holds no images in class folders, but {counted(len(loose), 'image')} beside them: "
            f"put them into {root}/<class>/, or take Images({str(root)!r}) where there are no classes"
        )
    text = f"{root} holds no images" + (f"; expected {root}/<class>/*.png" if classes else "")
    if said := others(files):
        text += f"; found only {said}: what is read ends in {', '.join(sorted(SUFFIXES))}"
    return UserError(text)


def by_name(files: Sequence[Path], root: Path, suffix: str) -> dict[str, list[Path]]:
    """Map "folder/stem", less the suffix and in Unicode's composed form, to the files of that name."""
    found: dict[str, list[Path]] = {}
    for file in files:
        stem = composed(file.relative_to(root).with_suffix("").as_posix())
        if stem.endswith(suffix):
            found.setdefault(stem.removesuffix(suffix), []).append(file)
    return found


def check_names(kind: str, names: Sequence[str], files: Mapping[str, list[Path]], place: str) -> None:
    """Raise UserError unless each name has one file of this kind, "image" or "mask"."""
    if missing := [name for name in names if name not in files]:
        raise UserError(
            f"{len(missing)} of {len(names)} names have no {kind} in {place}: {few(missing)}. "
            "Add what is missing, or list the names to read in a file and pass ids=FILE."
        )
    if twice := [name for name in names if len(files[name]) > 1]:
        listed = " and ".join(map(str, files[twice[0]]))
        raise UserError(f"{counted(len(twice), 'name')} with two {kind}s: {listed}; keep one of them")


def listed(file: Path, known: Collection[str]) -> list[str]:
    """Return the names in a file, one a line; a name ends at the first space, unless the whole line is known.

    Raises UserError if the file cannot be read, or names nothing.
    """
    try:
        lines = [composed(line.strip()) for line in file.expanduser().read_text("utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the list of names {file} ({error})") from error
    names = [line if line in known else line.split()[0] for line in lines if line]
    if not names:
        raise UserError(f"the list of names {file} is empty")
    return names


def few(names: Sequence[str], most: int = SHOWN) -> str:
    """Return the first names, and a mark where there are more."""
    return ", ".join(names[:most]) + (", …" if len(names) > most else "")


def counted(count: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 'es' if noun.endswith('s') else 's'}"
