"""What a run folder may name: values of jaxgen and of the user's own project; all else is refused, and nothing runs."""

import dataclasses
import json
import pathlib
import sys

import flax.linen as nn
import pytest
from small import classification, diffusion

from jaxgen import cli
from jaxgen.config import codec, files, project
from jaxgen.errors import UserError
from jaxgen.parallel.mesh import MeshShape
from jaxgen.runs.folder import RunFolder

MESH = codec.encode(MeshShape())
NETS = """
import dataclasses, pathlib
import flax.linen as nn

pathlib.Path(__file__).with_suffix(".ran").touch()

@dataclasses.dataclass(frozen=True)
class Value:
    size: int = 3

    @dataclasses.dataclass(frozen=True)
    class Inner:
        pass

@dataclasses.dataclass
class Mutable:
    size: int = 3

class Net(nn.Module):
    width: int = 8
    activation: str = "relu"

class Plain:
    def __init__(self, path):
        pathlib.Path(path).touch()

def make(path):
    pathlib.Path(path).touch()
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A project of a user, which the command is run in, beside a folder that is not the project's."""
    home = tmp_path / "home"
    (home / "pkg").mkdir(parents=True)
    for path in (home / "mynets.py", home / "pkg" / "nets.py", tmp_path / "elsewhere.py"):
        path.write_text(NETS)
    monkeypatch.chdir(home)
    return home


def nested(payload, depth=0):
    """A valid experiment with a payload somewhere deep in it."""
    data = codec.encode(diffusion())
    place = [data, data["objective"]["net"]["optimizer"], data["objective"]["sampling"]["guidance"]][depth]
    place[["rule", "learning_rate", "scale"][depth]] = payload
    return data


