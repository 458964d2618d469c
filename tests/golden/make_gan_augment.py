"""Make gan_augment.npz: what the references' augmentations and their upfirdn2d do to images that the tests make anew.

Draws are recorded as they are made, so that the tests can feed them. Run it where torch is, with the paths of checkouts
(or of folders that hold the files named below) of https://github.com/NVlabs/stylegan2-ada-pytorch and
https://github.com/mit-han-lab/data-efficient-gans:
PYTHONPATH=tests python tests/golden/make_gan_augment.py STYLEGAN2_ADA DATA_EFFICIENT_GANS
"""

import importlib.util
import math
import pathlib
import sys
import types

import numpy as np
import torch
from golden.weights import array, image

HERE = pathlib.Path(__file__).parent
# taps (rows, columns), up, down, pad (left, right, top, bottom), gain
CASES = (
    (4, 4, 1, 1, 0, 0, 0, 0, 1.0),
    (4, 4, 2, 1, 2, 1, 2, 1, 4.0),
    (3, 3, 2, 1, 2, 0, 2, 0, 4.0),
    (4, 4, 1, 2, 1, 1, 1, 1, 1.0),
    (3, 2, 3, 2, 4, 1, 0, 5, 0.5),
    (5, 3, 2, 3, -1, 3, 2, -2, 2.0),
)


def stand_ins(checkout: pathlib.Path) -> tuple[types.ModuleType, types.ModuleType]:
    """Import upfirdn2d and augment with stand-ins for the helpers that compile CUDA kernels or cache constants."""

    def constant(value, shape=None, device=None):
        tensor = torch.as_tensor(np.asarray(value), dtype=torch.float32, device=device)
        return tensor if shape is None else tensor.broadcast_to(shape)

    def module(name: str, **names) -> types.ModuleType:
        made = types.ModuleType(name)
        vars(made).update(names)
        sys.modules[name] = made
        return made

    misc = module("torch_utils.misc", constant=constant, profiled_function=lambda f: f, assert_shape=lambda *_: None)
    misc.suppress_tracer_warnings = torch.no_grad
    persistence = module("torch_utils.persistence", persistent_class=lambda cls: cls)
    conv = module("torch_utils.ops.conv2d_gradfix", conv2d=torch.nn.functional.conv2d)

    def grid_sample(x, grid):
        return torch.nn.functional.grid_sample(x, grid, "bilinear", "zeros", align_corners=False)

    sample = module("torch_utils.ops.grid_sample_gradfix", grid_sample=grid_sample)
    ops = module("torch_utils.ops", conv2d_gradfix=conv, grid_sample_gradfix=sample, __path__=[])
    module("torch_utils.custom_ops")
    module("torch_utils", misc=misc, persistence=persistence, ops=ops, __path__=[])
    ops.upfirdn2d = loaded("torch_utils.ops.upfirdn2d", checkout / "torch_utils" / "ops" / "upfirdn2d.py")
    return ops.upfirdn2d, loaded("augment", checkout / "training" / "augment.py")


