"""A picture of `jaxgen restore` and its damage, as the options and the file tell; or a whole one, damaged to try."""

import argparse
import dataclasses
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from jaxgen.commands.damages import KERNELS, TASKS
from jaxgen.commands.output import note, shown
from jaxgen.data.damage import levels
from jaxgen.data.decode import read_image
from jaxgen.data.jpeg import Tables, jpeg_tables, through_jpeg
from jaxgen.data.masks import MASKS
from jaxgen.data.noise_level import noise_level
from jaxgen.errors import UserError
from jaxgen.noise import numbered
from jaxgen.restoration.damage import Damage, old_photograph, quantised
from jaxgen.restoration.jpeg import Jpeg
from jaxgen.restoration.motion import Motion
from jaxgen.restoration.operators import Grey, Mask, Operator
from jaxgen.restoration.separable import Blur

Pixels = UInt8[np.ndarray, "h w c"]
Holes = Bool[np.ndarray, "h w"]
Shape = tuple[int, ...]  # height, width, channels

HOLE = 128  # grey of a mask from which on it is a hole
NOISE = 2**31 - 1  # number of the key of the noise that damages; samples have smaller ones


@dataclasses.dataclass(frozen=True)
class Damaged:
    """A damaged picture, and what is known of it."""

    pixels: Pixels
    damage: Damage
    measured: Float32[np.ndarray, "1 *m"]
    holes: Holes | None = None


def found(args: argparse.Namespace, path: pathlib.Path, pixels: Pixels, shape: Shape) -> Damaged:
    """Return a damaged picture of a file; `shape` is that of what is to be restored.

    Raises UserError where it cannot have been damaged as the options say.
    """
    name = shown(path)
    holes = _holes(args, shape)
    if args.task == "jpeg":
        damage = Damage(operator=_jpeg(args, shape, jpeg_tables(path, name), name), noise=1.0)
    elif args.task == "denoise" and args.sigma is None:
        damage = _noisy(_estimated(pixels, name), shape)
    else:
        damage = damage_of(args, shape, holes)
    if args.task == "quantise":
        _check_levels(args.levels, pixels, name)
    return Damaged(pixels, damage, _measured(damage, pixels), holes)


def tried(args: argparse.Namespace, whole: Pixels) -> Damaged:
    """Return a whole picture damaged as the options say, in 8 bits as files have; its noise is the seed's.

    Raises UserError where it cannot be damaged so.
    """
    holes = _holes(args, whole.shape)
    damage = damage_of(args, whole.shape, holes)
    if args.task == "jpeg":
        pixels = through_jpeg(whole, int(args.quality))
    elif args.task == "quantise":
        steps = args.levels - 1
        pixels = levels(np.round(whole / 255 * steps) / steps * 255)
    else:
        key = numbered(jax.random.key(args.seed), jnp.full((1,), NOISE, jnp.int32))
        pixels = levels((np.asarray(damage.apply(jnp.asarray(as_floats(whole)), key))[0] + 1) * 127.5)
    return Damaged(pixels, damage, _measured(damage, pixels), holes)


def damage_of(args: argparse.Namespace, shape: Shape, holes: Holes | None) -> Damage:
    """Return the damage that the options name, of pictures of a shape.

    Raises UserError where such pictures cannot be damaged so.
    """
    noise = 2 * (TASKS[args.task].noise if args.noise is None else args.noise)
    keep = None if holes is None else np.broadcast_to(~holes[None, :, :, None], (1, *shape)).astype(np.float32)
    match args.task:
        case "denoise":
            damage = _noisy(args.sigma, shape)
        case "jpeg":
            damage = Damage(operator=_jpeg(args, shape, None, "the picture"), noise=1.0)
        case "quantise":
            damage = quantised(args.levels)
        case "old":
            gain, lift = args.fade or (1.0, 0.0)
            damage = old_photograph(
                keep, gain=gain, lift=lift, blur=args.sigma or 0.0, noise=noise / 2, border=args.border or "mirror"
            )
        case _:
            damage = Damage(operator=_operator(args, keep), noise=noise)
    damage.operator.measures(shape)
    return damage


