"""jaxgen's side of benchmarks/against_torch.py: compiled training steps on fake data, and compiled samplers."""

import argparse
import dataclasses
import json
import pathlib
import platform
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from step_server import BATCHES, DTYPES, EVALUATIONS, SAMPLING, TEXT_SAMPLING, TRAINING, Workload, serve

from jaxgen.adversarial.losses import NonSaturating
from jaxgen.data.batches import DataSpec, Pipeline, rows_at
from jaxgen.data.fake import FakeCaptions, FakeLabels, FakeLatents, FakeMasks
from jaxgen.diffusion.guidance import ClassifierFree
from jaxgen.diffusion.noise_distributions import LogitNormal, LogNormal, Uniform
from jaxgen.diffusion.path import Edm, Flow, LinearBetas
from jaxgen.diffusion.predictions import Direct, EdmPreconditioning
from jaxgen.diffusion.quantities import Eps, Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho, Trailing, UniformTime
from jaxgen.diffusion.solvers import Euler, Heun
from jaxgen.diffusion.stochastic import Ancestral
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.dcgan import DcganDiscriminator, DcganGenerator
from jaxgen.models.dit import DiT, S
from jaxgen.models.fcn_resnet import FcnResnet
from jaxgen.models.resnet import ResNet
from jaxgen.models.songunet import SongUNet
from jaxgen.models.text_transformer import TextTransformer
from jaxgen.models.text_unet import TextUNet
from jaxgen.nn.conditioning import one_hot
from jaxgen.objectives.classification import Classification
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.objectives.gan import Gan
from jaxgen.objectives.segmentation import Segmentation
from jaxgen.objectives.text import Text
from jaxgen.optim.ema import ConstantEma
from jaxgen.optim.optimizer import Adam, Optimizer, Sgd
from jaxgen.optim.schedules import Constant
from jaxgen.parallel import huge_pages
from jaxgen.parallel.mesh import put_batch
from jaxgen.pictures.pixels import to_float
from jaxgen.plan.flops import flops
from jaxgen.program import Program
from jaxgen.sampling import draw
from jaxgen.typing import Precision


def _experiment(objective: Any, source: Any, batch_size: int) -> Experiment:
    pipeline = Pipeline(source=source)
    return Experiment(objective=objective, train=pipeline, test=pipeline, steps=1_000_000, batch_size=batch_size)


def _sgd(rate: float, decay: float) -> Optimizer:
    # The mask finds every parameter: torch's optimizers decay all that they are given.
    return Optimizer(learning_rate=Constant(value=rate), method=Sgd(), weight_decay=decay, weight_decay_mask="")


def _adam(rate: float, b1: float = 0.9) -> Optimizer:
    return Optimizer(learning_rate=Constant(value=rate), method=Adam(b1=b1))


def resnet18(dtype: Precision) -> Experiment:
    net = Learner(module=ResNet(classes=1000, depth=18, dtype=dtype), optimizer=_sgd(0.1, 5e-4))
    source = FakeLabels(height=32, width=32, classes=1000, size=32 * BATCHES)
    return _experiment(Classification(net=net), source, 32)


def fcn_resnet50(dtype: Precision) -> Experiment:
    net = Learner(module=FcnResnet(classes=21, depth=50, dtype=dtype), optimizer=_sgd(0.01, 1e-4))
    source = FakeMasks(height=96, width=96, classes=21, size=4 * BATCHES)
    return _experiment(Segmentation(net=net, aux_weight=0.5), source, 4)


def _edm(module: SongUNet, sampling: Sampling) -> Diffusion:
    return Diffusion(
        net=Learner(module=module, optimizer=_adam(1e-3), ema=(ConstantEma(decay=0.999),)),
        path=Edm(),
        prediction=EdmPreconditioning(sigma_data=0.5),
        noise_distribution=LogNormal(mean=-1.2, std=1.2),
        sampling=sampling,
    )