def loaded(name: str, path: pathlib.Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def recorded(call) -> tuple[torch.Tensor, list[np.ndarray]]:
    """Return the result of a call, and the numbers that it drew."""
    random, drawn = np.random.RandomState(3), []

    def record(numbers: np.ndarray) -> torch.Tensor:
        drawn.append(np.asarray(numbers))
        return torch.as_tensor(np.asarray(numbers))

    def rand(*size, **_):
        return record(random.uniform(size=size[0] if isinstance(size[0], list) else size).astype(np.float32))

    def randn(size, **_):
        return record(random.standard_normal(size).astype(np.float32))

    def randint(low, high, size, **_):
        return record(random.randint(low, high, size))

    before = torch.rand, torch.randn, torch.randint
    torch.rand, torch.randn, torch.randint = rand, randn, randint
    try:
        return call(), drawn
    finally:
        torch.rand, torch.randn, torch.randint = before


def ada(augment: types.ModuleType, case: str, operations: str, x: np.ndarray) -> dict[str, np.ndarray]:
    """Run operations at p = 1: each draws its value, then whether it is applied, which it always is."""
    pipe = augment.AugmentPipe(**dict.fromkeys(operations.split(), 1))
    b, height, width, channels = x.shape
    out, drawn = recorded(lambda: pipe(torch.from_numpy(x).permute(0, 3, 1, 2)))
    sides = np.array([[width, height]], np.float32)

    def angle(u):
        return math.pi * (2 * u - 1)

    # The value of an operation that does nothing, and an operation's value by what it draws, in the order of drawing.
    table = {
        "xflip": (np.zeros(b), lambda u: np.floor(2 * u)),
        "rotate90": (np.zeros(b), lambda u: np.floor(4 * u)),
        "xint": (np.zeros((b, 2)), lambda u: np.round((2 * u - 1) * np.float32(0.125) * sides)),
        "scale": (np.ones(b), lambda n: np.exp2(0.2 * n)),
        "rotate": (np.zeros(b), angle),
        "aniso": (np.ones(b), lambda n: np.exp2(0.2 * n)),
        "rotate_after": (np.zeros(b), angle),
        "xfrac": (np.zeros((b, 2)), lambda n: 0.125 * n * sides),
        "brightness": (np.zeros(b), lambda n: 0.2 * n),
        "contrast": (np.ones(b), lambda n: np.exp2(0.5 * n)),
        "lumaflip": (np.zeros(b), lambda u: np.floor(2 * u)),
        "hue": (np.zeros(b), angle),
        "saturation": (np.ones(b), np.exp2),
        "cutout": (np.zeros((b, 3)), lambda u: np.concatenate([u.reshape(b, 2), np.full((b, 1), 0.5)], 1)),
    }
    if "cutout" in operations.split():
        drawn[-2:] = drawn[:-3:-1]  # it alone draws its value last
    left, draws, on = drawn[::2], {}, operations.split()
    for name, (neutral, value) in table.items():
        used = name.removesuffix("_after") in on and (channels == 3 or name not in ("hue", "saturation"))
        draws[name] = value(left.pop(0).reshape(b, -1).squeeze()) if used else neutral
    assert not left
    result = {f"{case}_{name}": value.astype(np.float32) for name, value in draws.items()}
    return result | {case: out.permute(0, 2, 3, 1).contiguous().numpy()}


def diffaugment(reference: types.ModuleType) -> dict[str, np.ndarray]:
    height, width = 16, 8
    x = torch.from_numpy(image(height, width, 3, batch=4)).permute(0, 3, 1, 2)
    out, drawn = recorded(lambda: reference.DiffAugment(x, "color,translation,cutout"))
    brightness, saturation, contrast, down, right, row, column = (d.reshape(4) for d in drawn)
    return {
        "diff": out.permute(0, 2, 3, 1).contiguous().numpy(),
        "diff_brightness": brightness - 0.5,
        "diff_saturation": 2 * saturation,
        "diff_contrast": contrast + 0.5,
        # Its numbers are where a pixel comes from, and where the hole's middle is.
        "diff_shift": -np.stack([down, right], 1).astype(np.int32),
        "diff_hole": np.stack([row - height // 4, column - width // 4], 1).astype(np.int32),
    }


def main(stylegan: str, efficient: str) -> None:
    upfirdn, augment = stand_ins(pathlib.Path(stylegan))
    arrays = {"upfirdn_cases": np.array(CASES, np.float32)}
    x = torch.from_numpy(image(7, 6, 2)).permute(0, 3, 1, 2)
    for i, (rows, columns, up, down, *pad, gain) in enumerate(CASES):
        kernel = torch.from_numpy(array(f"kernel {i}", (rows, columns)))
        y = upfirdn.upfirdn2d(x, kernel, up=up, down=down, padding=pad, gain=gain)
        arrays[f"upfirdn_{i}"] = y.permute(0, 2, 3, 1).contiguous().numpy()
    every = "xflip rotate90 xint scale rotate aniso xfrac brightness contrast lumaflip hue saturation cutout"
    arrays |= ada(augment, "ada_colour", every, image(16, 12, 3, batch=8))
    arrays |= ada(augment, "ada_grey", every, image(8, 8, 1, batch=8))
    # The reference reflects no further than it must: here by much less than a whole side.
    arrays |= ada(augment, "ada_near", "scale xfrac", image(32, 32, 1, batch=2))
    arrays |= diffaugment(loaded("diffaugment", pathlib.Path(efficient) / "DiffAugment_pytorch.py"))
    np.savez_compressed(HERE / "gan_augment.npz", **arrays)
    print({k: (v.shape, float(v.std())) for k, v in arrays.items()})


if __name__ == "__main__":
    main(*sys.argv[1:])
