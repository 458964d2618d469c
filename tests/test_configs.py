"""Every config builds, knows its shapes, states its result, and takes two steps on fake data of its shape."""

import dataclasses
import pathlib
import re
from collections.abc import Callable

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image
from processes import ROOT
from small import KIN, marked, with_learners, with_nets

from jaxgen import tree
from jaxgen.config import catalogue, codec
from jaxgen.config import files as configs
from jaxgen.data import batches
from jaxgen.data.batches import DataSpec
from jaxgen.data.tfds import Tfds
from jaxgen.data.unpaired import Unpaired
from jaxgen.errors import UserError
from jaxgen.evaluation import evaluation_batches, sums
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.autoencoder_kl import AutoencoderKl, Level
from jaxgen.models.dit import DiT
from jaxgen.models.edm2 import Edm2UNet
from jaxgen.models.mmdit import MMDiT
from jaxgen.models.musegan import RollDiscriminator, RollGenerator
from jaxgen.models.patchgan import PatchGan
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.models.resnet_generator import ResnetGenerator
from jaxgen.models.roll_denoiser import RollDenoiser
from jaxgen.models.songunet import SongUNet
from jaxgen.models.stylegan2 import StyleGan2Generator
from jaxgen.models.stylegan2_discriminator import StyleGan2Discriminator
from jaxgen.models.text_transformer import TextTransformer
from jaxgen.objective import Objective
from jaxgen.objectives.gan import Gan
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Replicated
from jaxgen.plan.fake_data import with_fake
from jaxgen.program import Program

CONFIGS = {f"{path.parent.name}/{path.stem}": path for path in sorted((ROOT / "configs").glob("*/*.py"))}
EMBEDDED = re.compile("digits|emoji|scenes|toy2d|ring8|grid25|photos|chorales")
# Take half a minute each to compile.
LONG = re.compile("scenes_unet|emoji_|dit_xl2|cifar10_resnet18")
# Take five to twenty seconds to trace.
LARGE = re.compile("sd15|sd3|div2k_rrdb|scenes_text")
# .ci/run trains the first by the README's commands, at their own size; the others take one to three minutes to compile,
# and test_plan.py compiles most of them for a TPU.
BY_HAND = re.compile(
    f"{KIN.pattern}|digits_edm|scenes_fcn8s|digits_r3gan|emoji_unet|photos_x2_compact|photos_old|emoji_painted|"
    "chorales_|cityscapes_fcn_r50|emoji_mmdit|digits_cnn|grid25"
)
# Too many parameters for a small machine, or minutes to compile on a CPU; test_plan.py compiles them for a TPU.
HUGE = re.compile(
    "xl2|kl_f8|edm2_s|cifar10_edm|cifar10_r3gan|stylegan2_ada|ffhq256|ade20k|cityscapes|voc|sd3|sd15|div2k_rrdb|"
    "monet2photo|horse2zebra"
)
# Pictures as the data set has them: height, width, channels.
RAW = {
    "autoencoder/emoji_": (32, 32, 3),
    "autoencoder/scenes_": (64, 64, 3),
    "text_to_image/emoji_": (32, 32, 3),
    "text_to_image/scenes_": (64, 64, 3),
    "restoration/emoji_": (32, 32, 3),
    "classification/cifar10_resnet18": (32, 32, 3),
    "classification/digits_cnn": (8, 8, 1),
    "diffusion/cifar10_edm": (32, 32, 3),
    "diffusion/digits_": (8, 8, 1),
    "diffusion/imagenet64_edm2_s": (64, 64, 3),
    "diffusion/imagenet256_": (32, 32, 4),
    "diffusion/toy2d_edm": (2,),
    "gan/cifar10_": (32, 32, 3),
    "gan/digits_": (8, 8, 1),
    "gan/emoji_": (32, 32, 3),
    "gan/ffhq256_r3gan": (256, 256, 3),
    "gan/grid25": (2,),
    "gan/ring8": (2,),
    "gan/stacked_digits": (8, 8, 3),
    "music/chorales_": (32, 48, 4),
    "restoration/photos_old": (144, 144, 3),
    "segmentation/cityscapes_fcn_r50": (1024, 2048, 3),
    "segmentation/scenes_": (64, 64, 3),
    "super_resolution/photos_": (128, 128, 3),
    "translation/emoji_": (32, 32, 3),
    "translation/": (256, 256, 3),
}