def songunet(dtype: Precision) -> Experiment:
    module = SongUNet(model_channels=64, multipliers=(1, 2, 2), blocks=2, attention=(16,), dtype=dtype)
    objective = _edm(module, Sampling(solver=Heun(), schedule=Rho(steps=18)))
    return _experiment(objective, FakeLabels(height=32, width=32, classes=0, size=16 * BATCHES), 16)


def sampler(dtype: Precision, count: int) -> Experiment:
    """The net of configs/diffusion/digits_edm.py, which draws `count` images a call."""
    module = SongUNet(model_channels=32, multipliers=(1, 2), blocks=1, attention=(), dtype=dtype)
    objective = _edm(module, Sampling(solver=Euler(), schedule=Rho(steps=EVALUATIONS)))
    experiment = _experiment(objective, FakeLabels(height=8, width=8, channels=1, classes=0, size=count), count)
    return dataclasses.replace(experiment, test_batch_size=count)


def text_sampler(dtype: Precision, count: int) -> Experiment:
    """The nets of configs/text_to_image/emoji_unet.py, which draw `count` latents a call from as many texts."""
    encoder = TextTransformer(vocabulary=2048, length=16, width=128, depth=2, heads=4, dtype=dtype)
    objective = Diffusion(
        net=Learner(
            module=TextUNet(model_channels=48, multipliers=(1, 2), groups=16, dtype=dtype), optimizer=_adam(1e-3)
        ),
        text=(Text(encoder=Learner(module=encoder, optimizer=_adam(1e-3))),),
        path=Flow(),
        prediction=Direct(quantity=Velocity(), time_scale=10.0),
        noise_distribution=LogitNormal(),
        sampling=Sampling(solver=Euler(), schedule=UniformTime(steps=EVALUATIONS), guidance=ClassifierFree(scale=3.0)),
        condition_dropout=0.1,
    )
    source = FakeCaptions(height=8, width=8, channels=8, size=count, length=16, vocabulary=2048)
    return dataclasses.replace(_experiment(objective, source, count), test_batch_size=count)


def dit_s2(dtype: Precision) -> Experiment:
    # Unrolled as a loop over blocks in Python is: a scan copies what it keeps of each.
    module = DiT(**S, patch=2, unroll=12, classes=1000, dtype=dtype)
    objective = Diffusion(
        net=Learner(module=module, optimizer=_adam(1e-4), ema=(ConstantEma(decay=0.9999),)),
        path=LinearBetas(),
        prediction=Direct(quantity=Eps()),
        noise_distribution=Uniform(),
        sampling=Sampling(solver=Ancestral(), schedule=Trailing(steps=250)),
        condition_dropout=0.1,
    )
    return _experiment(objective, FakeLatents(size=8 * BATCHES), 8)


def dcgan(dtype: Precision) -> Experiment:
    generator = DcganGenerator(widths=(256, 128, 64), dtype=dtype)
    discriminator = DcganDiscriminator(widths=(64, 128, 256), dtype=dtype)
    objective = Gan(
        generator=Learner(module=generator, optimizer=_adam(2e-4, 0.5)),
        discriminator=Learner(module=discriminator, optimizer=_adam(2e-4, 0.5)),
        loss=NonSaturating(),
        penalties=(),
    )
    return _experiment(objective, FakeLabels(height=32, width=32, classes=0, size=64 * BATCHES), 64)


EXPERIMENTS: dict[str, Callable[[Precision], Experiment]] = {
    "resnet18": resnet18,
    "fcn_resnet50": fcn_resnet50,
    "songunet": songunet,
    "dit_s2": dit_s2,
    "dcgan": dcgan,
}


def host_batches(experiment: Experiment) -> list[dict[str, Any]]:
    """Read the batches without Grain, in order."""
    examples, n = experiment.train.source.open(), experiment.batch_size
    return [rows_at(examples, (), range(k * n, (k + 1) * n)) for k in range(BATCHES)]


