"""Config files and the names of options: whatever a person writes is right, or is answered in one or two lines."""

import json
import pathlib
import re
import sys

import pytest
from processes import ROOT
from small import classification, diffusion, gan, segmentation

from jaxgen import cli
from jaxgen.commands import listing, train
from jaxgen.config import annotations, catalogue, codec, expression, files, names, overrides
from jaxgen.errors import UserError
from jaxgen.runs.logs import TensorBoard
from jaxgen.runs.wandb import WandB

TINY = "from small import classification as config\n"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def wrong(text: str | bytes, name: str = "c.py") -> str:
    """Write a config, and return what is said to it."""
    path = pathlib.Path(name)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(UserError) as caught:
        files.load(path)
    assert len(str(caught.value).splitlines()) <= 2
    return str(caught.value)


def refused(capsys, *arguments: str) -> str:
    capsys.readouterr()
    assert cli.main(list(arguments)) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert len(error.strip().splitlines()) <= 2
    return error


# --- what a file may hold ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("def config():\n    pass\n", "returned nothing: has it no return?"),
        ("def config(size): return size\n", "called without arguments; give them defaults"),
        ("import sys\nsys.exit(3)\n", "ends the program"),
        ("def config(): exit()\n", "ends the program"),
        ("import argparse\nargparse.ArgumentParser().parse_args(['--x'])\n", "ends the program"),
        ("import torch_that_is_not_here\n", "line 1: ModuleNotFoundError.*\n.*uv pip install torch_that_is_not_here"),
        ("from small import classification\nconfig = classification()\n", "is an Experiment; it must be a function"),
        ("def config():\n    return [][1]\n", "line 2: IndexError"),
        ("def config():\n\treturn 1\n        return 2\n", "line 3: TabError|line 3: IndentationError"),
        ("def config():\n    raise ValueError('a\\nb\\nc' + 'x' * 999)\n", "line 2: ValueError: a b cxxx.* …"),
        ("def config():\n    raise KeyError('seed')\n", "line 2: KeyError: 'seed'"),
        ("def config():\n    return config()\n", "RecursionError"),
        ("name = 'é'\n".encode("latin-1"), "c.py, line 1: SyntaxError"),
        (b"x = '\x00'\n", "SyntaxError"),
        ("assert False\n", "line 1: AssertionError"),
        ("from jaxgen.models.dit import Dit\n", "line 1: ImportError: cannot import name 'Dit'"),
    ],
)
def test_a_config_that_cannot_be_used_says_why_in_two_lines(text, said):
    assert re.search(said, wrong(text))


@pytest.mark.parametrize("text", ["\ufeff" + TINY, TINY.replace("\n", "\r\n"), "# -*- coding: latin-1 -*-\n" + TINY])
def test_files_of_other_editors_are_read(text):
    path = pathlib.Path("c.py")
    path.write_bytes(text.encode())
    assert files.load(path) == classification()
    assert catalogue.summary(path) == ("", "no result")


def test_a_file_beside_the_config_is_found_by_its_hint():
    pathlib.Path("there").mkdir()
    pathlib.Path("there/names.txt").write_text("a b")
    error = wrong("def config():\n    return open('names.txt').read()\n", "there/c.py")
    assert "line 2: FileNotFoundError" in error
    assert "pathlib.Path(__file__).parent" in error


def test_a_mistake_in_a_module_beside_the_config_names_that_file():
    pathlib.Path("helper_of_c.py").write_text("x = 1\ndef f(:\n")
    assert "helper_of_c.py, line 2: SyntaxError" in wrong("import helper_of_c\n")
    pathlib.Path("circle_of_c.py").write_text("from c import config\n")
    assert "line 1: ImportError: cannot import name 'config'" in wrong("import circle_of_c\ndef config(): ...\n")


def test_what_a_config_prints_does_not_reach_standard_output(capsys):
    pathlib.Path("c.py").write_text(f"print('loading')\n{TINY}")
    files.load("c.py")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "loading\n")


def test_a_config_that_failed_leaves_no_module_behind():
    wrong("1 / 0\n", "half.py")
    assert "half" not in sys.modules


