"""Nets that a config outside the repository defines: trained from any folder, and opened from any folder again."""

import json
import pathlib
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from jaxgen import cli
from jaxgen.config import codec, files, project
from jaxgen.errors import UserError
from jaxgen.runs.folder import RunFolder

NETS = """
import flax.linen as nn

class Mine(nn.Module):
    classes: int = 4
    width: int = {width}

    @nn.compact
    def __call__(self, image, *, train: bool):
        return nn.Dense(self.classes)(nn.Dense(self.width)(image.reshape(len(image), -1)))
"""
CONFIG = """
import dataclasses
from jaxgen.data.batches import Pipeline
from jaxgen.data.fake import FakeLabels
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.objectives.classification import Classification
from jaxgen.optim.optimizer import Optimizer
from jaxgen.optim.schedules import Constant
from nets import Mine

@dataclasses.dataclass(frozen=True)
class Same:
    p: float = 0.5

    def __call__(self, rng, example):
        return example

def config():
    source = FakeLabels(height=8, width=8, channels=1, classes=4, size=48)
    return Experiment(
        objective=Classification(net=Learner(module=Mine(), optimizer=Optimizer(learning_rate=Constant(value=0.01)))),
        train=Pipeline(source=source, transforms=(Same(),)),
        test=Pipeline(source=source),
        steps=4,
        batch_size=16,
    )
"""


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path_factory):
    """The current folder has no project."""
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))


def make(folder: pathlib.Path, width: int = 8, config: str = "mine.py") -> pathlib.Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "nets.py").write_text(NETS.format(width=width))
    (folder / config).write_text(CONFIG)
    return folder / config