def write_batches(experiment: Experiment, folder: pathlib.Path) -> None:
    """Write raw bytes, and beside them what they mean, for a side that may lack numpy."""
    folder.mkdir(parents=True)
    listed = []
    for k, batch in enumerate(host_batches(experiment)):
        for name, rows in batch.items():
            (folder / f"{k}_{name}.bin").write_bytes(rows.tobytes())
        listed.append({name: (f"{k}_{name}.bin", rows.dtype.name, rows.shape) for name, rows in batch.items()})
    (folder / "batches.json").write_text(json.dumps(listed))


def program(experiment: Experiment) -> Program:
    """Lay an experiment out on one device: torch's side uses one."""
    return Program.of(experiment, DataSpec.of(experiment.train.source.open(), ()), jax.devices()[:1])


def forward_flops(program: Program) -> int:
    """Count each net once, a discriminator twice: on real images and on fakes."""
    objective: Any = program.objective
    image = jnp.zeros(program.spec["image"].shape)
    b, key = len(image), jax.random.key(0)
    if isinstance(objective, Gan):
        z = jnp.zeros((b, objective.generator.module.latent))
        calls = [("generator", (z, {}, jax.random.split(key, b))), *[("discriminator", (image, {}))] * 2]
    elif isinstance(objective, Diffusion):
        condition = {"label": one_hot(jnp.zeros(b, jnp.int32), objective.classes)} if objective.classes else {}
        if objective.text:
            encoder = objective.text[0].encoder.module
            condition = {"text": jnp.zeros((b, encoder.length, encoder.width)), "pooled": jnp.zeros((b, encoder.width))}
        calls = [("net", (image, jnp.ones(b), condition))]
    else:
        calls = [("net", (to_float(image),))]
    total = 0
    for name, inputs in calls:
        net = program.shapes.nets[name]
        total += flops(objective.learners[name].train, net.params, net.stats, key, *inputs)
    return total


class Training:
    """An experiment's state, and the step that the house's loop makes."""

    def __init__(self, experiment: Experiment):
        self.program = program(experiment)
        self.batches = [put_batch(self.program.mesh, batch) for batch in host_batches(experiment)]
        self.state, self.scalars = self.program.init(), {}

    def step(self, number: int) -> None:
        self.state, self.scalars = self.program.step(self.state, self.batches[number % BATCHES])

    def wait(self) -> None:
        jax.block_until_ready((self.state, self.scalars))


class Drawing:
    """An untrained net, and the sampler that `jaxgen sample` calls."""

    def __init__(self, experiment: Experiment):
        self.program = program(experiment)
        self.state = self.program.init()

    def step(self, number: int) -> None:
        count = self.program.experiment.test_batch_size
        draw(self.program, self.state, range(number * count, (number + 1) * count))

    def wait(self) -> None:
        """Do nothing: samples are on the host when `step` returns."""


def workload(name: str, dtype: Precision) -> Workload:
    jax.clear_caches()
    if name in SAMPLING:
        made = Drawing(sampler(dtype, SAMPLING[name]))
    elif name in TEXT_SAMPLING:
        made = Drawing(text_sampler(dtype, TEXT_SAMPLING[name]))
    else:
        made = Training(EXPERIMENTS[name](dtype))
    nets = made.program.shapes.nets.values()
    return Workload(
        parameters=sum(x.size for net in nets for x in jax.tree.leaves(net.params)),
        forward_flops=forward_flops(made.program),
        step=made.step,
        wait=made.wait,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=pathlib.Path, help="where to write the batches, for torch's side")
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    args = parser.parse_args()
    for name in TRAINING:
        write_batches(EXPERIMENTS[name](args.dtype), args.folder / name)
    device = jax.devices()[0]
    kind = device.device_kind if device.platform == "gpu" else platform.machine()
    hello = {"platform": device.platform, "device": kind, "versions": f"jax {jax.__version__}"}
    serve(hello, lambda name: workload(name, args.dtype))
    return 0


if __name__ == "__main__":
    huge_pages.ask()
    sys.exit(main())