def test_an_interrupt_in_a_config_is_no_mistake_of_it():
    pathlib.Path("c.py").write_text("raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        files.load("c.py")


# --- where configs are ------------------------------------------------------------------------------------------------


def test_what_is_no_config_file_is_said(capsys):
    pathlib.Path("some").mkdir()
    pathlib.Path("some/one.py").write_text(TINY)
    pathlib.Path("notes.ipynb").write_text("{}")
    assert "some is a folder; name a config: some/one.py" in refused(capsys, "train", "some")
    assert "copy its code into a .py file" in refused(capsys, "train", "notes.ipynb")
    assert "there is no config nowhere/at_all.py; `jaxgen list`" in refused(capsys, "train", "nowhere/at_all.py")
    assert "which config?" in refused(capsys, "train")
    assert "the config's name is empty" in refused(capsys, "train", "")
    assert "the config comes first" in refused(capsys, "train", "--steps", "3")
    assert "perhaps you meant diffusion/digits_edm" in refused(capsys, "train", "diffusion/digit_edm")


def test_a_shipped_config_has_a_name_everywhere(monkeypatch):
    shipped = ROOT / "configs" / "diffusion" / "digits_edm.py"
    for word in ("diffusion/digits_edm", "diffusion/digits_edm.py", "configs/diffusion/digits_edm", "digits_edm"):
        assert catalogue.locate(word) == shipped
    with pytest.raises(UserError, match="diffusion/digits_conditional or gan/digits_conditional"):
        catalogue.locate("digits_conditional")
    monkeypatch.setenv("HOME", str(ROOT))
    assert catalogue.locate("~/configs/diffusion/digits_edm.py") == shipped
    assert files.load("diffusion/digits_flow").steps == 2000  # it imports another of them
    monkeypatch.chdir(ROOT)
    assert catalogue.locate("configs/diffusion/digits_edm") == pathlib.Path("configs/diffusion/digits_edm.py")


def test_ones_own_config_goes_before_a_shipped_one():
    pathlib.Path("configs/diffusion").mkdir(parents=True)
    own = pathlib.Path("configs/diffusion/digits_edm.py")
    own.write_text(TINY)
    pathlib.Path("configs/flat.py").write_text(TINY)
    assert catalogue.locate("diffusion/digits_edm") == own
    assert catalogue.locate("flat") == pathlib.Path("configs/flat.py")
    assert catalogue.locate("gan/ring8") == ROOT / "configs" / "gan" / "ring8.py"
    pathlib.Path("diffusion").mkdir()
    pathlib.Path("diffusion/digits_edm.py").write_text(TINY)
    assert catalogue.locate("diffusion/digits_edm") == pathlib.Path("diffusion/digits_edm.py")


def test_the_list_is_narrow_and_grouped(capsys):
    assert cli.main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert [line for line in lines if line == "diffusion/digits_edm"]
    tasks = {line.partition("/")[0] for line in lines if line and line[0] != " "}
    image = {"autoencoder", "restoration", "super_resolution", "text_to_image", "translation"}
    assert tasks == {"classification", "diffusion", "gan", "music", "segmentation", *image}
    assert lines.count("") == len(tasks) - 1
    assert cli.main(["list", "gan"]) == 0
    shown = [line for line in capsys.readouterr().out.splitlines() if line and line[0] != " "]
    every = sorted(f"{path.parent.name}/{path.stem}" for path in (ROOT / "configs").glob("*/*.py"))
    assert shown == [name for name in every if "gan" in name]
    assert cli.main(["list", "*/digits_*", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["configs"]
    assert {row["name"].split("/")[1][:7] for row in found} == {"digits_"}
    assert f"tasks: {', '.join(sorted(tasks))}" in refused(capsys, "list", "nothing")


def test_a_broken_config_does_not_break_the_list(capsys):
    pathlib.Path("configs/mine/.ipynb_checkpoints").mkdir(parents=True)
    pathlib.Path("configs/mine/.ipynb_checkpoints/a-checkpoint.py").write_text(TINY)
    pathlib.Path("configs/mine/_part.py").write_text(TINY)
    pathlib.Path("configs/mine/broken.py").write_text("x = 1\ndef f(:\n")
    pathlib.Path("configs/mine/latin.py").write_bytes("'é'\n".encode("latin-1"))
    pathlib.Path("configs/mine/whole.py").write_text('"""A net.\n\nResult: 3 %.\n"""\n')
    rows = [("mine/broken", *catalogue.summary(pathlib.Path("configs/mine/broken.py")))]
    assert rows[0][1].startswith("cannot be read, line 2: ")
    assert cli.main(["list", "--json"]) == 0
    found = {row["name"]: row["summary"] for row in json.loads(capsys.readouterr().out)["configs"]}
    assert found.keys() == {"mine/broken", "mine/latin", "mine/whole"}
    assert found["mine/latin"].startswith("cannot be read")
    assert listing.lines([("mine/whole", "A net.", "3 %.")], whole=False) == ["mine/whole", "    A net.", "    3 %."]


# --- the command line -------------------------------------------------------------------------------------------------

KNOWN = {
    "--lr": "--objective.net.optimizer.learning-rate.peak",
    "--learning_rate": "--objective.net.optimizer.learning-rate.peak",
    "--batch": "--batch-size",
    "--bs": "--batch-size",
    "--gpus": "CUDA_VISIBLE_DEVICES",
    "--device": "CUDA_VISIBLE_DEVICES",
    "--resume": "the same command goes on by itself",
    "--output-dir": "--run-dir DIR",
    "--logdir": "--run-dir DIR",
    "--name": "--run-dir DIR",
    "--workers": "--train.workers",
    "--num_workers": "--train.workers",
    "--img-size": "--train.source.height",
    "--fp16": "--objective.net.module.dtype bfloat16",
    "--amp": "--objective.net.module.dtype bfloat16",
    "--wandb": "--log 'WandB(project=",
    "--data-dir": "no source.path",
    "--model": "the net is an object in the config file, here Cnn",
    "--optimizer": "here Adam",
    "--scheduler": "here Cosine",
    "--pretrained": "--objective.net.weights",
    "--weight-decay": "--objective.net.optimizer.weight-decay",
    "--wd": "--objective.net.optimizer.weight-decay",
    "--ema": "--objective.net.ema.0.decay",
    "--max-steps": "perhaps you meant --steps",
    "--iterations": "perhaps you meant --steps",
    "--save-every": "--checkpoint-every",
    "--log-interval": "--log-every",
    "--val": "--evaluate-every",
    "--num-classes": "--objective.net.module.classes",
    "--label-smoothing": "--objective.smoothing",
    "--grad-accum": "--objective.microbatches",
    "--max-grad-norm": "--objective.net.optimizer.clip",
    "--warmup-epochs": "--objective.net.optimizer.learning-rate.warmup",
    "--verbose": "--log-every",
    "-v": "--log-every",
    "-j": "--train.workers",
    "/help": "--help lists the options",
    "-seed": "write --seed VALUE",
    "seed=5": "write --seed VALUE",
    "--rule": "--rule holds an object, Replicated",
    "--objective.net.optimizer.learning-rate": "its fields here: --objective.net.optimizer.learning-rate.peak",
    "--zzz": "--help lists the names",
}


def test_a_number_in_an_object_that_the_config_makes_is_named():
    word = "--objective.penalties.0.gamma.value"
    with pytest.raises(UserError, match=rf"^{word} is 0\.1, in an object that the config file makes; change it there$"):
        overrides.override(gan(), [word, "2"], prog="test")


@pytest.mark.parametrize("word", KNOWN)
def test_the_names_that_people_try_lead_to_the_right_ones(word):
    with pytest.raises(UserError) as caught:
        overrides.override(classification(), [word, "1"], prog="test")
    assert KNOWN[word] in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_names_lead_to_fields_that_this_experiment_has():
    def fields(experiment):
        return {name.replace("_", "-"): text for name, text in codec.flatten(codec.encode(experiment)).items()}

    def said(experiment, word):
        return names.unknown(word, fields(experiment))

    assert said(gan(), "--lr").endswith(
        "--objective.generator.optimizer.learning-rate.peak or --objective.discriminator.optimizer.learning-rate.peak"
    )
    assert said(gan(), "--iterations").endswith("perhaps you meant --steps")
    assert said(gan(), "--nz").endswith("--objective.generator.module.latent")
    assert said(diffusion(), "--cfg-scale").endswith("--objective.sampling.guidance.scale")
    assert said(segmentation(), "--class-weights").endswith("--objective.loss.class-weights")
    assert "this experiment has no ema.0.steps" in said(segmentation(), "--ema-decay")
    for experiment in (gan(), segmentation()):
        rows = fields(experiment)
        for word in names._FIELDS:
            for option in names.unknown(f"--{word}", rows).partition("perhaps you meant ")[2].split(" or "):
                assert not option or option.removeprefix("--").split()[0] in rows


def test_no_word_has_two_meanings():
    words = [word for table in (names.FIELDS, names.OBJECTS, names.TEXTS) for key in table for word in key.split()]
    assert sorted(words) == sorted(set(words))


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["--steps", "1e4"], "steps", 10_000),
        (["--steps", "10k"], "steps", 10_000),
        (["--steps=1.5k"], "steps", 1500),
        (["--steps", "1M"], "steps", 1_000_000),
        (["--steps", "10,000"], "steps", 10_000),
        (["--steps", "10_000"], "steps", 10_000),
        (["--steps", "99999999999999999"], "steps", 99_999_999_999_999_999),
        (["--batch_size", "8"], "batch_size", 8),
        (["--steps", "5", "--steps", "6"], "steps", 6),
        (["--objective.net.module.hidden", "5,6"], "objective.net.module.hidden", (5, 6)),
        (["--objective.net.module.hidden", "(5, 6)"], "objective.net.module.hidden", (5, 6)),
        (["--objective.net.module.hidden=[5,6]"], "objective.net.module.hidden", (5, 6)),
        (["--objective.net.module.hidden", "5", "6"], "objective.net.module.hidden", (5, 6)),
        (["--objective.net.module.hidden", "(5,)"], "objective.net.module.hidden", (5,)),
        (["--objective.net.module.remat", "true"], "objective.net.module.remat", True),
        (["--objective.net.module.remat=yes"], "objective.net.module.remat", True),
        (["--objective.net.module.remat"], "objective.net.module.remat", True),
        (["--objective.net.module.remat", "False"], "objective.net.module.remat", False),
        (["--objective.net.optimizer.clip", "none"], "objective.net.optimizer.clip", None),
        (["--objective.net.optimizer.clip", "1e-1"], "objective.net.optimizer.clip", 0.1),
        (["--objective.net.optimizer.learning-rate.peak", "3e-4"], "objective.net.optimizer.learning_rate.peak", 3e-4),
    ],
)
def test_values_are_read_as_people_write_them(arguments, field, value):
    found = overrides.override(classification(), arguments, prog="test")
    for name in field.split("."):
        found = getattr(found, name)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--batch-size", "0"], "--batch-size is 0; it must be at least 1"),
        (["--batch-size", "1.5"], "--batch-size is '1.5'; it must be a whole number"),
        (["--seed", "-1"], "--seed is -1; it must be at least 0"),
        (["--steps="], "--steps is ''; it must be a whole number"),
        (["--steps"], "--steps has no value; write --steps VALUE"),
        (["--steps", "--seed", "3"], "--steps has no value"),
        (["--steps", "inf"], "--steps is 'inf'; it must be a whole number"),
        (["--objective.net.module.dropout", "nan"], "dropout is nan; it must be a number"),
        (["--objective.net.module.dropout", "0,5"], "dropout is '0,5'; it must be a number"),
        (["--objective.net.module.remat=maybe"], "remat is 'maybe'; it is true or false"),
        (["stray"], "fields are changed by --name VALUE"),
    ],
)
def test_values_that_are_none_are_answered_in_one_line(arguments, said):
    with pytest.raises(UserError) as caught:
        overrides.override(classification(), arguments, prog="test")
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def parsed(monkeypatch, *arguments: str):
    """The experiment that a command line trains, and its folder; nothing is trained."""
    seen = []
    monkeypatch.setattr(train.loop, "train", lambda experiment, folder: seen.append((experiment, folder)))
    assert cli.main(["train", *arguments]) == 0
    return seen[0]


