"""What each form of picture means, a test for each row of the table in docs/data.md."""

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from processes import ROOT

from jaxgen.data import opening
from jaxgen.data.decode import read_ids, read_image
from jaxgen.errors import UserError

RGB = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[0, 0, 0], [10, 20, 30], [255, 255, 255]]], np.uint8)
GREY = np.array([[0, 1, 2], [100, 200, 255]], np.uint8)
ALPHA = np.array([[0, 255, 128], [255, 255, 0]], np.uint8)
DEEP = np.array([[0, 257, 128], [65535, 256 * 200, 129]], np.uint16)
DEEP_BYTES = np.array([[0, 1, 0], [255, 199, 1]], np.uint8)  # divided by 257, rounded


def grey_of(rgb: np.ndarray) -> np.ndarray:
    return np.round(rgb @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def on_white(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return np.round(colours * share + 255 * (1 - share)).astype(np.uint8)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def deep_png(pixels: np.ndarray) -> bytes:
    """A PNG of 16 bits per channel, which Pillow cannot write."""
    h, w, channels = pixels.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    colour = {1: 0, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", w, h, 16, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def read(file: bytes, channels: int) -> np.ndarray:
    return read_image(file, channels, "it")


def close(found: np.ndarray, wanted: np.ndarray, within: int = 0) -> None:
    assert found.dtype == np.uint8
    assert found.shape == wanted.shape
    assert np.abs(found.astype(int) - wanted).max() <= within


def grey_8_bits() -> None:
    file = encoded(Image.fromarray(GREY))
    close(read(file, 1), GREY[..., None])
    close(read(file, 3), np.repeat(GREY[..., None], 3, 2))


def rgb_8_bits() -> None:
    for form in ("PNG", "BMP", "TIFF", "PPM", "TGA"):
        file = encoded(Image.fromarray(RGB), form)
        close(read(file, 3), RGB)
        close(read(file, 1), grey_of(RGB)[..., None], 1)
    for form, options in (("WEBP", {"lossless": True}), ("JPEG2000", {})):
        close(read(encoded(Image.fromarray(RGB), form, **options), 3), RGB)
    plain = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    close(read(encoded(Image.fromarray(plain), "JPEG", quality=95), 3), plain, 3)


def with_alpha() -> None:
    rgba = np.concatenate([RGB, ALPHA[..., None]], 2)
    file = encoded(Image.fromarray(rgba))
    close(read(file, 4), rgba)  # the colours below what is transparent, too
    close(read(file, 3), on_white(RGB, ALPHA), 1)
    close(read(file, 1), on_white(grey_of(RGB)[..., None], ALPHA), 1)
    assert read(file, 3)[0, 0].tolist() == [255, 255, 255]
    la = np.stack([GREY, ALPHA], 2)
    file = encoded(Image.fromarray(la))
    close(read(file, 2), la)
    close(read(file, 4), np.concatenate([np.repeat(GREY[..., None], 3, 2), ALPHA[..., None]], 2))
    close(read(file, 1), on_white(GREY[..., None], ALPHA), 1)
    close(read(file, 3), np.repeat(on_white(GREY[..., None], ALPHA), 3, 2), 1)


def alpha_asked_for() -> None:
    assert (read(encoded(Image.fromarray(RGB)), 4)[..., 3] == 255).all()
    close(read(encoded(Image.fromarray(GREY)), 2), np.stack([GREY, np.full_like(GREY, 255)], 2))


def one_bit() -> None:
    bits = np.array([[True, False, True]])
    for form in ("PNG", "TIFF", "PPM"):
        assert read(encoded(Image.fromarray(bits), form), 1)[..., 0].tolist() == [[255, 0, 255]]


def palette() -> None:
    file = encoded(Image.fromarray(RGB).quantize(16))
    close(read(file, 3), RGB)
    close(read(file, 1), grey_of(RGB)[..., None], 1)


def transparent_colour() -> None:
    indexed = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    for hidden, alpha in ((0, [0, 255]), (b"\x80\xff", [128, 255])):
        file = encoded(indexed, transparency=hidden)
        assert read(file, 4)[0].tolist() == [[10, 20, 30, alpha[0]], [40, 50, 60, alpha[1]]]
    assert read(encoded(indexed, transparency=0), 3)[0].tolist() == [[255, 255, 255], [40, 50, 60]]
    grey = encoded(Image.fromarray(np.array([[7, 8]], np.uint8)), transparency=7)
    assert read(grey, 1)[0, :, 0].tolist() == [255, 8]
    assert read(grey, 2)[0].tolist() == [[7, 0], [8, 255]]
    colour = encoded(Image.fromarray(RGB), transparency=(10, 20, 30))
    assert read(colour, 3)[1, 1].tolist() == [255, 255, 255]
    assert read(colour, 4)[1, 1].tolist() == [10, 20, 30, 0]
    deep = encoded(Image.fromarray(DEEP), transparency=257)
    assert read(deep, 1)[0, :, 0].tolist() == [0, 255, 0]


def grey_16_bits() -> None:
    for file in (
        encoded(Image.fromarray(DEEP)),
        encoded(Image.fromarray(DEEP), "TIFF"),
        encoded(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
        encoded(Image.fromarray(DEEP.astype(np.int32)), "PPM"),
        deep_png(DEEP[..., None]),
    ):
        close(read(file, 1), DEEP_BYTES[..., None])
        close(read(file, 3), np.repeat(DEEP_BYTES[..., None], 3, 2))


def rgb_16_bits() -> None:
    deep = np.stack([DEEP, DEEP[::-1], DEEP], 2)
    close(read(deep_png(deep), 3), (deep >> 8).astype(np.uint8))
    assert read(deep_png(deep), 3).max() == 255


def integers_32_bits() -> None:
    with pytest.raises(UserError, match=r"^it: int32 pixels, whose range nothing tells; save 8 or 16 bits"):
        read(encoded(Image.fromarray(GREY.astype(np.int32)), "TIFF"), 1)


def floats() -> None:
    values = np.array([[0.0, 0.5, 1.0]], np.float32)
    file = encoded(Image.fromarray(values), "TIFF")
    assert read(file, 1)[0, :, 0].tolist() == [0, 128, 255]
    assert read(file, 3)[0, 1].tolist() == [128] * 3


def floats_beyond() -> None:
    for values, said in (([0.0, 254.0], "from 0 to 254"), ([-0.5, 1.0], "from -0.5 to 1"), ([np.nan, 1], "nan")):
        file = encoded(Image.fromarray(np.array([values], np.float32)), "TIFF")
        with pytest.raises(UserError, match=rf"^it: float pixels .*{said}.*floats are read in 0..1: divide"):
            read(file, 3)


def other_colours() -> None:
    plain = np.full((16, 16, 3), (200, 100, 50), np.uint8)
    for file in (
        encoded(Image.fromarray(plain).convert("CMYK"), "JPEG", quality=95),
        encoded(Image.fromarray(plain).convert("CMYK"), "TIFF"),
        encoded(Image.fromarray(plain).convert("YCbCr"), "TIFF"),
    ):
        close(read(file, 3), plain, 3)
    assert read(encoded(Image.new("LAB", (2, 2), (255, 128, 128)), "TIFF"), 3).min() > 250


def orientations() -> None:
    upright = np.arange(6 * 9, dtype=np.uint8).reshape(6, 9) * 4
    stored = {  # how an upright picture lies in a file of each orientation
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1],
        5: upright.T, 6: upright.T[::-1], 7: upright.T[::-1, ::-1], 8: upright.T[:, ::-1],
    }  # fmt: skip
    for number, pixels in stored.items():
        exif = Image.Exif()
        exif[0x0112] = number
        for form in ("PNG", "TIFF", "WEBP"):
            options = {"lossless": True} if form == "WEBP" else {}
            file = encoded(Image.fromarray(np.ascontiguousarray(pixels)), form, exif=exif, **options)
            close(read(file, 1)[..., 0], upright)
            if form != "WEBP":
                assert np.array_equal(read_ids(file, "it"), upright)
        file = encoded(Image.fromarray(np.ascontiguousarray(pixels)), "JPEG", exif=exif, quality=95)
        close(read(file, 1)[..., 0], upright, 8)
        deep = Image.fromarray(np.ascontiguousarray(pixels).astype(np.uint16) * 257)
        close(read(encoded(deep, exif=exif), 1)[..., 0], upright)


def frames() -> None:
    first, second = (Image.new("RGB", (4, 3), colour) for colour in ("red", "blue"))
    for form, options in (("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True})):
        file = encoded(first, form, save_all=True, append_images=[second], **options)
        assert read(file, 3)[0, 0].tolist() == [255, 0, 0]


def pages() -> None:
    planes = [Image.fromarray(GREY + np.uint8(i)) for i in range(5)]
    file = encoded(planes[0], "TIFF", save_all=True, append_images=planes[1:])
    stack = read(file, 5)
    for i in range(5):
        close(stack[..., i], GREY + np.uint8(i))
    for channels in (1, 3, 6):
        with pytest.raises(UserError, match=rf"^it: a TIFF of 5 pages, but channels={channels}; .*channels=5"):
            read(file, channels)
    deep = [Image.fromarray(DEEP)] * 2
    close(read(encoded(deep[0], "TIFF", save_all=True, append_images=deep[1:]), 2), np.stack([DEEP_BYTES] * 2, 2))
    mixed = encoded(planes[0], "TIFF", save_all=True, append_images=[Image.fromarray(RGB)])
    with pytest.raises(UserError, match="page 2 of 2 is not a grey picture"):
        read(mixed, 2)


def arrays_of_bytes() -> None:
    five = np.arange(2 * 3 * 5, dtype=np.uint8).reshape(2, 3, 5)
    close(read(npy(five), 5), five)
    close(read(npy(GREY), 1), GREY[..., None])
    close(read(npy(GREY), 3), np.repeat(GREY[..., None], 3, 2))
    close(read(npy(RGB), 3), RGB)
    close(read(npy(RGB), 1), grey_of(RGB)[..., None], 1)
    close(read(npy(five[..., :4]), 4), five[..., :4])


def arrays_scaled() -> None:
    close(read(npy(np.stack([DEEP] * 5, 2)), 5), np.stack([DEEP_BYTES] * 5, 2))
    assert read(npy(np.full((1, 1, 6), 0.5)), 6).tolist() == [[[128] * 6]]
    assert read(npy(np.array([[True, False]])), 1)[..., 0].tolist() == [[255, 0]]


def arrays_refused() -> None:
    five = np.zeros((5, 7, 9), np.uint8)
    for array, channels, said in (
        (five, 5, r"uint8\[5 7 9\]; channels come last: save numpy.moveaxis"),
        (np.zeros((7, 9, 5), np.int64), 5, "int64 pixels, whose range nothing tells"),
        (np.full((7, 9, 5), 2.0), 5, "float pixels from 2 to 2"),
        (np.zeros((7, 9, 5), np.uint8), 3, "it has 5 channels, but channels=3"),
        (np.zeros((7, 9, 3), np.uint8), 5, "it has 3 channels, but channels=5"),
        (np.zeros(7, np.uint8), 1, r"uint8\[7\]; a picture is an array \[h w\] or \[h w c\]"),
    ):
        with pytest.raises(UserError, match=said):
            read(npy(array), channels)
    with pytest.raises(UserError, match=r"unreadable array .*allow_pickle"):
        read(npy(np.array([{}])), 1)
    with pytest.raises(UserError, match="it has 3 channels, but channels=5"):
        read(encoded(Image.fromarray(RGB)), 5)


def foreign() -> None:
    for head, said in (
        (b"\0\0\0\x18ftypheic" + bytes(20), "HEIC, .* convert it to JPEG or PNG"),
        (b"<?xml version='1.0'?><svg/>", "SVG, .* convert it to PNG"),
        (b"%PDF-1.7", "PDF; convert its pages to PNG"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1", "a pointer of Git LFS; run `git lfs pull`"),
    ):
        with pytest.raises(UserError, match=rf"^it: unreadable image \({said}"):
            read(head, 3)


def damaged() -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8))
    for form in ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "PPM", "GIF", "AVIF"):
        whole = encoded(noise, form)
        for size in (0, 20, len(whole) // 2):
            with pytest.raises(UserError, match=r"^it: unreadable image \("):
                read(whole[:size], 3)
    with pytest.raises(UserError, match="the file is empty"):
        read(b"", 3)


def too_large() -> None:
    # Its header alone says so: nothing is decoded, and Pillow's own limit is as before.
    before = Image.MAX_IMAGE_PIXELS
    file = deep_png(np.zeros((1, 1, 1), np.uint16))
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 20_000, 8, 0, 0, 0, 0)
    bomb = file[:12] + header + struct.pack(">I", zlib.crc32(header)) + file[33:]
    said = r"30000x20000 pixels are 600 megapixels, more than 500; .*JAXGEN_MAX_MEGAPIXELS=601"
    with pytest.raises(UserError, match=said):
        read(bomb, 1)
    assert before == Image.MAX_IMAGE_PIXELS


FORMS: dict[str, Callable[[], None]] = {
    "grey, 8 bits": grey_8_bits,
    "RGB, 8 bits": rgb_8_bits,
    "grey and alpha; RGB and alpha": with_alpha,
    "no alpha, but 2 or 4 channels asked for": alpha_asked_for,
    "black and white, 1 bit": one_bit,
    "palette": palette,
    "palette, grey or RGB with a transparent colour": transparent_colour,
    "grey, 16 bits, of either byte order": grey_16_bits,
    "RGB, 16 bits (PNG)": rgb_16_bits,
    "grey, integers of 32 bits (TIFF)": integers_32_bits,
    "grey, floats in 0..1 (TIFF)": floats,
    "grey, floats beyond 0..1, or NaN": floats_beyond,
    "CMYK, YCbCr, LAB": other_colours,
    "with an EXIF orientation": orientations,
    "GIF, APNG, WebP of several frames": frames,
    "TIFF of several pages": pages,
    "`.npy` [h w] or [h w c], bytes": arrays_of_bytes,
    "`.npy`, 16 bits, or floats in 0..1": arrays_scaled,
    "`.npy`, other types or values, or channels first": arrays_refused,
    "HEIC, SVG, PDF, camera raw files": foreign,
    "empty, cut off or damaged": damaged,
    "more than 500 megapixels": too_large,
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_means_what_the_table_says(form):
    FORMS[form]()


def rows(header: str) -> list[str]:
    """The first column of the table in docs/data.md that begins with this header."""
    text = (ROOT / "docs" / "data.md").read_text()
    table = text[text.index(f"| {header} |") :].split("\n\n")[0].splitlines()[2:]
    return [line.split(" | ")[0].removeprefix("| ") for line in table]


def test_each_row_of_the_table_of_pictures_has_a_test():
    assert rows("form") == list(FORMS)


def test_a_camera_raw_file_is_refused_although_its_thumbnail_could_be_read(tmp_path):
    (tmp_path / "x.nef").write_bytes(encoded(Image.fromarray(RGB), "TIFF"))
    with pytest.raises(UserError, match=r"x.nef: a camera's raw file; develop it"):
        read_image(tmp_path / "x.nef", 3, str(tmp_path / "x.nef"))


def test_a_smaller_copy_in_a_tiff_is_no_page():
    small = Image.fromarray(RGB[:1])
    small.encoderinfo = {"tiffinfo": {254: 1}}
    stream = io.BytesIO()
    with_thumbnail = [Image.fromarray(RGB), small]
    with_thumbnail[0].save(stream, "TIFF", save_all=True, append_images=with_thumbnail[1:])
    close(read(stream.getvalue(), 3), RGB)


def test_a_damaged_tiff_says_its_cause_and_nothing_else():
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(buffer, "TIFF")
    whole = buffer.getvalue()
    warned = 0
    for end in range(8, len(whole), 7):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with contextlib.suppress(*opening.DAMAGED):
                Image.open(io.BytesIO(whole[:end])).load()
            warned += len(caught)
            caught.clear()
            with pytest.raises(UserError, match=r"cut\.tif: unreadable image"):
                read_image(whole[:end], 1, "cut.tif")
            assert caught == []
    assert warned  # Pillow itself does


def test_large_pictures_are_read_without_a_warning_and_by_several_threads(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    file = encoded(Image.new("L", (200, 100), 7))
    found = []

    def work() -> None:
        found.extend(read(file, 1).mean() for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [7.0] * 80
    assert Image.MAX_IMAGE_PIXELS == 100


@pytest.mark.slow
def test_a_scan_of_181_megapixels_is_read(tmp_path):
    scan = Image.new("L", (15_000, 12_100), 7)
    scan.putpixel((14_999, 12_099), 200)
    scan.save(tmp_path / "scan.png", compress_level=1)
    pixels = read_image(tmp_path / "scan.png", 1, "scan")
    assert pixels.shape == (12_100, 15_000, 1)
    assert (pixels[0, 0, 0], pixels[-1, -1, 0]) == (7, 200)


def test_the_environment_sets_the_limit(monkeypatch):
    file = encoded(Image.new("L", (2000, 1000)))
    monkeypatch.setenv(opening.RAISED, "1")
    with pytest.raises(UserError, match="2000x1000 pixels are 2 megapixels, more than 1"):
        read(file, 1)
    monkeypatch.setenv(opening.RAISED, "3")
    assert read(file, 1).shape == (1000, 2000, 1)
    monkeypatch.setenv(opening.RAISED, "much")
    with pytest.raises(UserError, match="JAXGEN_MAX_MEGAPIXELS=much: it must be a number"):
        read(file, 1)


# --- masks ------------------------------------------------------------------------------------------------------------

IDS = np.array([[0, 1, 2], [2, 1, 255]], np.uint8)
COLOURS = ((0, 0, 0), (255, 0, 0), (0, 0, 255), (224, 224, 192))


def coloured(ids: np.ndarray) -> np.ndarray:
    return np.array(COLOURS, np.uint8)[ids]


def grey_masks() -> None:
    for pixels in (IDS, IDS.astype(np.uint16), IDS.astype(np.uint16) * 200):
        for form in ("PNG", "TIFF"):
            assert np.array_equal(read_ids(encoded(Image.fromarray(pixels), form), "it"), pixels)
    assert read_ids(encoded(Image.fromarray(IDS == 1)), "it").tolist() == [[0, 1, 0], [0, 1, 0]]


def palette_masks() -> None:
    mask = Image.fromarray(IDS, "P")
    mask.putpalette(np.random.default_rng(0).integers(0, 256, 768, np.uint8).tobytes())
    assert np.array_equal(read_ids(encoded(mask), "it"), IDS)


def grey_rgb_masks() -> None:
    assert np.array_equal(read_ids(encoded(Image.fromarray(IDS).convert("RGB")), "it"), IDS)
    assert np.array_equal(read_ids(encoded(Image.fromarray(IDS).convert("RGBA")), "it"), IDS)


def colour_masks() -> None:
    ids = np.array([[0, 1, 2], [3, 1, 0]])
    for image in (Image.fromarray(coloured(ids)), Image.fromarray(coloured(ids)).quantize(8)):
        assert read_ids(encoded(image), "it", COLOURS).tolist() == ids.tolist()
    with pytest.raises(UserError, match=r"a mask in RGB, of 4 colours \(\(0, 0, 0\) 2×, .*colours=\("):
        read_ids(encoded(Image.fromarray(coloured(ids))), "it")
    fringed = coloured(ids)
    fringed[0, 0], fringed[0, 1], fringed[1, 1] = (1, 0, 0), (254, 0, 0), (254, 0, 0)
    said = r"3 pixels of 2 colours that no class has \(\(254, 0, 0\) 2×, \(1, 0, 0\) 1×\); .*nearest neighbour"
    with pytest.raises(UserError, match=said):
        read_ids(encoded(Image.fromarray(fringed)), "it", COLOURS)


def array_masks() -> None:
    assert np.array_equal(read_ids(npy(IDS.astype(np.int64)), "it"), IDS)
    assert np.array_equal(read_ids(npy(IDS[..., None]), "it"), IDS)
    with pytest.raises(UserError, match=r"a mask is an array of integers \[h w\], found float64\[2 3\]"):
        read_ids(npy(IDS.astype(float)), "it")


def lossy_masks() -> None:
    for form, name in (("JPEG", "JPEG"), ("WEBP", "WEBP")):
        with pytest.raises(UserError, match=f"a {name} does not keep ids; save masks as PNG"):
            read_ids(encoded(Image.fromarray(IDS), form), "it")


MASKS = {
    "grey PNG of 8 or 16 bits, 1 bit": grey_masks,
    "PNG with a palette": palette_masks,
    "RGB with equal channels": grey_rgb_masks,
    "RGB of colours": colour_masks,
    "`.npy` of integers [h w]": array_masks,
    "JPEG, WebP": lossy_masks,
}


@pytest.mark.parametrize("form", MASKS)
def test_a_mask_means_what_the_table_says(form):
    MASKS[form]()


def test_each_row_of_the_table_of_masks_has_a_test():
    assert rows("form of a mask") == list(MASKS)
