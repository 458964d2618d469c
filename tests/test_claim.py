"""A run folder is one experiment's: what may change in it, what is refused by name, and what is taken over."""

import dataclasses
import json
import types

import numpy as np
import pytest
from PIL import Image
from small import linear

from jaxgen import evaluation, loop, sampling
from jaxgen.data.batches import DataSpec, Pipeline
from jaxgen.data.folder import Folder
from jaxgen.errors import UserError
from jaxgen.optim.schedules import Constant
from jaxgen.program import Program
from jaxgen.runs.claim import check_place, claim
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.restore import restore

ELEMENT = {"image": ((8, 8, 1), np.dtype(np.uint8)), "label": ((), np.dtype(np.int32))}
DATA = DataSpec(("cat", "dog", "horse"), ELEMENT, (48, 21))


def changed(**fields):
    return dataclasses.replace(linear(), **fields)


def claimed(tmp_path, steps=(), experiment=None, data=DATA):
    """A run folder that reached these steps."""
    folder = RunFolder(tmp_path / "run")
    claim(folder, experiment or linear(), data)
    for step in steps:
        (folder.checkpoints / str(step)).mkdir(parents=True)
    return RunFolder(folder.path)


def refused(folder, experiment, data=DATA):
    before = folder.json.read_bytes()
    with pytest.raises(UserError) as caught:
        claim(folder, experiment, data)
    assert len(str(caught.value).splitlines()) <= 2
    assert folder.json.read_bytes() == before
    return str(caught.value)


# --- what a run that reached no checkpoint leaves ---------------------------------------------------------------------


def test_a_run_that_reached_no_checkpoint_is_replaced_and_said(tmp_path):
    folder = claimed(tmp_path)
    stale = ["metrics.jsonl", "eval.json", "events.out.tfevents.1.host", "previews/step_00000006_classes.png"]
    for name in [*stale, "notes.txt", "previews/mine.png"]:
        (folder.path / name).write_text("old")
    (folder.checkpoints / "3.orbax-checkpoint-tmp-7").mkdir(parents=True)
    (note,) = claim(folder, changed(seed=5), DATA)
    assert note == f"note: {folder.path} held a run that reached no checkpoint; this one replaces it (seed: 0 -> 5)"
    assert not any((folder.path / name).exists() for name in stale)
    assert (folder.path / "notes.txt").exists()
    assert (folder.path / "previews" / "mine.png").exists()
    assert list(folder.checkpoints.iterdir()) == []
    assert folder.experiment == changed(seed=5)
    assert "seed=5" in folder.text.read_text()


@pytest.mark.parametrize("data", [DataSpec(("dog", "cat", "horse"), ELEMENT), DataSpec(("cat",), ELEMENT)])
def test_other_data_replace_a_run_that_reached_no_checkpoint(tmp_path, data):
    folder = claimed(tmp_path)
    assert "reached no checkpoint" in claim(folder, linear(), data)[0]
    assert RunFolder(folder.path).data == data


def test_a_broken_description_of_a_run_without_a_checkpoint_is_replaced(tmp_path):
    folder = claimed(tmp_path)
    folder.json.write_text("{")
    assert "cannot read" in claim(folder, linear(), DATA)[0]
    assert folder.experiment == linear()


def test_a_broken_description_of_a_run_with_checkpoints_is_not(tmp_path):
    folder = claimed(tmp_path, steps=[3])
    folder.json.write_text("{")
    assert "bring that file back" in refused(folder, linear())


def test_other_peoples_folders_are_not_taken(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UserError, match="is there and is not a run folder"):
        loop.train(linear(), RunFolder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"link is a link to .*nowhere, which is not there"):
        check_place(tmp_path / "link")
    with pytest.raises(UserError, match="Not a directory"):
        loop.train(linear(), RunFolder(tmp_path / "thesis.tex" / "run"))


def test_an_empty_folder_is_free_whatever_a_file_browser_left_in_it(tmp_path):
    (tmp_path / ".DS_Store").touch()
    (tmp_path / "run.lock").touch()
    check_place(tmp_path)


# --- what may change --------------------------------------------------------------------------------------------------