def forget() -> None:
    for name in ("nets", "mine"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
    """A project, and a run of it that was trained from another folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("start"))
        config = make(tmp_path_factory.mktemp("a project with 스페이스"))
        run = tmp_path_factory.mktemp("runs") / "run"
        assert cli.train([str(config), "--run-dir", str(run), "--steps", "2"]) == 0
        forget()
        return config.parent, run


def said(capsys, *arguments: str | pathlib.Path) -> dict:
    capsys.readouterr()
    assert cli.main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys, *arguments: str | pathlib.Path) -> str:
    capsys.readouterr()
    assert cli.main([*map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) <= 2
    return error


def test_a_run_of_own_classes_is_opened_from_any_folder(trained, capsys, tmp_path):
    home, run = trained
    assert json.loads((run / "project.json").read_text()) == {"folders": [str(home)]}
    assert said(capsys, "eval", run)["metrics"] == json.loads((run / "eval.json").read_text())["metrics"]
    assert said(capsys, "inspect", run)["parameters"] == (64 * 8 + 8) + (8 * 4 + 4)
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "a.png")
    (row,) = said(capsys, "predict", run, tmp_path / "a.png", "--out", tmp_path / "out")["images"]
    assert len(row["top5"]) == 4


def test_a_run_that_came_from_elsewhere_names_its_project(trained, capsys, monkeypatch, tmp_path):
    home, run = trained
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "another user"))
    (home / "ran").unlink(missing_ok=True)
    error = refused(capsys, "eval", run)
    assert f"trained in {home}: run the command there, or add --allow {home}, if you trust it" in error
    assert "nets" not in sys.modules
    assert said(capsys, "inspect", run, "--allow", home)["step"] == 2
    monkeypatch.chdir(home)
    forget()
    assert said(capsys, "inspect", run)["step"] == 2


def test_a_run_goes_on_from_another_folder(trained, capsys, monkeypatch, tmp_path):
    home, run = trained
    again = tmp_path / "run"
    shutil.copytree(run, again)
    for start in (home.parent, tmp_path):
        monkeypatch.chdir(start)
        forget()
        assert cli.train([str(home / "mine.py"), "--run-dir", str(again), "--steps", "2"]) == 0
        assert "going on from step 2 of 2" in capsys.readouterr().out


def test_a_run_folder_cannot_make_a_folder_a_project(trained, capsys, monkeypatch, tmp_path):
    """Its project.json may name any folder; only those that this user trained from count, and none that it brought."""
    _, run = trained
    evil = tmp_path / "run"
    shutil.copytree(run, evil)
    make(evil / "code")
    (evil / "code" / "nets.py").write_text("import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n")
    (evil / "project.json").write_text(json.dumps({"folders": [str(evil / "code")]}))
    assert "is refused" in refused(capsys, "eval", evil)
    project.remember([evil / "code"])  # not even then: it came with the run
    assert "is refused" in refused(capsys, "eval", evil)
    assert not (evil / "code" / "nets.ran").exists()
    for broken in ("[]", "{", '{"folders": 3}', '{"folders": [3, "relative"]}', '{"folders": ["\\u0000"]}'):
        (evil / "project.json").write_text(broken)
        assert "is refused" in refused(capsys, "inspect", evil)


def test_two_projects_with_modules_of_one_name_do_not_mix(tmp_path):
    one, two = (files.load(make(tmp_path / name, width)) for name, width in (("one", 8), ("two", 16)))
    assert (one.objective.net.module.width, two.objective.net.module.width) == (8, 16)
    assert codec.encode(one)["objective"]["net"]["module"]["type"] == "nets:Mine"
    again = files.load(tmp_path / "one" / "mine.py")
    assert again.objective.net.module.width == 8


def test_a_run_beside_another_projects_modules_takes_its_own(trained, capsys, monkeypatch, tmp_path):
    make(tmp_path, width=99)
    monkeypatch.chdir(tmp_path)
    assert said(capsys, "inspect", trained[1])["parameters"] == (64 * 8 + 8) + (8 * 4 + 4)
    sys.path.insert(0, str(tmp_path))  # as with python -m: the current folder comes first
    forget()
    assert f"which hides {trained[0] / 'nets.py'}" in refused(capsys, "inspect", trained[1])


def test_the_project_is_the_current_folder_or_the_marked_one_or_the_configs_own(tmp_path, monkeypatch):
    config = make(tmp_path / "repo" / "experiments")
    own = config.parent
    assert project.folders_of(config) == (own,)
    (tmp_path / "repo" / "pyproject.toml").touch()
    assert project.folders_of(config) == (tmp_path / "repo", own)
    monkeypatch.chdir(tmp_path)
    assert project.folders_of(config) == (tmp_path, own)
    assert project.folders_of(config, [tmp_path / "repo"]) == (tmp_path / "repo", own)
    assert type(files.load(config).train.transforms[0]).__module__ == "repo.experiments.mine"


def test_home_is_not_remembered_as_a_project(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    project.remember([tmp_path, tmp_path.parent, tmp_path / "mine"])
    project.remember([tmp_path / "mine", tmp_path / "é\n"])
    assert project.remembered() == {str(tmp_path / "mine"), str(tmp_path / "é\n")}
    (tmp_path / "state" / "jaxgen" / "projects").write_text("no json\n")
    assert project.remembered() == frozenset()


def test_a_state_folder_that_cannot_be_written_is_said(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    project.remember([tmp_path])
    assert f"commands on this run work in {tmp_path} only" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["my-config.py", "test.py", "jax.py", "class.py", "2nd.py", "mine.v2.py", "numpy.py"])
def test_a_config_of_any_name_loads_and_its_classes_are_asked_to_move(name, tmp_path, capsys):
    config = make(tmp_path / "proj", config=name)
    run = tmp_path / "run"
    assert files.load(config).train.transforms[0].p == 0.5
    error = refused(capsys, "train", config, "--run-dir", run)
    assert f"Same could not be found again: it is defined in {config}" in error
    assert not run.exists()
    assert sys.modules["jax"].__version__  # and no module was replaced
    assert np.__version__


def test_a_config_of_any_name_without_classes_trains_nothing_less(tmp_path, capsys):
    config = make(tmp_path / "my proj", config="my-config.py")
    config.write_text(CONFIG.replace("transforms=(Same(),)", "transforms=()"))
    encoded = codec.encode(files.load(config))
    assert codec.foreign(encoded, [f"{config.parent}/"]) == (["nets:Mine"], [])


def test_a_module_beside_the_config_that_another_hides_is_named(tmp_path):
    installed, mine = tmp_path / "installed", tmp_path / "mine"
    for folder in (installed, mine):
        folder.mkdir()
    (installed / "helpers.py").write_text("OTHER = 1\n")
    (mine / "helpers.py").write_text("WIDTH = 3\n")
    (mine / "c.py").write_text("from helpers import WIDTH\ndef config(): ...\n")
    sys.path.insert(0, str(installed))
    with pytest.raises(UserError) as caught:
        files.load(mine / "c.py")
    assert f"is {installed / 'helpers.py'}, not the one in {mine}; give yours another name" in str(caught.value)


def test_classes_of_other_packages_are_said_when_training_starts(tmp_path, capsys):
    site = tmp_path / "lib" / "site"
    site.mkdir(parents=True)
    (site / "otherpackage.py").write_text(NETS.format(width=4))
    sys.path.insert(0, str(site))
    config = make(tmp_path / "proj")
    config.write_text(CONFIG.replace("from nets", "from otherpackage").replace("(Same(),)", "()"))
    run = tmp_path / "runs" / "run"
    assert cli.train([str(config), "--run-dir", str(run), "--steps", "1"]) == 0
    assert "commands on this run will need --allow otherpackage" in capsys.readouterr().err
    assert not (run / "project.json").exists()
    assert "--allow otherpackage admits it" in refused(capsys, "inspect", run)
    assert RunFolder(run, ("otherpackage",)).experiment.steps == 1


def test_a_run_in_the_projects_top_folder_is_refused_before_training(tmp_path, monkeypatch, capsys):
    config = make(tmp_path / "proj")
    shutil.rmtree(tmp_path / "proj" / "__pycache__", ignore_errors=True)
    monkeypatch.chdir(tmp_path / "proj")
    error = refused(capsys, "train", config, "--run-dir", ".")
    assert "Mine is defined in" in error
    assert "choose another --run-dir" in error
    assert sorted(path.name for path in config.parent.glob("*.*")) == ["mine.py", "nets.py"]
