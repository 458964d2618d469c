"""What can be known before the first step is refused before it."""

import collections
import dataclasses
import errno
import os
import shutil

import jax
import numpy as np
import pytest
from small import classification, diffusion, gan, linear, segmentation

from jaxgen import cli, loop
from jaxgen.data.augment import CenterCrop
from jaxgen.data.batches import Pipeline
from jaxgen.data.mixture import Ring
from jaxgen.errors import UserError
from jaxgen.features.digits_cnn import DigitsCnn
from jaxgen.metrics.class_accuracy import ClassAccuracy
from jaxgen.metrics.distribution import Distribution
from jaxgen.metrics.likelihood import Likelihood
from jaxgen.metrics.modes import Modes
from jaxgen.metrics.stacked_modes import StackedModes
from jaxgen.plan.fake_data import with_fake
from jaxgen.program import Program
from jaxgen.runs import checks
from jaxgen.runs.folder import RunFolder


@dataclasses.dataclass(frozen=True)
class Given:
    """Blank images of these sizes, of these classes, with labels or masks."""

    classes: tuple[str, ...] = ("class 0", "class 1", "class 2", "class 3")
    sizes: tuple[tuple[int, int], ...] = ((8, 8),) * 20
    masks: bool = False

    def open(self) -> "Given":
        return self

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        image = np.zeros((*self.sizes[index], 3 if self.masks else 1), np.uint8)
        return {"image": image} | ({"mask": image[..., 0]} if self.masks else {"label": np.array(0, np.int32)})


def refused(experiment, tmp_path) -> str:
    """Train, which must be refused in two lines at most and leave nothing."""
    with pytest.raises(UserError) as caught:
        loop.train(experiment, RunFolder(tmp_path / "run"))
    assert not (tmp_path / "run").exists()
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def on(made, train, test=None):
    return dataclasses.replace(
        made, train=Pipeline(source=train), test=Pipeline(source=train if test is None else test)
    )


# --- classes and sizes ------------------------------------------------------------------------------------------------


def test_one_class_cannot_be_told_apart(tmp_path):
    made = segmentation()
    module = dataclasses.replace(made.objective.net.module, classes=1)
    objective = dataclasses.replace(made.objective, net=dataclasses.replace(made.objective.net, module=module))
    source = Given(classes=("disc",), sizes=((32, 32),) * 9, masks=True)
    said = refused(on(dataclasses.replace(made, objective=objective), source), tmp_path)
    assert "the data have 1 class (disc), from which nothing can be told apart; name two or more" in said


def test_one_output_is_planned_for_two_classes():
    made = segmentation()
    module = dataclasses.replace(made.objective.net.module, classes=1)
    objective = dataclasses.replace(made.objective, net=dataclasses.replace(made.objective.net, module=module))
    planned = with_fake(dataclasses.replace(made, objective=objective))
    assert len(Program.of(planned).data.classes) == 2


def test_two_classes_of_one_name_are_refused(tmp_path):
    assert refused(on(linear(), Given(classes=("a", "b", "a", "c"))), tmp_path) == (
        "two classes are called 'a'; give each class a name of its own"
    )


def test_training_and_test_data_have_the_same_classes_in_the_same_order(tmp_path):
    said = refused(on(linear(), Given(classes=("a", "b", "c", "d")), Given(classes=("a", "c", "b", "d"))), tmp_path)
    assert "class 1 is 'b' in the training data and 'c' in the test data" in said


@pytest.mark.parametrize("name", ["training", "test"])
def test_no_examples_are_refused(tmp_path, name):
    sources = {"training": Given(), "test": Given()} | {name: Given(sizes=())}
    assert refused(on(linear(), *sources.values()), tmp_path) == f"there are no {name} examples"


def test_test_images_that_the_net_cannot_read_are_refused(tmp_path):
    said = refused(on(linear(), Given(), Given(sizes=((8, 9),) * 9)), tmp_path)
    assert said.startswith("the net learns from images of 8x8x1 and cannot be measured on test images of 8x9x1")


def test_test_images_of_other_channels_are_refused(tmp_path):
    made = linear()
    other = dataclasses.replace(made.test.source, channels=3)
    said = refused(dataclasses.replace(made, test=Pipeline(source=other)), tmp_path)
    assert said == "an image is uint8 8x8x1 in the run and uint8 8x8x3 in the data"


@pytest.mark.parametrize("which", ["train", "test"])
def test_images_of_other_sizes_late_in_the_data_are_found(tmp_path, which):
    late = Given(sizes=((8, 8),) * 60 + ((8, 9),))
    sources = {"train": Given(), "test": Given()} | {which: late}
    assert "image: the sizes in a batch differ (8x8x1, 8x9x1)" in refused(on(linear(), *sources.values()), tmp_path)


