"""Images of any number of channels and of either type, through every transform and through training."""

import dataclasses
import pathlib

import numpy as np
import pytest
import small
from PIL import Image
from test_data_augment import ALL, run
from test_data_forms import npy

from jaxgen import loop
from jaxgen.data import geometry
from jaxgen.data.augment import (
    Cutout,
    Flip,
    PadCrop,
    PadTo,
    Photometric,
    RandomResizedCrop,
    RandomScaleCrop,
    Resize,
    Unlabelled,
)
from jaxgen.data.batches import DataSpec, Pipeline
from jaxgen.data.folder import Folder, Images
from jaxgen.data.source import Source
from jaxgen.diffusion.sampling import Sampling
from jaxgen.errors import UserError
from jaxgen.experiment import Experiment
from jaxgen.program import Program
from jaxgen.runs.folder import RunFolder

MOVES = [transform for transform in ALL if not isinstance(transform, Photometric | Cutout)]


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
@pytest.mark.parametrize("transform", MOVES, ids=str)
def test_what_moves_an_image_moves_each_of_its_channels_alike(transform, channels):
    bytes_ = np.random.default_rng(0).integers(0, 256, (60, 76, channels), np.uint8)
    for image in (bytes_, bytes_.astype(np.float32) / 255):
        moved = run(transform, {"image": image})["image"]
        assert moved.dtype == image.dtype
        assert moved.shape[2] == channels
        for c in range(channels):
            alone = run(transform, {"image": np.ascontiguousarray(image[..., c : c + 1])})["image"]
            assert np.allclose(moved[..., c], alone[..., 0], atol=1e-6)


@pytest.mark.parametrize(("channels", "colours"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 3)])
def test_photometric_changes_colours_alone(channels, colours):
    image = np.random.default_rng(0).integers(0, 256, (9, 7, channels), np.uint8)
    out = run(Photometric(0.5, 0.5, 0.5, 0.5), {"image": image})["image"]
    assert np.array_equal(out[..., colours:], image[..., colours:])
    assert (out[..., :colours] != image[..., :colours]).mean() > 0.9
    plain = run(Photometric(0.5, 0.5, 0.5, 0.5), {"image": np.ascontiguousarray(image[..., :colours])})["image"]
    assert np.array_equal(out[..., :colours], plain)  # what is not colour has no say in it
    with pytest.raises(UserError, match="Photometric changes bytes; the image is float32"):
        run(Photometric(), {"image": image.astype(np.float32)})


@pytest.mark.parametrize(("channels", "colours"), [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5)])
def test_cutout_paints_colours_alone(channels, colours):
    image = np.random.default_rng(0).integers(0, 256, (8, 8, channels), np.uint8)
    out = run(Cutout(40), {"image": image})["image"]
    assert np.array_equal(out[..., colours:], image[..., colours:])
    assert (out[..., :colours] == geometry.mean_colour(image)[:colours]).all()
    latent = image.astype(np.float32) / 255  # which has no alpha
    assert (run(Cutout(40), {"image": latent})["image"] == geometry.mean_colour(latent)).all()


def test_padding_of_floats_is_their_mean():
    image = np.full((4, 4, 3), -0.75, np.float32)
    assert np.array_equal(run(PadTo(6, 6), {"image": image})["image"], np.full((6, 6, 3), -0.75, np.float32))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Resize(0, 64), "Resize.height is 0; it must be at least 1"),
        (lambda: PadCrop(32, 32, pad=-1), "PadCrop.pad is -1; it must be at least 0"),
        (lambda: Flip(2.0), "Flip.probability is 2.0; it must be from 0 to 1"),
        (lambda: RandomScaleCrop(8, 8, low=2.0, high=0.5), "factors go from low to high"),
        (lambda: RandomResizedCrop(8, 8, scale=(0.5, 2.0)), "a share of the area is at most 1"),
    ],
)
def test_numbers_that_no_image_fits_are_refused_when_they_are_written(make, said):
    with pytest.raises(UserError, match=said):
        make()


# --- trained ----------------------------------------------------------------------------------------------------------


def arrays(root: pathlib.Path, channels: int) -> None:
    rng = np.random.default_rng(0)
    for name in ("a", "b", "c", "d"):
        (root / name).mkdir()
        for i in range(6):
            (root / name / f"{i}.npy").write_bytes(npy(rng.integers(0, 256, (10, 12, channels), np.uint8)))


def on(experiment: Experiment, source: Source) -> Experiment:
    """The experiment for two steps on the sides of a folder."""
    sides = [dataclasses.replace(source, split=split, share=0.6) for split in ("train", "test")]
    return dataclasses.replace(
        experiment,
        train=Pipeline(source=sides[0], transforms=(Resize(8, 8), Flip(), Photometric(), Cutout(2))),
        test=Pipeline(source=sides[1], transforms=(Resize(8, 8),)),
        steps=2, batch_size=16, test_batch_size=8, preview_every=2, checkpoint_every=2, log_every=1,
    )  # fmt: skip


@pytest.mark.parametrize("channels", [pytest.param(2, marks=pytest.mark.slow), 5])
def test_a_net_trains_and_shows_images_of_any_number_of_channels(tmp_path, channels):
    arrays(tmp_path, channels)
    folder = RunFolder(tmp_path.parent / f"run{channels}")
    loop.train(on(small.linear(), Folder(str(tmp_path), channels=channels)), folder)
    (preview,) = folder.path.glob("previews/step_00000002_*.png")
    assert np.asarray(Image.open(preview)).std() > 10


def unconditional(name: str) -> Experiment:
    experiment = getattr(small, name)()
    objective = small.with_nets(experiment.objective, lambda net: dataclasses.replace(net, classes=0))
    if name == "diffusion":
        plain = Sampling(solver=objective.sampling.solver, schedule=objective.sampling.schedule)
        objective = dataclasses.replace(objective, condition_dropout=0.0, sampling=plain)
    return dataclasses.replace(experiment, objective=objective)


@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_generators_without_classes_take_images_alone(tmp_path, name):
    arrays(tmp_path, 1)
    experiment = on(unconditional(name), Images(str(tmp_path), channels=1))
    data = DataSpec.of(experiment.train.source.open(), experiment.train.transforms)
    assert (data.classes, list(data.element)) == ((), ["image"])
    Program.of(experiment, data)  # refuses what does not fit
    conditional = dataclasses.replace(experiment, objective=getattr(small, name)().objective)
    with pytest.raises(UserError, match="has 3 classes, but the data has no labels; set"):
        Program.of(conditional, data)
    unlabelled = dataclasses.replace(
        experiment, train=Pipeline(source=Folder(str(tmp_path), channels=1), transforms=(Resize(8, 8), Unlabelled()))
    )
    Program.of(unlabelled, DataSpec.of(unlabelled.train.source.open(), unlabelled.train.transforms))


@pytest.mark.by_hand
@pytest.mark.parametrize("name", ["gan", "diffusion"])
def test_generators_train_on_a_flat_folder(tmp_path, name):
    arrays(tmp_path, 1)
    folder = RunFolder(tmp_path.parent / name)
    loop.train(on(unconditional(name), Images(str(tmp_path), channels=1)), folder)
    assert (folder.path / "eval.json").is_file()
