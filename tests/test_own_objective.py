"""An objective that a user writes, in a project of their own, goes through every command."""

import json
import pathlib
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxgen import cli

# One net is frozen, the other learns; samples are made for a mask, not for a class.
OBJECTIVE = """
import dataclasses, flax.linen as nn, jax, jax.numpy as jnp
from jaxgen.learner import Learner, blank, first_state, joint_step
from jaxgen.metrics.accumulators import Mean
from jaxgen.noise import normal
from jaxgen.objective import Image, TotalSteps
from jaxgen.pictures.panels import Panels
from jaxgen.pictures.pixels import to_float

class Encoder(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        return nn.BatchNorm(use_running_average=not train)(nn.Conv(4, (3, 3))(x))

class Painter(nn.Module):
    @nn.compact
    def __call__(self, x, condition, *, train):
        return nn.Conv(3, (3, 3))(jnp.concatenate([x, condition["mask"][..., None] / 255.0], -1))

@dataclasses.dataclass(frozen=True, kw_only=True)
class Paint:
    encoder: Learner
    painter: Learner
    microbatches: int = 1
    total_steps: TotalSteps = 1
    batch_parts = 1
    learners = property(lambda self: {"encoder": self.encoder, "painter": self.painter})
    def check(self, spec, classes): assert "mask" in spec
    def init(self, key, spec):
        a, b = jax.random.split(key)
        mask = {"mask": jnp.zeros((1, *spec["mask"].shape[1:]))}
        encoder = self.encoder.init(a, blank(spec), total_steps=self.total_steps)
        painter = self.painter.init(b, jnp.zeros((*blank(spec).shape[:3], 4)), mask, total_steps=self.total_steps)
        return first_state({"encoder": encoder, "painter": painter})
    def step(self, state, batch, key):
        def loss(params, stats, batch, key):
            seen, _, frozen = self.encoder.train(params["encoder"], stats["encoder"], key, to_float(batch["image"]))
            made, _, moved = self.painter.train(params["painter"], stats["painter"], key, seen, batch)
            return jnp.square(made - to_float(batch["image"])).mean(), ({"encoder": frozen, "painter": moved}, {})
        return joint_step(self.learners, state, batch, key, loss, total_steps=self.total_steps)
    def evaluate(self, state, batch, key):
        wrong = jnp.square(self.forward(state, to_float(batch["image"])) - to_float(batch["image"])).mean((1, 2, 3))
        return {"error": Mean.of(wrong, batch["valid"])}
    def preview(self, state, batch, key):
        return {"painted": Panels(images=jnp.clip(self.forward(state, to_float(batch["image"])), -1, 1)[None])}
    # Predictive
    def any_size(self): return True
    def forward(self, state, image):
        seen = self.encoder.infer(state.nets["encoder"], image)
        return self.painter.infer(state.nets["painter"], seen, {"mask": jnp.zeros(image.shape[:3])})
    def predict(self, forward, image): return Image(pixels=forward(image))
    # Generative
    def conditions(self): return ("mask",)
    def check_sampling(self, *, guide): pass
    def with_options(self, options): return self
    def protocol(self): return {"nfe": 1}
    def noise(self, keys, shape): return normal(keys, 0, (*shape[:2], 4))
    def generate(self, state, noise, keys, condition, guide=None):
        return self.painter.infer(state.nets["painter"], noise, condition)
"""
CONFIG = """
import dataclasses
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeMasks
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant
from paint import Encoder, Paint, Painter

def config():
    source = FakeMasks(height=16, width=16, classes=3, size=32)
    return Experiment(
        objective=Paint(
            encoder=Learner(module=Encoder()),
            painter=Learner(module=Painter(), optimizer=Optimizer(learning_rate=Constant(value=1e-2))),
        ),
        train=Pipeline(source=source), test=Pipeline(source=dataclasses.replace(source, size=9)),
        steps=6, batch_size=8, test_batch_size=8, log_every=2, checkpoint_every=3, preview_every=6,
    )
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    folder = tmp_path_factory.mktemp("project")
    (folder / "paint.py").write_text(OBJECTIVE)
    (folder / "mine.py").write_text(CONFIG)
    return folder


@pytest.fixture(autouse=True)
def _inside(project, monkeypatch):
    monkeypatch.chdir(project)
    monkeypatch.syspath_prepend(str(project))


def said(capsys, *arguments: str) -> dict:
    capsys.readouterr()
    assert cli.main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_goes_through_every_command(project, capsys):
    assert cli.train(["mine.py", "--run-dir", "whole"]) == 0
    # Resumed: of the second half only the checkpoint of step 3 is left.
    assert cli.train(["mine.py", "--run-dir", "halves"]) == 0
    shutil.rmtree("halves/checkpoints/6")
    assert cli.train(["mine.py", "--run-dir", "halves"]) == 0
    assert "going on from step 3 of 6" in capsys.readouterr().out
    whole, halves = (said(capsys, "inspect", name) for name in ("whole", "halves"))
    assert whole["digest"] == halves["digest"]
    assert whole["nets"].keys() == {"encoder", "painter"}
    assert not [row for row in whole["arrays"] if row["path"].startswith("nets/encoder/opt")]

    assert said(capsys, "eval", "whole")["metrics"]["error"] > 0
    samples = said(capsys, "sample", "whole", "--n", "11", "--out", "a.png", "--npz", "a.npz")
    assert samples["protocol"] == {"nfe": 1}
    images = np.load("a.npz")["samples"]
    assert images.shape == (11, 16, 16, 3)
    # Nine test examples give the masks in turn; the noise is each sample's own.
    assert np.abs(images[9] - images[0]).max() > 1e-3
    capsys.readouterr()
    assert cli.main(["sample", "whole", "--n", "2", "--out", "a.png", "--label", "1"]) == 2
    assert "drop --label" in capsys.readouterr().err

    Image.fromarray(np.zeros((20, 31, 3), np.uint8)).save("odd.png")
    (row,) = said(capsys, "predict", "whole", "odd.png", "--out", "predicted")["images"]
    with Image.open(row["out"]) as picture:
        assert picture.size == (31, 20)

    plan = said(capsys, "plan", "mine.py", "--topology", "cpu:4", "--sample")
    assert plan["parameters"] == whole["parameters"]
    assert plan["sample"]["batch_size"] == 8
    assert pathlib.Path("whole/previews/step_00000006_painted.png").is_file()


def test_what_it_lacks_is_said(project):
    import mine

    from jaxgen.errors import UserError

    class Half:
        def check(self, spec, classes): ...

    import dataclasses

    with pytest.raises(UserError, match=r"Half is not an Objective: it lacks batch_parts, .*learners"):
        dataclasses.replace(mine.config(), objective=Half())