def refused(capsys, folder: pathlib.Path, data, *patterns: str) -> set[str]:
    """Commands refuse a run folder with this experiment, in one line; return the packages that they imported."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "experiment.json").write_text(data if isinstance(data, str) else json.dumps(data))
    (folder / "data.json").write_text(json.dumps({"classes": ["a"], "element": {}}))
    before = set(sys.modules)
    for command in ("eval", "inspect"):
        capsys.readouterr()
        assert cli.main([command, str(folder)]) == 2
        said = capsys.readouterr().err
        assert said.startswith("error: ")
        assert len(said.strip().splitlines()) == 1, said
        for pattern in patterns:
            assert pattern in said
    return {name.partition(".")[0] for name in set(sys.modules) - before}


FOREIGN = {
    "subprocess:run": {"args": ["touch", "MARK"]},
    "os:system": {"command": "touch MARK"},
    "posix:system": {"command": "touch MARK"},
    "builtins:eval": {"source": "open('MARK', 'w')"},
    "builtins:open": {"file": "MARK", "mode": "w"},
    "pathlib:Path": {},
    "http.server:HTTPServer": {"server_address": ["", 0], "RequestHandlerClass": None},
    "turtle:Pen": {},
    "flax.linen.linear:Dense": {"features": 3},
    "flax.linen:Dense": {"features": 3},
    "elsewhere:Value": {},
    "elsewhere:make": {"path": "MARK"},
    "no_such_package.module:Thing": {},
}
OWN = {
    "jaxgen.config.files:load": {"path": "mynets.py"},
    "jaxgen.cli:main": {"arguments": ["doctor"]},
    "jaxgen.cli:sys": {},
    "jaxgen.__main__:main": {},
    "jaxgen.__main__:sys": {},
    "jaxgen:Experiment": {},
    "jaxgen.errors:UserError": {},
    "jaxgen.experiment:Pipeline": {},  # defined in another module
    "jaxgen.program:jax": {},
    "jaxgen.no.such:Thing": {},
    "jaxgen.learner:Weights": {},  # a Protocol
    "mynets:make": {"path": "MARK"},
    "mynets:Plain": {"path": "MARK"},
    "mynets:Mutable": {},
    "mynets:Inner": {},
    "mynets:nn": {},
    "mynets:__builtins__": {},
    "pkg.nets:make": {"path": "MARK"},
    "mynets.__main__:Value": {},
}


@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_type_is_refused_before_it_is_imported(name, depth, home, capsys):
    fields = json.loads(json.dumps(FOREIGN[name]).replace("MARK", str(home / "mark")))
    new = refused(capsys, home / "runs" / "a", nested({"type": name, **fields}, depth), name, "--allow")
    assert not (home / "mark").exists()
    assert not new & {"http", "turtle", "elsewhere"}
    assert not list(home.parent.glob("**/*.ran"))


@pytest.mark.parametrize("name", OWN)
def test_what_is_no_value_is_refused_also_of_jaxgen_and_the_project(name, home, capsys):
    fields = json.loads(json.dumps(OWN[name]).replace("MARK", str(home / "mark")))
    refused(capsys, home / "runs" / "a", nested({"type": name, **fields}), name)
    assert not (home / "mark").exists()


def test_nothing_is_imported_where_one_type_is_refused(home):
    data = codec.encode(classification())
    data["rule"] = [{"type": "mynets:Value"}, {"type": "os:system", "command": "true"}]
    with pytest.raises(UserError, match="os:system"):
        codec.decode(data)
    assert not (home / "mynets.ran").exists()
    with pytest.raises(UserError, match="there is no such class"):  # a file is not run for a class that it lacks
        codec.decode({"type": "mynets:Missing"})
    assert not (home / "mynets.ran").exists()


def test_values_and_nets_of_the_project_come_back(home):
    for name in ("mynets", "pkg.nets"):
        made = codec.decode([{"type": f"{name}:Value", "size": 4}, {"type": f"{name}:Net", "width": 5}])
        assert [type(one).__module__ for one in made] == [name, name]
        assert (made[0].size, made[1].width) == (4, 5)
        assert codec.decode(codec.encode(made)) == made


def test_a_class_of_a_config_is_found_again(home):
    (home / "folder").mkdir()
    config = home / "folder" / "own.py"
    config.write_text(
        "import dataclasses\nimport mynets\n"
        "@dataclasses.dataclass(frozen=True)\nclass Same:\n    p: float = 0.0\n"
        "    def __call__(self, example, rng):\n        return example\n"
        "def config():\n    from small import classification\n    base = classification()\n"
        "    train = dataclasses.replace(base.train, transforms=(Same(p=0.5), mynets.Value()))\n"
        "    return dataclasses.replace(base, train=train)\n"
    )
    for path in (pathlib.Path("folder/own.py"), config):
        experiment = files.load(path)
        data = codec.encode(experiment)
        assert data["train"]["transforms"][0] == {"type": "folder.own:Same", "p": 0.5}
        assert codec.decode(data) == experiment
        sys.modules.pop("folder.own")
        assert codec.encode(codec.decode(data)) == data
        sys.modules.pop("folder.own")


def test_a_package_is_admitted_by_name(home):
    dense = {"type": "flax.linen.linear:Dense", "features": 3}
    assert codec.decode(dense, allow=("flax",)) == nn.Dense(features=3)
    assert codec.decode(dense, allow=("flax.linen",)) == nn.Dense(features=3)
    for allow in (("fla",), ("flax.linen.lin",), ("jax", "")):
        with pytest.raises(UserError, match="--allow flax"):
            codec.decode(dense, allow=allow)
    # It admits values, and nothing that could be called for something else.
    for name in ("subprocess:run", "subprocess:Popen", "subprocess:CompletedProcess", "subprocess:os"):
        with pytest.raises(UserError, match="no frozen dataclass or Linen module"):
            codec.decode({"type": name, "args": ["true"]}, allow=("subprocess",))


def test_the_projects_own_is_what_lies_in_its_folder(home, tmp_path):
    (home / "linked.py").symlink_to(tmp_path / "elsewhere.py")
    (home / "http").mkdir()
    (home / "http" / "server.py").write_text(NETS)
    (home / "json.py").write_text(NETS)
    for folder in (".venv/lib/python3.12/site-packages", "env/lib/python3.12/site-packages", "tools/env"):
        (home / folder).mkdir(parents=True)
        (home / folder / "installed.py").write_text(NETS)
    (home / "tools" / "env" / "pyvenv.cfg").touch()
    sys.path.append(str(home / ".venv/lib/python3.12/site-packages"))
    sys.path.append(str(home / "env/lib/python3.12/site-packages"))
    own = ["mynets", "pkg.nets"]
    foreign = ["linked", "http.server", "json", "installed", "elsewhere", "tools.env.installed", "pkg", "home.mynets"]
    assert [project.own_file(name) for name in own] == [home / "mynets.py", home / "pkg" / "nets.py"]
    assert [project.own_file(name) for name in foreign] == [None] * len(foreign)


def test_what_came_with_a_run_is_not_the_projects_own(home):
    for folder in ("runs", "runs/a", "runs/a/more", "shared"):
        (home / folder).mkdir(parents=True, exist_ok=True)
        (home / folder / "evil.py").write_text(NETS)
    (home / "runs" / "a" / "experiment.json").write_text("{}")
    for name in ("runs.a.evil", "runs.a.more.evil"):
        assert project.own_file(name) is None
    assert project.own_file("runs.evil", home / "runs" / "a") is None
    assert project.own_file("runs.evil") is not None
    assert project.own_file("shared.evil", home / "shared" / "below" / "run") is None
    assert project.own_file("mynets", home) is None
    assert project.own_file("mynets", home / "runs" / "a") == home / "mynets.py"
    assert project.own_file("mynets", home.parent / "run") == home / "mynets.py"
    with pytest.raises(UserError, match=r"runs\.evil:Value is refused"):
        codec.decode({"type": "runs.evil:Value"}, run=home / "runs" / "a")


def test_a_run_folder_does_not_bring_code_with_it(home, capsys):
    folder = home / "runs" / "a"
    folder.mkdir(parents=True)
    for path in (folder / "evil.py", folder.parent / "evil.py"):
        path.write_text(NETS)
    refused(capsys, folder, nested({"type": "runs.a.evil:Value"}), "runs.a.evil:Value is refused")
    refused(capsys, folder, nested({"type": "runs.evil:Value"}), "runs.evil:Value is refused")
    assert not list(home.glob("**/*.ran"))


@pytest.mark.parametrize(
    "data",
    [
        {"type": 3},
        {"type": None},
        {"type": ["jaxgen.parallel.mesh:MeshShape"]},
        {},
        {"replica": 1},
        {"type": ""},
        {"type": ":"},
        {"type": "os"},
        {"type": "os:"},
        {"type": ":system"},
        {"type": "jaxgen.parallel.mesh:MeshShape:run"},
        {"type": "jaxgen.parallel.mesh:MeshShape.build"},
        {"type": "jaxgen.parallel.mesh.MeshShape"},
        {"type": "..mynets:Value"},
        {"type": "../mynets:Value"},
        {"type": "/etc/passwd:Value"},
        {"type": "mynets :Value"},
        {"type": "mynets\n:Value"},
        [[[{"type": {}}]]],
        {"type": "jaxgen.parallel.mesh:MeshShape", "replica": {"build": 1}},
    ],
    ids=repr,
)
def test_what_has_another_form_is_refused(data, home):
    with pytest.raises(UserError, match="this is no experiment") as caught:
        codec.decode(data)
    assert len(str(caught.value).splitlines()) == 1


def test_deep_nesting_is_refused(home, capsys):
    with pytest.raises(UserError, match="nested"):
        codec.decode(json.loads("[" * 500 + "]" * 500))
    refused(capsys, home / "runs" / "a", "[" * 100_000 + "]" * 100_000)
    refused(capsys, home / "runs" / "b", '{"type": "os:system", ')
    refused(capsys, home / "runs" / "c", "[]")
    refused(capsys, home / "runs" / "d", MESH)
    refused(capsys, home / "runs" / "e", "3")


@pytest.mark.parametrize("field", ["parent", "name", "__class__", "__post_init__", "no_such_field", "apply"])
def test_only_fields_are_set(field, home):
    data = {"type": "mynets:Net", "width": 4, field: "x"}
    with pytest.raises(UserError, match=f"has no field '{field}'; it has width, activation"):
        codec.decode(data)


def test_a_string_stays_a_string(home):
    """No text of a run folder becomes a function, whatever it says."""
    made = codec.decode({"type": "mynets:Net", "activation": "os:system"})
    assert made.activation == "os:system"
    assert codec.decode(["subprocess:run", 3, None, True, 0.5]) == ("subprocess:run", 3, None, True, 0.5)


def test_values_that_a_class_refuses_are_an_error_in_one_line(home):
    for fields in ({"replica": "x"}, {"replica": [1, "a"]}, {"replica": MESH}):
        with pytest.raises(UserError, match="cannot rebuild") as caught:  # tests check types, which a run does not
            codec.decode(MESH | fields)
        assert len(str(caught.value).splitlines()) == 1
    with pytest.raises(UserError, match=r"cannot rebuild .*Cosine"):
        codec.decode({"type": "jaxgen.optim.schedules:Cosine"})


def test_what_could_not_be_rebuilt_is_not_written():
    @dataclasses.dataclass(frozen=True)
    class Local:
        pass

    class Net(nn.Module):
        pass

    for value in (Local(), Net(), Mutable()):
        with pytest.raises(UserError, match="an experiment cannot hold"):
            codec.encode(value)


@dataclasses.dataclass
class Mutable:
    pass


def test_every_small_experiment_survives_the_check():
    for make in (classification, diffusion):
        assert codec.decode(json.loads(json.dumps(codec.encode(make())))) == make()


def test_a_folder_hands_on_what_is_allowed(home):
    folder = home / "runs" / "a"
    folder.mkdir(parents=True)
    data = codec.encode(diffusion()) | {"metrics": [{"type": "elsewhere:Value"}]}
    (folder / "experiment.json").write_text(json.dumps(data))
    sys.path.append(str(home.parent))
    with pytest.raises(UserError, match="--allow elsewhere"):
        _ = RunFolder(folder).experiment
    (value,) = RunFolder(folder, ("elsewhere",)).experiment.metrics
    assert type(value).__name__ == "Value"