def test_cadences_and_what_is_measured_may_change_and_are_said(tmp_path):
    folder = claimed(tmp_path, steps=[3])
    made = changed(keep=1, log_every=5, preview_every=9, checkpoint_every=4, evaluate_every=6, test_batch_size=16)
    made = dataclasses.replace(made, test=dataclasses.replace(made.test, workers=1))
    notes = claim(folder, made, DATA)
    assert "note: changed: keep: 2 -> 1" in notes
    assert len(notes) == 7
    assert RunFolder(folder.path).experiment == made


@pytest.mark.parametrize(
    "fields", [{"seed": 1}, {"batch_size": 32}, {"train": dataclasses.replace(linear().train, transforms=())}]
)
def test_what_the_numbers_depend_on_may_not(tmp_path, fields):
    assert "holds another experiment" in refused(claimed(tmp_path, steps=[3]), changed(**fields))


def test_a_run_may_be_longer_and_its_schedules_are_said(tmp_path):
    folder = claimed(tmp_path, steps=[9, 12])
    span, rate = claim(folder, changed(steps=24), DATA)
    assert span == "note: 24 steps instead of 12: schedules span them all"
    assert rate == "note: net's learning rate at step 12 goes from 0 to 0.00534"
    assert RunFolder(folder.path).experiment.steps == 24


def test_a_constant_learning_rate_needs_no_word(tmp_path):
    made = linear()
    optimizer = dataclasses.replace(made.objective.net.optimizer, learning_rate=Constant(value=0.1))
    net = dataclasses.replace(made.objective.net, optimizer=optimizer)
    made = dataclasses.replace(made, objective=dataclasses.replace(made.objective, net=net))
    folder = claimed(tmp_path, steps=[12], experiment=made)
    assert len(claim(folder, dataclasses.replace(made, steps=24), DATA)) == 1


def test_a_run_may_be_shorter_only_where_it_has_not_been_yet(tmp_path):
    folder = claimed(tmp_path, steps=[3, 6])
    assert claim(folder, changed(steps=8), DATA)[0] == "note: 8 steps instead of 12: schedules span them all"
    assert "is at step 6 of 8, beyond --steps 5" in refused(RunFolder(folder.path), changed(steps=5))


def test_stray_files_are_no_steps(tmp_path):
    folder = claimed(tmp_path, steps=[3])
    for name in ("old", "7.bak", "0009", "12.orbax-checkpoint-tmp"):
        (folder.checkpoints / name).mkdir()
    (folder.checkpoints / "8").write_text("a file")
    assert folder.steps == [3]


# --- the classes are the run's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        (("cat", "horse", "dog"), "class 1 is 'dog' in the run and 'horse' in the data; class 2 is 'horse' in the run"),
        (("cat", "dog"), "the run has 3 classes and the data 2: only the run has 'horse'"),
        (("cat", "dog", "horse", "zebra"), "the run has 3 classes and the data 4: only the data has 'zebra'"),
    ],
)
def test_other_classes_are_named(tmp_path, classes, said):
    folder = claimed(tmp_path, steps=[3])
    assert said in refused(folder, linear(), dataclasses.replace(DATA, classes=classes))


def test_other_arrays_are_named(tmp_path):
    folder = claimed(tmp_path, steps=[3])
    other = dataclasses.replace(DATA, element=ELEMENT | {"image": ((8, 9, 3), np.dtype(np.uint8))})
    assert "an example's image is uint8 8x8x1 in the run and uint8 8x9x3 in the data" in refused(
        folder, linear(), other
    )
    other = dataclasses.replace(DATA, element={"image": ELEMENT["image"]})
    assert "label is int32 number in the run and not there in the data" in refused(folder, linear(), other)


def test_other_words_of_captions_are_refused(tmp_path):
    folder = claimed(tmp_path, steps=[3], data=dataclasses.replace(DATA, words="0a"))
    assert "the captions' words are others" in refused(folder, linear(), dataclasses.replace(DATA, words="0b"))
    claim(folder, linear(), DATA)


def test_another_number_of_examples_is_said_and_kept(tmp_path):
    folder = claimed(tmp_path, steps=[3])
    more = dataclasses.replace(DATA, counts=(50, 20))
    notes = claim(folder, linear(), more)
    assert notes[:2] == [
        "note: 50 training examples, where the run had 48",
        "note: 20 test examples, where the run had 21",
    ]
    assert "order of the batches" in notes[2]
    assert claim(RunFolder(folder.path), linear(), more) == []


