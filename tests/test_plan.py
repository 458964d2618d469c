"""Plans: arithmetic that must be exact, a roofline by hand, and every config through the TPU's own compiler."""

import dataclasses
import importlib.util
import json
import re
import types

import jax
import numpy as np
import pytest
from processes import ROOT
from small import EXPERIMENTS, KIN, marked

from jaxgen import cli, tree
from jaxgen.config import files as configs
from jaxgen.data.batches import DataSpec
from jaxgen.data.fake import FakeMasks
from jaxgen.data.folder import Folder, SegmentationFolder
from jaxgen.data.mixture import Ring
from jaxgen.diffusion.adaptive import Adaptive
from jaxgen.errors import DataNotFound, UserError
from jaxgen.models.dit import DIT, DiT
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Composed, Fsdp
from jaxgen.plan import chips, compile, fake_data, planner, roofline, scaling, text, topologies
from jaxgen.program import Program

CONFIGS = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "configs").glob("*/*.py"))}
XL = "configs/diffusion/imagenet256_dit_xl2.py"
with_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra `plan`")


def data_of(experiment) -> DataSpec:
    return DataSpec.of(experiment.train.source.open(), experiment.train.transforms)


def small(name="diffusion", **fields):
    made = dataclasses.replace(EXPERIMENTS[name](), **fields)
    return made, data_of(made)


@pytest.fixture
def eight():
    return topologies.topology("cpu:8")


def test_bytes_are_those_of_arithmetic(eight):
    experiment, data = small(mesh=MeshShape(replica=2, fsdp=4), rule=Fsdp(smallest=1))
    told = planner.plan(experiment, data, eight)
    shapes = Program.of(experiment, data, eight.devices).shapes
    count = sum(tree.count(net.params) for net in shapes.nets.values())
    assert told["parameters"] == count
    # By hand: every array's bytes, over four where one of its dimensions divides by four.
    own = lambda x: 4 * x.size // (4 if any(n % 4 == 0 for n in x.shape) else 1)  # noqa: E731
    params = sum(own(leaf) for net in shapes.nets.values() for leaf in jax.tree.leaves(net.params))
    each = told["bytes_per_chip"]
    assert each["parameters"] == params
    assert each["ema"] == 2 * params  # two averages
    assert 2 * params < each["optimizer"] <= 2 * params + 64  # Adam's two moments, and a few counters
    assert each["batch"] == 16 // 8 * (8 * 8 * 1 + 4)
    assert each["total"] == sum(size for kind, size in each.items() if kind != "total")


def test_fake_devices_say_what_they_cannot_tell(eight):
    told = planner.plan(*small("classification"), eight)
    assert told["flops_per_chip_per_step"] > 0
    assert told["collective_bytes"]["by_axis"].keys() == {"replica"}
    assert all(told[name] is None for name in ("fits", "hbm_bytes", "step_seconds", "images_per_second", "mfu"))
    assert "fake devices have no speed" in "\n".join(text.lines(told))
    assert told["unknown_loops"] == 0
    warning = f"warning: a loop of unknown length is {LOW}"
    assert warning in text.lines(told | {"unknown_loops": 1})
    failed = {"topology": "cpu:8", "chips": 8, "batch_size": 8, "error": "too many"}
    assert text.table([failed, told | {"unknown_loops": 1}])[-1] == warning
    assert not any("warning" in line for line in (*text.lines(told), *text.table([failed, told])))


@pytest.mark.slow
def test_tensor_parallel_work_is_shared(eight):
    one, data = small()
    told = planner.plan(one, data, eight)
    both = dataclasses.replace(one, mesh=MeshShape(replica=1, fsdp=4, tensor=2), rule=Composed((DIT, Fsdp(smallest=1))))
    split = planner.plan(both, data, eight)
    assert split["flops_per_chip_per_step"] == told["flops_per_chip_per_step"]
    assert split["bytes_per_chip"]["parameters"] < told["bytes_per_chip"]["parameters"] / 3
    assert set(split["collective_bytes"]["by_axis"]) >= {"fsdp", "tensor"}