each = pytest.mark.parametrize("name", CONFIGS)


def rows_of(objective: Objective) -> int:
    """Rows in the smallest batch that divides as the objective wants it."""
    return objective.microbatches * objective.batch_parts


def on_fake_data(name: str, raw: tuple[int, ...]) -> Experiment:
    made = with_fake(configs.load(CONFIGS[name]), raw if len(raw) == 3 else None, count=8)
    test = dataclasses.replace(made.test, source=dataclasses.replace(made.test.source, size=2))
    # From random weights: those of other runs and of files are not here.
    objective = with_learners(made.objective, lambda learner: dataclasses.replace(learner, weights=None))
    objective = with_autoencoder(objective, lambda learner: dataclasses.replace(learner, weights=None))
    return dataclasses.replace(made, objective=objective, test=test, mesh=MeshShape(), rule=Replicated(), metrics=())


def with_autoencoder(objective: Objective, change: Callable[[Learner], Learner]) -> Objective:
    """Return the objective with the frozen autoencoder changed, where it has one."""
    space = getattr(objective, "latent", None)
    if space is None:
        return objective
    latent = dataclasses.replace(space, autoencoder=change(space.autoencoder))
    return dataclasses.replace(objective, latent=latent)


def small_net(net: nn.Module) -> nn.Module:
    """The same with fewer and narrower layers, for pictures of up to 32×32, where it is one that a CPU cannot train."""
    match net:
        case DiT() | MMDiT():
            return net.clone(width=64, depth=2, heads=4)
        case TextTransformer() if net.width > 512:
            return net.clone(width=32, depth=2, heads=4)
        case AutoencoderKl() if net.groups == 32:
            return net.clone(encoder=(Level(8, 0),) * 4, decoder=(Level(8, 0),) * 4, groups=4)
        case PatchGan():
            return net.clone(width=8)
        case ResnetGenerator():
            return net.clone(width=8, blocks=min(net.blocks, 5))
        case Edm2UNet():
            return net.clone(model_channels=16, blocks=1, head_channels=16)
        case SongUNet():
            return net.clone(model_channels=16, blocks=1)
        case RollDenoiser():
            return net.clone(backbone=small_net(net.backbone))
        case RollGenerator() | RollDiscriminator():
            return net.clone(width=16)
        case R3ganGenerator() | R3ganDiscriminator():
            return net.clone(widths=(16,) * min(len(net.widths), 4), blocks=1)
        case StyleGan2Generator():
            return net.clone(side=min(net.side, 32), widest=16, style_size=16)
        case StyleGan2Discriminator():
            return net.clone(widest=16)
    return net


def two_steps(experiment: Experiment, *, evaluate: bool = True) -> list[float]:
    prog = Program.of(experiment, devices=jax.devices()[:1])
    losses = []
    state = prog.init()
    for batch in prog.batches(stop=2):
        state, scalars = prog.step(state, batch)
        losses.append(float(scalars["loss"]))
    test_set = experiment.test.source.open()
    assert not evaluate or sums(prog, state, evaluation_batches(prog, test_set, 1)) is not None
    return losses


def raw_of(name: str) -> tuple[int, ...]:
    return next((size for prefix, size in RAW.items() if name.startswith(prefix)), (375, 500, 3))


def reduced(experiment: Experiment, side: int) -> Experiment:
    """The same with every crop, and every window that slides, cut down to at most `side` pixels."""

    def cut(value):
        names = {f.name for f in dataclasses.fields(value)} & {"height", "width", "size", "stride"}
        smaller = lambda x: tuple(min(i, side) for i in x) if isinstance(x, tuple) else min(x, side)  # noqa: E731
        return dataclasses.replace(value, **{n: smaller(getattr(value, n)) for n in names})

    def less(pipeline):
        return dataclasses.replace(pipeline, transforms=tuple(map(cut, pipeline.transforms)))

    objective = experiment.objective
    if isinstance(objective, Segmentation):
        objective = dataclasses.replace(objective, inference=cut(objective.inference))
    return dataclasses.replace(
        experiment, objective=objective, train=less(experiment.train), test=less(experiment.test)
    )


