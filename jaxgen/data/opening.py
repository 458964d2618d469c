"""Opening a file of pixels: what cannot be read, or is larger than anyone means, is refused by its name."""

import contextlib
import io
import os
import struct
import threading
import tokenize
import warnings
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from jaxgen.errors import UserError

LIMIT = 500  # megapixels that a picture may have; more is taken for an attack on the memory
RAISED = "JAXGEN_MAX_MEGAPIXELS"  # the environment variable that sets another limit
RAW = frozenset({".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".rw2", ".raf"})  # TIFFs that show their thumbnails

# What Pillow's readers and numpy's raise for files that are cut off or damaged.
DAMAGED = (OSError, SyntaxError, ValueError, EOFError, LookupError, OverflowError, RuntimeError, TypeError,
           struct.error, zlib.error, tokenize.TokenError, MemoryError)  # fmt: skip

_lock = threading.Lock()
_readers = 0  # threads that are reading
_pillows_limit: int | None = None


def is_array(file: Path | bytes) -> bool:
    """Return whether the file is numpy's."""
    return file[:6] == b"\x93NUMPY" if isinstance(file, bytes) else file.suffix.lower() == ".npy"


def load_array(file: Path | bytes, name: str) -> np.ndarray:
    """Return the array of a `.npy`. Raises UserError if there is none in it."""
    try:
        return np.load(io.BytesIO(file) if isinstance(file, bytes) else file, allow_pickle=False)
    except DAMAGED as error:
        raise UserError(f"{name}: unreadable array ({_said(error)})") from error


@contextlib.contextmanager
def opened(file: Path | bytes, name: str) -> Iterator[Image.Image]:
    """Open a picture for the duration of the context; only its header is read yet.

    Raises UserError, here and for what the context reads, if the file is none, is damaged or is larger than the limit.
    """
    if isinstance(file, Path) and file.suffix.lower() in RAW:
        raise UserError(f"{name}: a camera's raw file; develop it and save it as PNG or JPEG")
    try:
        with _without_pillows_limit(), Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            _check_size(image, name)
            yield image
    except DAMAGED as error:
        raise UserError(f"{name}: unreadable image ({_reason(file) or _said(error)})") from error


def limit() -> float:
    """Return how many megapixels a picture may have. Raises UserError if the environment variable is no number."""
    words = os.environ.get(RAISED, str(LIMIT))
    try:
        return float(words)
    except ValueError as error:
        raise UserError(f"{RAISED}={words}: it must be a number of megapixels") from error


def _check_size(image: Image.Image, name: str) -> None:
    most, size = limit(), image.width * image.height / 1e6
    if size > most:
        raise UserError(
            f"{name}: {image.width}x{image.height} pixels are {size:,.0f} megapixels, more than {most:,.0f}; "
            f"if the file is no attack on the memory, set the environment variable {RAISED}={int(size) + 1}"
        )


@contextlib.contextmanager
def _without_pillows_limit() -> Iterator[None]:
    """Lift Pillow's own limit, a global of the process, while any thread reads, and silence its warnings."""
    global _readers, _pillows_limit
    with _lock:
        if not _readers:
            _pillows_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
            # What Pillow warns of in a damaged file, the error names or the pixels do not need. The filter stays:
            # to take it back would race with other threads that set filters.
            warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
        _readers += 1
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers:
                Image.MAX_IMAGE_PIXELS = _pillows_limit


def _said(error: BaseException) -> str:
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _reason(file: Path | bytes) -> str | None:
    """Why a file is no picture, where its first bytes tell."""
    try:
        head = file[:64] if isinstance(file, bytes) else _head(file)
    except OSError:
        return None
    text = head.lstrip().lower()
    if not head:
        return "the file is empty"
    if head[4:8] == b"ftyp" and head[8:12] in (b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        return "HEIC, a phone's format; convert it to JPEG or PNG"
    if text.startswith((b"<svg", b"<?xml")):
        return "SVG, a drawing without pixels; convert it to PNG at the size that you want"
    if text.startswith((b"<!doctype", b"<html")):
        return "a web page, not a picture; download it again"
    if text.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS; run `git lfs pull`"
    return "PDF; convert its pages to PNG" if text.startswith(b"%pdf") else None


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(64)