@pytest.mark.slow
def test_recomputed_flops_do_not_count_as_the_models(eight):
    experiment, data = small()
    assert roofline.with_remat(experiment, remat=False) == experiment
    spared = roofline.with_remat(experiment, remat=True)
    assert isinstance(spared.objective.net.module, DiT)
    assert spared.objective.net.module.remat
    model = roofline.model_flops(Program.of(spared, data, eight.devices))
    assert model == roofline.model_flops(Program.of(experiment, data, eight.devices))
    assert planner.plan(spared, data, eight)["flops_per_chip_per_step"] > model // 8


@pytest.mark.slow
def test_sampling_is_planned_too(eight):
    experiment, data = small()
    told = planner.plan_sampling(experiment, data, eight)
    # Heun on three levels calls the net five times, for two classes of guidance: ten forward passes.
    step = planner.plan(dataclasses.replace(experiment, batch_size=told["batch_size"]), data, eight)
    share = told["flops_per_chip_per_step"] / step["flops_per_chip_per_step"]
    assert 10 / 3 * 0.9 < share < 10 / 2 * 1.1
    assert "batch" not in told["bytes_per_chip"]
    assert told["unknown_loops"] == step["unknown_loops"] == 0
    with pytest.raises(UserError, match="Classification draws no samples; drop --sample"):
        planner.plan_sampling(*small("classification"), eight)


@pytest.mark.parametrize(
    ("message", "found"),
    [
        (
            "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (16.39G) exceeds available HBM (15.75G). HLO module: jit_step.",
            round(16.39 * 2**30),
        ),
        ("RESOURCE_EXHAUSTED: Used 512.5M of 128.0M vmem", round(512.5 * 2**20)),
        ("RESOURCE_EXHAUSTED: no numbers", None),
        ("INTERNAL: something else (3.0G)", None),
    ],
)
def test_too_little_memory_is_read_from_the_compilers_words(message, found):
    assert compile.needed(message) == found


def devices(shape):
    """Devices with coordinates, row by row."""
    each = [types.SimpleNamespace(coords=[*place]) for place in np.ndindex(*shape)]
    found = np.empty(len(each), object)
    found[:] = each
    return found


@pytest.mark.parametrize(
    ("chip", "shape", "group", "links"),
    [
        (chips.V5E, (4, 4), np.s_[:], 2),  # two sides, open: one way each
        (chips.V5E, (16, 16), np.s_[:], 4),  # two rings: both ways
        (chips.V5E, (4, 16), np.s_[:16], 2),  # along a ring
        (chips.V5E, (4, 16), np.s_[::16], 1),  # along an open side
        (chips.V5E, (16, 16), np.s_[:8], 1),  # half of a ring is none
        (chips.V5P, (4, 4, 4), np.s_[:], 6),
        (chips.V5P, (2, 2, 1), np.s_[:], 2),
    ],
)
def test_links_that_a_group_can_use(chip, shape, group, links):
    assert roofline.egress(list(devices(shape)[group]), chip, shape) == links * chip.link


def test_what_stays_on_a_chip_needs_no_link():
    both = list(devices((2, 2, 1))[[0, 0]])  # a chip of two cores
    assert roofline.egress(both, chips.V7X, (2, 2, 1)) == chips.V7X.bandwidth / 2


def test_a_group_is_what_shares_axes():
    mesh = MeshShape(replica=2, fsdp=4).build()
    ids = lambda axes: {d.id for d in roofline.group_of(mesh, axes)}  # noqa: E731
    assert ids(["fsdp"]) == {0, 1, 2, 3}
    assert ids(["replica"]) == {0, 4}
    assert ids(["replica", "fsdp"]) == set(range(8))


