"""What objectives share whose batch has `image`, a damaged image, and `target`, what it was, `scale` times as long."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from jaxgen.errors import UserError
from jaxgen.metrics import reconstruction
from jaxgen.metrics.accumulators import Mean
from jaxgen.objective import Metrics
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import grey_to_rgb
from jaxgen.typing import Spec

Images = Float[Array, "b h w c"]
Map = Float[Array, "b _ _ c"]

SHOWN = 8  # images of a preview


def check(spec: Spec, scale: int, factor: int) -> None:
    """Raise UserError where the data has no pairs, or `factor` does not divide the sides of its images."""
    if "target" not in spec:
        how = f"Shrink({scale})" if scale > 1 else "Age()"
        raise UserError(
            f"restoration learns from pairs, and the data has {', '.join(sorted(spec))} without a `target`; end "
            f"the transforms with what damages images, such as {how}"
        )
    sides = spec["image"].shape[1:3]
    if sides[0] % factor or sides[1] % factor:
        raise UserError(
            f"the net sees {factor}×{factor} pixels as one place, which does not divide images of "
            f"{by(spec['image'].shape[1:])}; crop or resize them"
        )


def check_made(made: tuple[int, ...], spec: Spec) -> None:
    """Raise UserError unless what a net makes of an image has the target's shape."""
    small, large = spec["image"].shape[1:], spec["target"].shape[1:]
    if made != large:
        raise UserError(
            f"of images of {by(small)} the net makes images of {by(made)}, but their targets have {by(large)}; set its "
            "scale and channels to the data's"
        )


def enlarged(image: Images, scale: int) -> Map:
    """Return images at the target's size, by a bicubic filter."""
    b, h, w, c = image.shape
    return jnp.clip(jax.image.resize(image, (b, h * scale, w * scale, c), "cubic"), -1.0, 1.0)


def nearness(target: Images, made: Images, scale: int) -> dict[str, Float[Array, " b"]]:
    """Return PSNR and SSIM of images by name; `…_y` is of Y inside a border of `scale` pixels."""
    found = {"psnr": reconstruction.psnr(target, made), "psnr_y": reconstruction.psnr_y(target, made, scale)}
    if reconstruction.measures_ssim(tuple(side - 2 * scale for side in target.shape[1:3])):
        found["ssim_y"] = reconstruction.ssim_y(target, made, scale)
    return found


def measured(target: Images, made: Images, image: Map, scale: int, valid: Bool[Array, " b"]) -> Metrics:
    """Average over the valid rows how near to the target the restored images are, and as `…_input` the damaged ones."""
    found = nearness(target, made, scale)
    found |= {f"{name}_input": x for name, x in nearness(target, enlarged(image, scale), scale).items()}
    return {name: Mean.of(x, valid) for name, x in found.items()}


def panels(image: Map, *made: tuple[str, Images], target: Images, scale: int) -> Panels:
    """Show damaged images, what was made of them, with a title for each, and what they were."""
    rows = (enlarged(image, scale), *(x for _, x in made), target)
    shown = [grey_to_rgb(jnp.clip(x, -1.0, 1.0)) for x in rows]
    return Panels(images=jnp.stack(shown), titles=("image", *(title for title, _ in made), "target"))


def by(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