def as_floats(pixels: Pixels) -> Float32[np.ndarray, "1 h w c"]:
    """Return a picture in [-1, 1], as one row."""
    return pixels[None].astype(np.float32) / 127.5 - 1


def _operator(args: argparse.Namespace, keep: np.ndarray | None) -> Operator:
    border = args.border or "mirror"
    match args.task:
        case "inpaint":
            return Mask(keep=keep)
        case "sr":
            return KERNELS[args.kernel or "average"](factor=args.factor)
        case "deblur":
            return Blur(sigma=args.sigma, border=border)
        case "motion":
            return Motion(length=args.length, angle=args.angle or 0.0, border=border)
        case _:
            return Grey()


def _noisy(sigma: float, shape: Shape) -> Damage:
    return Damage(operator=Mask(keep=np.ones((1, *shape), np.float32)), noise=2 * sigma)


def _estimated(pixels: Pixels, name: str) -> float:
    sigma = float(f"{noise_level(pixels / 255):.2g}")
    if not sigma:
        raise UserError(f"{name}: no noise is seen in it; say with --sigma how much there is")
    note(f"note: {name}: the noise is estimated as --sigma {sigma:g}")
    return sigma


def _measured(damage: Damage, pixels: Pixels) -> Float32[np.ndarray, "1 *m"]:
    """Return what a picture says of the one that was damaged: its pixels, or of a JPEG its coefficients."""
    x = as_floats(pixels)
    if isinstance(damage.operator, Jpeg):
        return np.asarray(damage.operator.measured(jnp.asarray(x)), np.float32)
    return x


def _jpeg(args: argparse.Namespace, shape: Shape, tables: Tables | None, name: str) -> Jpeg:
    """Return the operator of a file's own tables, or of the quality that is given; shape is h, w and channels."""
    size, channels = (shape[0], shape[1]), shape[2]
    quality = None if args.quality is None else int(args.quality)
    if tables is None:
        if quality is None:
            raise UserError(f"{name} is no JPEG that says how it was written: say with --quality")
        return Jpeg.of_quality(quality, channels, size)
    if quality is not None and (Jpeg.of_quality(quality, channels, size).luma != tables.luma).any():
        steps = {q: np.abs(Jpeg.of_quality(q, 1, size).luma - tables.luma).sum() for q in range(1, 101)}
        raise UserError(
            f"{name} was written with a quality of about {min(steps, key=lambda q: steps[q])}, not {quality}; drop "
            "--quality, or save it as PNG if it was a JPEG of that quality before"
        )
    chroma = tables.luma if tables.chroma is None else tables.chroma  # of grey files, whose chroma is 0 exactly
    return Jpeg(
        luma=tables.luma,
        size=size,
        chroma=None if channels == 1 else chroma,
        subsampling="4:2:0" if tables.halved else "4:4:4",
    )


def _check_levels(count: int, pixels: Pixels, name: str) -> None:
    """Raise UserError for a picture that has more values than are left."""
    most = max(len(np.unique(plane)) for plane in np.moveaxis(pixels, -1, 0))
    if most > count:
        raise UserError(f"{name} has {most} values in a channel, more than --levels {count}; count them again")


def _holes(args: argparse.Namespace, shape: Shape) -> Holes | None:
    """Return where the mask is white, or what the seed draws of a kind of mask.

    Raises UserError for a mask that is black all over, or of another size than the pictures.
    """
    if args.mask is None:
        return None
    if draw := MASKS.get(args.mask):
        return draw(np.random.default_rng(args.seed), (shape[0], shape[1]))
    path = pathlib.Path(args.mask)
    holes = read_image(path, 1, shown(path))[:, :, 0] >= HOLE
    if not holes.any():
        raise UserError(f"the mask {shown(path)} is black all over; draw white what is to be made up")
    if holes.shape != shape[:2]:
        there, wanted = ("×".join(map(str, sides)) for sides in (holes.shape, shape[:2]))
        raise UserError(f"the mask {shown(path)} is {there}, and the pictures are {wanted}; draw it at their size")
    return holes