class Limited:
    """In the compiler's place: so many examples fit, twice as many with remat."""

    def __init__(self, limit):
        self.limit, self.calls = limit, 0

    def __call__(self, experiment, data, where):
        self.calls += 1
        limit = self.limit * (2 if getattr(experiment.objective.net.module, "remat", False) else 1)
        return {"fits": experiment.batch_size <= limit}


@pytest.mark.parametrize("limit", [7, 8, 100, 1000, 12345])
def test_the_search_ends_at_the_largest_batch(monkeypatch, eight, limit):
    where = dataclasses.replace(eight, chip=chips.V5E)
    experiment, data = small()
    compiler = Limited(limit)
    monkeypatch.setattr(scaling, "plan", compiler)
    found = scaling.search(experiment, data, where, lambda _: None)
    largest = found["largest_batch"]
    assert largest <= limit
    assert largest % 8 == 0
    assert limit < largest + max(8, largest / 8) + 8
    assert compiler.calls < 30
    assert found["larger"]["fits_with"]["remat"] == (max(largest, 8) <= limit)
    assert found["larger"]["fits_with"]["Fsdp()"] is False
    assert "--objective.microbatches 2" in found["larger"]["fits_with"]
    with pytest.raises(UserError, match="--search needs a chip's memory"):
        scaling.search(experiment, data, eight, lambda _: None)


@pytest.mark.slow
def test_a_table_of_topologies_says_what_does_not_divide(tmp_path):
    experiment, data = small(mesh=MeshShape(replica=2, fsdp=-1), rule=Fsdp())
    places = [topologies.topology("cpu:4"), topologies.topology("cpu:1")]
    rows = scaling.scale(experiment, data, places, None, lambda _: None)
    shown = text.table(rows)
    assert "unknown" in shown[1]
    assert "do not multiply to the 1 device" in shown[2]
    assert [row["efficiency"] for row in rows] == [None, None]
    row = dict.fromkeys(("compute", "memory", "interconnect"), 0.1) | {"bound": "memory"}
    known = {"topology": "v5e:2x2", "batch_size": 8, "chips": 4, "roofline": row, "step_seconds": 0.1,
             "images_per_second": 80.0, "mfu": 0.5}  # fmt: skip
    text.draw([known, *rows], "a config").savefig(tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 5000


# On the command line.


def said(capsys, *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["plan", *arguments])
    out = capsys.readouterr()
    return status, out.out, out.err


def test_a_plan_is_one_object_of_json(capsys, monkeypatch):
    monkeypatch.chdir(ROOT)
    status, out, _ = said(capsys, "configs/classification/digits_cnn.py", "--topology", "cpu:8", "--json")
    assert status == 0
    told = json.loads(out)
    assert {"fits", "bytes_per_chip", "hbm_bytes", "flops_per_chip_per_step", "collective_bytes", "step_seconds",
            "images_per_second", "mfu"} <= told.keys()  # fmt: skip
    assert told["data"] == "its own"
    assert "total" in told["bytes_per_chip"]


@pytest.mark.parametrize(
    ("arguments", "pattern"),
    [
        ((XL, "--topology", "v5x:4x4"), "unknown topology 'v5x:4x4'; known: cpu:256, .*v5e:4x4.*v5p:4x4x4"),
        ((XL, "--topology", "v5e:3x3"), "no slice 'v5e:3x3'; known: v5e:1x1"),
        ((XL,), "say where: --topology"),
        ((XL, "--topology", "cpu:8", "--batch-size", "12"), "batch size 12 does not divide over 8"),
        ((XL, "--topology", "cpu:8", "--mesh.replica", "3"), "do not multiply to the 8 device"),
        ((XL, "--topology", "cpu:8", "--mesh.context", "2", "--mesh.tensor", "2"), "the rule splits nothing over them"),
        ((XL, "--topology", "cpu:6", "--mesh.context", "3"), "32 rows of an image do not divide over the 3 devices"),
        (("configs/diffusion/cifar10_edm.py", "--topology", "cpu:64000"), "has 8 CPU devices already"),
        ((XL, "--topology", "cpu:8", "--mesh.repica", "3"), "unknown option --mesh.repica; perhaps you meant"),
    ],
)
def test_mistakes_are_said_in_a_line(capsys, monkeypatch, arguments, pattern):
    monkeypatch.chdir(ROOT)
    status, _, err = said(capsys, *arguments)
    assert status == 2
    assert len(err.strip().splitlines()) <= 2
    assert re.search(pattern, err), err


def test_without_the_compiler_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"uv run --extra plan jaxgen plan …, or --topology cpu:16"):
        topologies.topology("v5e:4x4")