def test_the_config_may_be_named_or_come_last(monkeypatch):
    pathlib.Path("c.py").write_text(TINY)
    orders = (["c.py", "--steps", "5"], ["--config", "c.py", "--steps", "5"], ["--steps", "5", "--config=c.py"],
              ["--steps", "5", "c.py"], ["-c", "c.py", "--steps=5"])  # fmt: skip
    for order in orders:
        experiment, folder = parsed(monkeypatch, *order)
        assert (experiment.steps, folder.path) == (5, pathlib.Path("runs/c"))
    assert parsed(monkeypatch, "c.py", "--run_dir", "x")[1].path == pathlib.Path("x")


def test_epochs_are_steps(monkeypatch, capsys):
    pathlib.Path("c.py").write_text(TINY)  # 48 examples in batches of 16
    for epochs, steps in (("1.5", 5), ("1e-9", 1)):
        assert parsed(monkeypatch, "c.py", "--epochs", epochs)[0].steps == steps
    assert parsed(monkeypatch, "c.py", "--epochs", "3", "--batch-size", "10")[0].steps == 15  # of 14.4
    assert "3 epochs of 48 examples in batches of 10: --steps 15" in capsys.readouterr().err
    assert parsed(monkeypatch, "c.py", "--epochs=3")[0].objective.total_steps == 9
    for wrong_number in ("0", "-1", "nan", "inf"):
        assert "--epochs is" in refused(capsys, "train", "c.py", f"--epochs={wrong_number}")
    assert "invalid float value: 'many'" in refused(capsys, "train", "c.py", "--epochs", "many")
    assert "give one of them" in refused(capsys, "train", "c.py", "--epochs", "3", "--steps=4")