@pytest.mark.parametrize("name", marked(CONFIGS, LARGE))
def test_its_shapes_are_known_without_data_or_arrays(name):
    made = on_fake_data(name, raw_of(name))
    # Its own batch need not divide over four devices: that is checked where it trains.
    data = DataSpec.of(made.train.source.open(), made.train.transforms)
    prog = Program.laid_out(made, data, jax.devices()[:4])
    made.objective.check(prog.spec, data.classes)
    assert sum(tree.count(net.params) for net in prog.shapes.nets.values()) > 10_000
    assert data.element["image"][0][-1] == raw_of(name)[-1]


@each
def test_it_survives_as_json(name):
    made = configs.load(CONFIGS[name])
    assert codec.decode(codec.encode(made)) == made


@each
def test_it_says_what_it_is_and_its_result(name):
    first, result = catalogue.summary(CONFIGS[name])
    assert len(first) > 20
    measured = re.search(r"\d+(\.\d+)? (min|s) on 2 CPU cores", result) and re.search(r"0\.\d{2,}|\d\d\.\d %", result)
    assert measured or result.startswith("unverified")


@pytest.mark.parametrize("name", marked(CONFIGS, LONG, BY_HAND))
def test_two_steps_of_small_pictures(name):
    side = 64 if isinstance(configs.load(CONFIGS[name]).objective, Segmentation) else 32
    raw = tuple(min(x, side) for x in raw_of(name))
    made = reduced(on_fake_data(name, raw), side)
    objective = with_nets(made.objective, small_net)
    objective = with_autoencoder(objective, lambda one: dataclasses.replace(one, module=small_net(one.module)))
    losses = two_steps(dataclasses.replace(made, objective=objective, batch_size=2 * rows_of(objective)))
    assert np.isfinite(losses).all()
    assert losses[0] > 0 or isinstance(objective, Gan)  # a discriminator's output may lie below 0


@pytest.mark.by_hand
@pytest.mark.parametrize("name", [name for name in CONFIGS if not EMBEDDED.search(name) and not HUGE.search(name)])
def test_two_steps_at_its_own_size(name):
    # As few pictures at a time as can be, and in float32: a CPU emulates bfloat16, ten times slower.
    made = on_fake_data(name, raw_of(name))
    objective = with_nets(made.objective, lambda net: net.clone(dtype="float32"))
    made = dataclasses.replace(made, objective=objective, batch_size=rows_of(objective))
    assert np.isfinite(two_steps(made, evaluate=False)).all()


@pytest.mark.parametrize("name", [name for name in CONFIGS if not EMBEDDED.search(name)])
def test_without_its_data_it_says_what_to_do(name, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    source = configs.load(CONFIGS[name]).train.source
    by_name = isinstance(source, Tfds | Unpaired)
    said = r"uv run --extra prepare tfds build" if by_name else "no folder (data/|pictures)|data/"
    with pytest.raises(UserError, match=said):
        source.open()


def test_a_folder_of_pictures_is_what_ffhq_wants(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "data" / "ffhq256" / "00000"
    folder.mkdir(parents=True)
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (256, 256, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i:05}.png")
    made = configs.load(CONFIGS["gan/ffhq256_r3gan"])
    examples = made.train.source.open()
    assert len(examples) == 3
    assert batches.element(examples, made.train.transforms) == {"image": ((256, 256, 3), np.dtype("uint8"))}


def test_the_three_fcns_differ_in_their_stride_alone():
    made = [configs.load(CONFIGS[f"segmentation/scenes_fcn{stride}s"]) for stride in (8, 16, 32)]
    for other in made[1:]:
        differ = codec.differences(codec.encode(made[0]), codec.encode(other))
        assert [line.split(":")[0] for line in differ] == ["objective.net.module.stride"]


def test_every_config_is_below_a_task():
    assert pathlib.Path("segmentation/scenes_fcn8s") in map(pathlib.Path, CONFIGS)
    assert not list((ROOT / "configs").glob("*.py"))