def test_fake_data_has_the_datas_shape():
    for name, shape in {
        "segmentation/cityscapes_fcn_r50": (512, 1024, 3),
        "diffusion/imagenet256_dit_xl2": (32, 32, 4),
        "gan/ffhq256_r3gan": (256, 256, 3),
        "classification/imagenet_resnet50": (224, 224, 3),
    }.items():
        made = fake_data.with_fake(configs.load(CONFIGS[name]))
        assert data_of(made).element["image"][0] == shape
    digits = configs.load(CONFIGS["diffusion/digits_edm"])
    assert data_of(fake_data.with_fake(digits)).element["image"][0] == (8, 8, 1)
    train, test = (dataclasses.replace(part, source=Folder("nowhere")) for part in (digits.train, digits.test))
    unknown = dataclasses.replace(digits, train=train, test=test)
    with pytest.raises(UserError, match="add --image HEIGHTxWIDTHxCHANNELS"):
        fake_data.with_fake(unknown)
    assert data_of(fake_data.with_fake(unknown, (9, 8, 1))).element["image"][0] == (9, 8, 1)


@dataclasses.dataclass(frozen=True)
class Missing:
    """A source of one's own, which says what fake data would be like, or not."""

    def open(self):
        raise DataNotFound("no data of mine")


@dataclasses.dataclass(frozen=True)
class Described(Missing):
    def shape(self):
        return 12, 16, 3

    def fake(self, shape, classes, count):
        return FakeMasks.of(shape, classes, count)


def on(source, name="segmentation"):
    experiment = EXPERIMENTS[name]()
    parts = {part: dataclasses.replace(getattr(experiment, part), source=source) for part in ("train", "test")}
    return dataclasses.replace(experiment, **parts)


def test_a_source_of_ones_own_says_what_its_fake_data_is():
    experiment, origin = fake_data.with_data(on(Described()))
    assert origin == "fake"
    data = data_of(experiment)
    assert {name: shape for name, (shape, _) in data.element.items()} == {"image": (12, 16, 3), "mask": (12, 16)}
    assert len(data.classes) == 3  # the net's
    with pytest.raises(UserError, match=r"Missing has no `shape` and `fake` .*: its data must be here"):
        fake_data.with_data(on(Missing()))


def test_only_absent_data_is_faked(tmp_path):
    folder = SegmentationFolder(str(tmp_path / "images"), str(tmp_path / "masks"), ("a", "b", "c"))
    assert fake_data.with_data(on(folder), (32, 32, 3))[1] == "fake"
    assert fake_data.with_data(on(Ring(size=8), "gan"))[1] == "its own"
    for name in ("images", "masks"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=r"images holds no images"):
        fake_data.with_data(on(folder), (32, 32, 3))


LOW = "counted once: FLOPs, bytes and times are too low"


@pytest.mark.slow
def test_loops_of_unknown_length_are_said(eight):
    """An adaptive solver goes on until its error is small: its number of steps is not known in advance."""
    experiment, data = small()
    sampling = dataclasses.replace(experiment.objective.sampling, solver=Adaptive())
    objective = dataclasses.replace(experiment.objective, sampling=sampling)
    report = planner.plan_sampling(dataclasses.replace(experiment, objective=objective), data, eight)
    loops = report["unknown_loops"]
    assert loops > 1  # diffrax has loops in loops
    assert text.sampling_lines(report)[-1] == f"  warning: {loops} loops of unknown length are {LOW}"