@pytest.mark.parametrize("text", ["{", "[]", '{"classes": 3}', '{"classes": [], "element": {"image": 3}}', None])
def test_a_broken_description_of_the_data_is_written_anew(tmp_path, text):
    folder = claimed(tmp_path, steps=[3])
    folder.json_of_data.unlink() if text is None else folder.json_of_data.write_text(text)
    (note,) = claim(folder, linear(), DATA)
    assert note.endswith("taking the data as they are")
    assert RunFolder(folder.path).data == DATA


def test_runs_of_earlier_versions_know_no_counts(tmp_path):
    folder = claimed(tmp_path, steps=[3])
    stored = json.loads(folder.json_of_data.read_text())
    del stored["counts"]
    folder.json_of_data.write_text(json.dumps(stored))
    assert claim(folder, linear(), DATA) == []


# --- whole runs -------------------------------------------------------------------------------------------------------


def pictures(root, names, each=4):
    for shade, name in enumerate(names):
        (root / name).mkdir(parents=True)
        for i in range(each):
            Image.new("L", (8, 8), 60 * shade + i).save(root / name / f"{i}.png")


def of_folder(root):
    pipeline = Pipeline(source=Folder(str(root), channels=1))
    return changed(train=pipeline, test=pipeline, steps=2, batch_size=8, loggers=())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    home = tmp_path_factory.mktemp("trained")
    pictures(home / "data", ["a", "b", "c", "d"])
    experiment = of_folder(home / "data")
    loop.train(experiment, RunFolder(home / "run"))
    return types.SimpleNamespace(experiment=experiment, run=home / "run", data=home / "data")


@pytest.fixture
def renamed(trained):
    (trained.data / "b").rename(trained.data / "zebra")
    yield
    (trained.data / "zebra").rename(trained.data / "b")


@pytest.mark.usefixtures("renamed")
def test_a_class_folder_that_was_renamed_is_noticed_on_resume_and_in_evaluation(trained):
    said = "class 1 is 'b' in the run and 'c' in the data"
    with pytest.raises(UserError, match=said):
        loop.train(trained.experiment, RunFolder(trained.run))
    opened = restore(RunFolder(trained.run), None, pytest.fail)
    with pytest.raises(UserError, match=said):
        evaluation.evaluate(opened.program, opened.state)


def test_evaluation_says_that_there_are_other_numbers_of_examples(trained, tmp_path):
    opened = restore(RunFolder(trained.run), None, pytest.fail)
    pictures(tmp_path, ["a", "b", "c", "d"], each=5)
    said = []
    other = dataclasses.replace(trained.experiment.test, source=Folder(str(tmp_path), channels=1))
    program = dataclasses.replace(opened.program, experiment=dataclasses.replace(opened.experiment, test=other))
    evaluation.evaluate(program, opened.state, say=said.append)
    assert said == ["note: 20 test examples, where the run had 16"]


def test_samples_are_asked_for_what_the_runs_own_classes_mean(monkeypatch):
    monkeypatch.setattr(Program, "generative", types.SimpleNamespace(conditions=lambda: ("label", "image")))
    program = dataclasses.replace(Program.of(linear()), data=DATA)
    opened = linear().test.source.open()
    with pytest.raises(UserError, match="class 0 is 'cat' in the run and 'class 0' in the data"):
        sampling.asked(program, np.arange(2), lambda: opened)


def test_a_finished_run_goes_on_for_more_steps(tmp_path):
    folder = RunFolder(tmp_path / "run")
    loop.train(changed(steps=3), folder)
    loop.train(changed(steps=6), RunFolder(folder.path))
    assert json.loads(folder.eval.read_text())["step"] == 6
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    assert [(row["step"], row["split"]) for row in rows] == [
        (2, "train"), (3, "train"), (3, "test"), (3, "time"),
        (4, "train"), (6, "train"), (6, "test"), (6, "time"),
    ]  # fmt: skip
    assert restore(RunFolder(folder.path), None, pytest.fail).step == 6