def test_images_that_differ_in_size_are_measured_one_by_one(tmp_path):
    sizes = Given(classes=("a", "b", "c"), sizes=((32, 32), (48, 32), (32, 64)), masks=True)
    train = dataclasses.replace(sizes, sizes=((32, 32),) * 8)
    made = dataclasses.replace(on(segmentation(), train, sizes), steps=1, test_batch_size=1, preview_every=1)
    program = Program.of(made, devices=jax.devices()[:1])
    checks.check(program, train, sizes)
    together = dataclasses.replace(made, test_batch_size=3)
    with pytest.raises(UserError, match="sizes in a batch differ"):
        checks.check(dataclasses.replace(program, experiment=together), train, sizes)


def test_a_crop_that_images_are_too_small_for_is_refused(tmp_path):
    made = on(linear(), Given())
    test = Pipeline(source=Given(), transforms=(CenterCrop(4, 4),))
    assert "cannot be measured on test images of 4x4x1" in refused(dataclasses.replace(made, test=test), tmp_path)


# --- metrics of samples -----------------------------------------------------------------------------------------------

FEATURES = DigitsCnn()
METRICS = {
    "of a classifier": (classification, Likelihood(), "Classification makes no samples to measure"),
    "too few test examples": (diffusion, Distribution(features=FEATURES, samples=9, neighbours=13), "13 test examples"),
    "too few samples": (
        diffusion,
        Distribution(features=FEATURES, samples=4),
        "4 generated examples have",
    ),
    "not digits": (diffusion, ClassAccuracy(), "ClassAccuracy reads the digits 0..9, not class 0, class 1, class 2"),
    "pictures as points": (diffusion, Modes(source=Ring()), "not that of points in the plane of Ring"),
    "one channel": (diffusion, StackedModes(), "StackedModes reads pictures of 8x8x3, not 8x8x1"),
    "no likelihood": (gan, Likelihood(), "Gan has no likelihood; remove Likelihood"),
    "no metric": (gan, Ring(), "metrics: Ring is no metric: it has no `measure`"),
}


@pytest.mark.parametrize(("make", "metric", "said"), METRICS.values(), ids=METRICS.keys())
def test_a_metric_that_cannot_be_measured_is_refused_before_the_training(tmp_path, make, metric, said):
    assert said in refused(dataclasses.replace(make(), metrics=(metric,)), tmp_path)


def test_two_metrics_of_the_same_numbers_are_refused(tmp_path):
    metric = Distribution(features=FEATURES, samples=9, neighbours=2)
    made = dataclasses.replace(diffusion(), metrics=(metric, dataclasses.replace(metric, samples=10)))
    assert "two metrics give coverage, density, fd_digits_cnn" in refused(made, tmp_path)


def test_features_of_another_size_are_refused(tmp_path):
    made = diffusion()
    wide = [dataclasses.replace(p, source=dataclasses.replace(p.source, width=16)) for p in (made.train, made.test)]
    metric = Distribution(features=FEATURES, samples=9, neighbours=2)
    made = dataclasses.replace(made, train=wide[0], test=wide[1], metrics=(metric,))
    said = refused(made, tmp_path)
    assert "Distribution of digits_cnn: DigitsCnn reads pictures of 8x8x1, not 8x16x1" in said


# --- the disk ---------------------------------------------------------------------------------------------------------

Usage = collections.namedtuple("Usage", "total used free")


def test_a_disk_without_room_for_a_checkpoint_is_refused(tmp_path, monkeypatch):
    program = Program.of(linear())
    size = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(program.shapes))
    folder = RunFolder(tmp_path)

    def with_free(free):
        monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**9, 0, free))
        return checks.check_room(program, folder)

    assert with_free(3 * size) == []
    (said,) = with_free(2 * size)
    assert said.startswith("warning: a checkpoint takes 4.17 kB, and ")
    (tmp_path / "checkpoints" / "3").mkdir(parents=True)  # one of those that are kept is there
    assert with_free(2 * size) == []
    with pytest.raises(UserError, match=r"a checkpoint takes 4.17 kB, and .* has 4.17 kB left; make room"):
        with_free(size - 1)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_takes_no_more_is_said_in_a_line(capsys, number):
    def write():
        raise OSError(number, os.strerror(number), "run/metrics.jsonl")

    assert cli._guarded(write) == 2
    said = capsys.readouterr().err
    assert said == f"error: run/metrics.jsonl: {os.strerror(number)}; what was saved before is whole\n"


def test_other_errors_of_the_system_keep_their_traceback():
    def look():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x")

    with pytest.raises(FileNotFoundError):
        cli._guarded(look)