# By the TPU's compiler.


# Take a minute or two each, or are made of what other configs have, or .ci/run plans them.
BY_HAND = re.compile(
    f"{KIN.pattern}|emoji_unet|emoji_mmdit|scenes_unet|cityscapes_fcn_r50|photos_|chorales_|"
    "emoji_painted|emoji_r3gan|dit_xl2|toy2d|grid25|digits_cnn"
)


@with_libtpu
@pytest.mark.parametrize("name", marked(CONFIGS, re.compile(""), BY_HAND))
def test_it_compiles_for_the_tpu(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    where = topologies.topology("v5e:2x2")
    experiment, _ = fake_data.with_data(configs.load(CONFIGS[name]))
    # Few pictures, so that it fits four small chips; the program is the same.
    experiment = dataclasses.replace(experiment, batch_size=2 * planner.smallest_batch(experiment, where))
    run = Program.of(experiment, data_of(experiment), where.devices)
    lowered = run.step.lower(run.shapes, dict(run.spec))
    made = lowered.compile({"optimization_level": "O0"})  # six times sooner, and the same memory
    kept = sum(planner.kept(run).values())
    # The rest are pictures, whose three channels a TPU pads: 4 MiB beside a small net.
    assert kept <= made.memory_analysis().argument_size_in_bytes < 2 * kept + 2**22


@pytest.mark.by_hand
@with_libtpu
def test_a_transformer_on_a_slice_fits_until_it_does_not():
    where = topologies.topology("v5e:4x4")
    experiment = fake_data.with_fake(configs.load(ROOT / XL))
    data = data_of(experiment)
    told = planner.plan(experiment, data, where)
    assert told["fits"] is True
    assert told["bytes_per_chip"]["total"] < told["hbm_bytes"] == 16 * 2**30
    assert told["parameters"] == 674_816_272
    # Nearly all of it divides by 16: a sixteenth of four bytes each, and as much for the average.
    assert told["bytes_per_chip"]["parameters"] == pytest.approx(4 * told["parameters"] / 16, rel=0.02)
    assert told["bytes_per_chip"]["ema"] == told["bytes_per_chip"]["parameters"]
    # DiT-XL/2 takes 118.6 GFLOP of multiply-adds forward (arXiv:2212.09748, table 1), twice that in FLOPs, and three
    # times that with the backward pass; the forward pass comes once more with remat.
    forward = 2 * 118.6e9 * 256 / 16
    assert told["flops_per_chip_per_step"] == pytest.approx(4 * forward, rel=0.05)
    assert told["mfu"] == pytest.approx(3 * forward / chips.V5E.peak / told["step_seconds"], rel=0.05)
    assert told["collective_bytes"]["by_axis"].keys() == {"fsdp"}
    # Weights are gathered in bfloat16 twice, gradients summed once: a few times the parameters' bytes and no more.
    assert told["collective_bytes"]["total"] < 8 * told["parameters"]
    two = dataclasses.replace(experiment, mesh=MeshShape(replica=2, fsdp=16, slices=2), batch_size=512)
    apart = planner.plan(two, data, topologies.topology("v5e:4x4", 2))
    assert apart["chips"] == 32
    assert apart["fits"] is True
    assert apart["bytes_per_chip"]["parameters"] == told["bytes_per_chip"]["parameters"]
    assert apart["flops_per_chip_per_step"] == told["flops_per_chip_per_step"]
    assert "what slices send to each other is not counted" in text.lines(apart)[-1]
    larger = planner.plan(dataclasses.replace(experiment, batch_size=16384), data, where)
    assert larger["fits"] is False
    assert larger["step_seconds"] is None
    assert "does not fit: needs" in text.fit(larger)