def test_a_logger_is_added_by_one_option(monkeypatch, capsys):
    pathlib.Path("c.py").write_text(TINY)
    experiment, _ = parsed(monkeypatch, "c.py", "--log", 'WandB(project="digits", mode="offline")')
    assert experiment.loggers == (*classification().loggers, WandB(project="digits", mode="offline"))
    assert parsed(monkeypatch, "c.py", "--log", "TensorBoard")[0].loggers == classification().loggers
    assert TensorBoard() in classification().loggers
    assert "perhaps you meant WandB" in refused(capsys, "train", "c.py", "--log", "Wandb(project='x')")
    assert "'project'; fields of WandB: project" in refused(capsys, "train", "c.py", "--log", "WandB")
    assert "mode is 'on'; it must be one of 'online'" in refused(capsys, "train", "c.py", "--log", "WandB(mode='on')")


def test_help_begins_with_what_trains(capsys):
    assert cli.main(["train", "--help"]) == 0
    lines = capsys.readouterr().out
    assert lines.startswith("usage: jaxgen train CONFIG")
    assert all(word in lines for word in ("--run-dir DIR", "--epochs N", "--log LOGGER", "--allow PACKAGE"))


# --- values of other types --------------------------------------------------------------------------------------------


def stored(**changes):
    data = codec.encode(classification())
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = data
        for name in parents:
            place = place[name]
        place[last] = value
    return data


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": "many"}, "steps is 'many'; it must be a whole number"),
        ({"steps": 2.5}, "steps is 2.5; it must be a whole number"),
        ({"steps": True}, "steps is True; it must be a whole number"),
        ({"steps": None}, "steps is None; it must be a whole number"),
        ({"train": 3}, "train is 3; it must be of type Pipeline"),
        ({"metrics": 3}, "metrics is 3; it must be a tuple"),
        ({"mesh": {"type": "jaxgen.optim.schedules:Constant", "value": 1.0}}, "mesh is Constant; it must be of type"),
        ({"train__workers": "2"}, "train.workers is '2'; it must be a whole number"),
        ({"objective__net__module__widths": [8, "x"]}, "objective.net.module.widths is (8, 'x'); it must be a tuple"),
        ({"objective__net__module__dropout": "half"}, "objective.net.module.dropout is 'half'; it must be a number"),
        ({"objective__net__module__dtype": "float8"}, "must be one of 'float32', 'bfloat16'"),
        ({"objective__net__optimizer__learning_rate__peak": [1]}, "learning_rate.peak is (1,); it must be a number"),
        ({"objective__net__ema": 3}, "objective.net.ema is 3; it must be a tuple"),
        ({"objective__net__optimizer": 3}, "objective.net.optimizer is 3; it must be of type Optimizer or None"),
    ],
)
def test_a_stored_value_of_another_type_is_named_by_its_path(changes, said):
    with pytest.raises(UserError) as caught:
        codec.decode(stored(**changes))
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_values_of_a_config_are_checked_before_training(capsys):
    pathlib.Path("c.py").write_text(
        "import dataclasses\nfrom small import classification\n"
        "@dataclasses.dataclass(frozen=True)\nclass Brighter:\n    by: int = 1\n"
        "    def __call__(self, rng, example): return example\n"
        "def config():\n    base = classification()\n"
        "    train = dataclasses.replace(base.train, transforms=(Brighter(by=1e3),))\n"
        "    return dataclasses.replace(base, train=train)\n"
    )
    assert "train.transforms.0.by is 1000.0; it must be a whole number" in refused(capsys, "train", "c.py")
    assert not pathlib.Path("runs").exists()


@pytest.mark.parametrize(
    ("value", "kind", "fits"),
    [
        (1, float, True),
        (True, float, False),
        (1, bool, False),
        (float("inf"), float, True),
        (None, int | None, True),
        ("x", int | None, False),
        ((), tuple[int, ...], True),
        ((1, 2), tuple[int, int], True),
        ((1, 2, 3), tuple[int, int], False),
        (((1, "a"),), tuple[tuple[int, str], ...], True),
        ([1], tuple[int, ...], False),
        ("anything", object, True),
    ],
)
def test_what_fits_an_annotation(value, kind, fits):
    assert (annotations.misfit(value, kind) is None) == fits


def test_options_of_sampling_have_types_too():
    with pytest.raises(UserError, match="churn is 'much'; it must be a number"):
        expression.parse_options({"solver": "Heun(churn='much')"})
