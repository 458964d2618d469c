"""The report: what a run leaves on one page, what the page may hold, and what is refused."""

import base64
import contextlib
import dataclasses
import hashlib
import html.parser
import json
import math
import os
import pathlib
import re
import shutil
import signal

import numpy as np
import pytest
from PIL import Image
from processes import ROOT
from small import linear

from jaxgen import cli, loop
from jaxgen.config import codec
from jaxgen.errors import UserError
from jaxgen.report import compare, curves, page, previews, record, sections
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.logs import JsonLines, Log, RunInfo
from jaxgen.runs.report import Report
from jaxgen.runs.signals import Interrupted

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&amp;<!--"
VOID = {"meta", "img", "input", "br"}


class Parsed(html.parser.HTMLParser):
    """A page as a browser sees it: its elements, its texts, and the texts of its scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[tuple[str, dict]] = []
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.scripts: list[tuple[dict, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop()[0] == tag

    def handle_data(self, data):
        if self.open and self.open[-1][0] == "script":
            self.scripts.append((self.open[-1][1], data))
        elif self.open and self.open[-1][0] != "style":
            self.texts.append(data)

    def held(self, kind: str) -> list:
        return [json.loads(text) for attributes, text in self.scripts if attributes.get("class") == kind]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def parsed(path: pathlib.Path) -> Parsed:
    """Read a page, and hold it to what holds for every page."""
    text = path.read_text(encoding="utf-8")
    assert len(text.encode()) < 2_000_000
    found = Parsed(text)
    for tag, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
        for name in ("src", "href", "action", "data", "poster", "srcset"):
            assert attributes.get(name, "data:").startswith("data:"), (tag, attributes)
    assert not re.search(r"url\((?!data:)|@import", text)
    assert {tag for tag, _ in found.elements}.isdisjoint({"link", "iframe", "object", "base", "form", "a"})
    (policy,) = [a["content"] for tag, a in found.elements if a.get("http-equiv") == "Content-Security-Policy"]
    run = [script for attributes, script in found.scripts if attributes.get("type") != "application/json"]
    assert len(run) == 2
    for script in run:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert "default-src 'none'" in policy
    return found


def made(
    folder: pathlib.Path, *, step=12, rows=(), results=None, notes=(), shards=(), about="", shown=(), **fields
) -> pathlib.Path:
    """Write a run folder without a training."""
    (folder / "previews").mkdir(parents=True)
    experiment = dataclasses.replace(linear(), **fields)
    (folder / "experiment.json").write_text(json.dumps(codec.encode(experiment)))
    (folder / "experiment.txt").write_text(f"{codec.describe(experiment)}\n\njax 0.12.0\npython 3.12.1\n{about}")
    rows = rows or [{"step": s, "split": "train", "loss": 2 / s} for s in range(2, step + 1, 2)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "notes.jsonl").write_text("".join(json.dumps({"step": 1, "text": note}) + "\n" for note in notes))
    (folder / "sharding.txt").write_text("\n".join(["array  type  split  bytes", *shards, "all  12"]) + "\n")
    if results is not None:
        (folder / "eval.json").write_text(json.dumps({"step": step, "metrics": results}))
    for at, name, pixels in shown:
        Image.fromarray(pixels).save(folder / "previews" / f"step_{at:08}_{name}.png")
    return folder


def reported(*words: str | pathlib.Path) -> int:
    return cli.main(["report", *map(str, words)])


def cells(found: Parsed, first: str, count: int) -> list[str]:
    """Return the cells that follow a row's first one in a table."""
    places = [i for i, text in enumerate(found.texts) if text == first]
    return [found.texts[i + 1 : i + count] for i in places][-1]


# --- what a training leaves -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Stopping:
    """A logger that asks the run to stop at a step, as a terminal does."""

    at: int

    def open(self, run: RunInfo) -> Log:
        return Stopper(self.at)


class Stopper:
    def __init__(self, at):
        self.at = at

    def advance(self, step):
        if step == self.at:
            signal.raise_signal(signal.SIGTERM)

    def write(self, step, split, values):
        pass

    def image(self, step, name, pixels):
        pass

    def say(self, text):
        pass

    def close(self):
        pass


@pytest.fixture(scope="module")
def history(tmp_path_factory):
    """A run that was stopped, its page at that time, and its page at the end."""
    folder = RunFolder(tmp_path_factory.mktemp("report") / "a run")
    experiment = dataclasses.replace(linear(), loggers=(JsonLines(), Report()))
    with pytest.raises(Interrupted):
        loop.train(dataclasses.replace(experiment, loggers=(*experiment.loggers, Stopping(at=5))), folder)
    stopped = parsed(folder.report)
    results = loop.train(experiment, folder)
    return stopped, parsed(folder.report), folder, results


def test_a_run_leaves_its_results_curves_previews_and_origin(history):
    _, found, folder, results = history
    assert "finished step 12 of 12" in found.text
    assert "Result at step 12" in found.text
    assert f"{results['accuracy']:.4g}" in found.text
    (loss,) = [held for held in found.held("curve") if held["unit"] == "loss"]
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    train = [(row["step"], row["loss"]) for row in rows if row["split"] == "train"]
    assert [series["label"] for series in loss["series"]] == ["train", "test"]
    np.testing.assert_allclose(list(zip(loss["series"][0]["x"], loss["series"][0]["y"], strict=True)), train, rtol=1e-5)
    assert len([tag for tag, _ in found.elements if tag == "svg"]) == len(found.held("curve"))
    (frames,) = found.held("frames")
    drawn = sorted(int(path.name.split("_")[1]) for path in folder.previews.glob("step_*.png"))
    assert [*(frame["step"] for frame in frames["earlier"]), frames["last"]] == drawn
    assert drawn[-1] == 12
    assert "objective Classification" in found.text
    assert "net: Linear" in found.text
    assert "jax " in found.text
    assert "Experiment(" in found.text
    count = 8 * 8 * 4 + 4
    assert cells(found, "net", 2) == [f"{count:,}"]  # one dense layer
    assert "memory of the process" in found.text


def test_a_run_that_was_stopped_has_a_page_and_its_notes_stay(history):
    stopped, found, folder, _ = history
    assert "not finished step 5 of 12" in stopped.text
    assert "Result at" not in stopped.text
    said = [json.loads(line) for line in folder.notes.read_text().splitlines()]
    texts = [row["text"] for row in said if "text" in row]
    assert any(text.startswith("data: 48 training") for text in texts)
    assert any(text.startswith("going on from step 5") for text in texts)
    assert not any(text.startswith("accuracy") for text in texts)  # the page has a table of them
    assert found.text.count("data: 48 training") == 1  # said by both processes
    assert "going on from step 5" in found.text


def test_a_report_that_cannot_be_written_is_a_warning_and_the_run_ends_well(tmp_path, capsys):
    folder = RunFolder(tmp_path / "run")
    folder.report.mkdir(parents=True)
    (folder.report / "in the way").touch()
    with contextlib.ExitStack() as stack:
        log = Report().open(RunInfo(folder=made(tmp_path / "run2"), start=0, steps=12, settings={}))
        stack.callback(log.close)
        log.say("warning: hot")
    assert "hot" in parsed(tmp_path / "run2" / "report.html").text
    (tmp_path / "run2" / "report.html").unlink()
    folder.report.rename(tmp_path / "run2" / "report.html")
    log = Report().open(RunInfo(folder=tmp_path / "run2", start=12, steps=12, settings={}))
    capsys.readouterr()
    log.close()
    said = capsys.readouterr().err
    assert said.startswith("warning: ")
    assert len(said.splitlines()) == 1


def test_notes_of_an_attempt_that_is_replaced_go(tmp_path):
    folder = made(tmp_path / "run", notes=["warning: of another attempt"])
    for start, kept in ((4, True), (0, False)):
        Report().open(RunInfo(folder=folder, start=start, steps=12, settings={})).close()
        assert ("another attempt" in parsed(folder / "report.html").text) == kept


# --- what a page may hold ---------------------------------------------------------------------------------------------


def test_text_of_a_run_is_text_on_the_page(tmp_path):
    name = HOSTILE.replace("/", "")
    picture = np.zeros((8, 8, 3), np.uint8)
    folder = made(
        tmp_path / name,
        rows=[{"step": s, "split": "train", "loss": 1.0, HOSTILE: s} for s in (1, 12)],
        results={
            HOSTILE: 0.5, f"{HOSTILE}_floor": 0.1, "miou": 0.5, "per_class": {HOSTILE: {"iou": 0.5, HOSTILE: 0.25}},
        },
        notes=[f"warning: {HOSTILE}", "a half \ud83d, a bell \x07"], about=f"command train.py {HOSTILE}\n",
        shards=[f"nets/net/params/{HOSTILE}  float32 2×3  {HOSTILE}  24"],
        shown=[(12, name, picture), (6, name, picture)],
    )  # fmt: skip
    other = made(tmp_path / f"{name} 2", rows=[{"step": s, "split": "train", HOSTILE: s} for s in (1, 12)], seed=3)
    assert reported(folder) == 0
    found = parsed(folder / "report.html")
    for text in (name, HOSTILE, f"warning: {HOSTILE}", f"train.py {HOSTILE}", f"nets/net/params/{HOSTILE}"):
        assert text in found.texts, text
    assert found.held("frames")[0]["name"] == name
    assert [a for tag, a in found.elements if tag == "img" and a["alt"] == f"{name} at step 12"]
    assert HOSTILE in [held["unit"] for held in found.held("curve")]
    out = tmp_path / "both.html"
    assert reported(folder, other, "--out", out) == 0
    found = parsed(out)
    assert name in found.texts
    assert {series["label"] for held in found.held("curve") for series in held["series"]} == {name, f"{name} 2"}


@pytest.mark.parametrize("alone", [True, False])
def test_a_page_stays_below_two_megabytes(alone, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (320, 640, 3), np.uint8)
    long, steps = "x" * 5000, (100, 300, 500, 700)
    folders = [
        made(
            tmp_path / f"run {i}", step=700, steps=700, seed=i,
            rows=[
                {"step": s, "split": "train"} | {f"scalar {k}": math.sin(s * k) for k in range(30)}
                for s in range(1, 701, 1 if alone else 3)
            ],
            results={f"number {k}": 1 / (k + 1) for k in range(500)}
            | {"per_class": {f"{k} {long}": {"iou": 0.1, "acc": 0.2, "dice": 0.3, "pixels": k} for k in range(500)}},
            notes=[f"note {k}: {long}" for k in range(250)],
            shards=[f"nets/net/params/block {k}/{'y' * 50}  float32 3×3×64×64  whole  147,456" for k in range(500)],
            shown=[(s, kind, noise) for s in (steps if alone else steps[-1:]) for kind in ("one", "two", "three")],
        )
        for i in range(1 if alone else 4)
    ]  # fmt: skip
    out = tmp_path / "out.html"
    assert reported(*folders, "--out", out) == 0
    found = parsed(out)
    count = 3 * len(folders)
    assert len([tag for tag, _ in found.elements if tag == "img"]) == count
    assert all(len(series["x"]) >= curves.FEWEST for held in found.held("curve") for series in held["series"])


def test_many_pictures_go_before_sharp_ones(tmp_path):
    noise = np.random.default_rng(0)
    paths = [(step, tmp_path / f"{step}.png") for step in range(8)]
    for _, path in paths:
        Image.fromarray(noise.integers(120, 136, (200, 300, 3), np.uint8)).save(path)
    size = paths[0][1].stat().st_size
    frames = previews.chosen({"a": paths}, 4 * size)["a"]
    assert [step for step, _ in frames] == list(range(8))
    assert sum(frame.size for _, frame in frames) <= 4 * size
    files = previews.chosen({"a": paths}, 9 * size)["a"]  # as they are, where there is room
    assert [frame.size for _, frame in files] == [path.stat().st_size for _, path in paths]


def test_a_picture_that_is_broken_is_left_out(tmp_path):
    picture = np.zeros((8, 8, 3), np.uint8)
    folder = made(tmp_path / "run", shown=[(s, "a", picture) for s in (2, 4)] + [(4, "b", picture)])
    (folder / "previews" / "step_00000004_a.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00")
    (folder / "previews" / "step_00000004_b.png").write_text("no picture")
    assert reported(folder) == 0
    found = parsed(folder / "report.html")
    assert [a["alt"] for tag, a in found.elements if tag == "img"] == ["a at step 2"]


def test_small_pictures_are_enlarged_and_files_of_steps_to_come_are_not_shown(tmp_path):
    picture = np.zeros((10, 20, 3), np.uint8)
    folder = made(tmp_path / "run", shown=[(12, "a", picture), (40, "a", picture)])
    assert reported(folder) == 0
    (image,) = [a for tag, a in parsed(folder / "report.html").elements if tag == "img"]
    assert (image["width"], image["height"], image["class"]) == ("320", "160", "small")
    assert image["alt"] == "a at step 12"


# --- what the page says -----------------------------------------------------------------------------------------------


def test_seconds_of_all_processes_are_added(tmp_path):
    times = [{"step": 12, "split": "time", "compile": 3.0, "step_seconds": 5.0, "mine": 1.0, "preview": 0.0}] * 2
    rows = [{"step": 12, "split": "train", "loss": 1.0}, {**times[0], "step": 90}, times[1]]
    folder = made(tmp_path / "run", rows=rows)
    assert reported(folder) == 0
    found = parsed(folder / "report.html")
    assert "step 12 of 12" in found.text  # whatever step a process that was killed had come to
    assert cells(found, " compiling", 3) == ["6 s", "33.3%"]
    assert cells(found, " training steps", 3) == ["10 s", "55.6%"]
    assert cells(found, "all", 2) == ["18 s"]
    shares = [a["style"] for tag, a in found.elements if tag == "span" and a.get("style", "").startswith("flex-grow")]
    assert shares == ["flex-grow:0.33333", "flex-grow:0.55556", "flex-grow:0.11111"]
    assert "Where the time went" not in page.of_run(record.read(made(tmp_path / "old")))


@pytest.mark.parametrize(
    ("promise", "results", "names"),
    [
        ("test mIoU 0.789 after 4 min", {"loss": 1.0, "miou": 0.7, "aacc": 0.9}, ["miou"]),
        ("25 of 25 modes, and of high quality 0.98", {"high_quality": 0.9, "modes": 3}, ["modes", "high_quality"]),
        ("unverified", {"loss": 1.0, "kid": 0.1, "fd": 2.0, "fd_floor": 1.0}, ["fd"]),
        ("", {"loss": 1.0, "accuracy": None, "per_class": {}}, ["accuracy"]),
        ("", {"loss": 1.0}, ["loss"]),
        ("", {}, []),
    ],
)  # fmt: skip
def test_the_headline_is_what_the_config_promises(promise, results, names, tmp_path):
    found = dataclasses.replace(record.read(made(tmp_path / "run", results=results)), promise=promise)
    assert found.headline == names
    assert (sections.headline(found) is None) == (not names)


def test_the_promise_is_the_configs(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    for command in (
        "train.py configs/gan/grid25.py --steps 8",
        "jaxgen train gan/grid25",
        "train.py --config=gan/grid25",
    ):
        folder = made(
            tmp_path / command.replace("/", " "), results={"modes": 9, "modes_floor": 25}, about=f"command {command}\n"
        )
        assert reported(folder) == 0
        found = parsed(folder / "report.html")
        assert "The config promises: by PacGAN's protocol" in found.text
        assert "modes 9 baseline 25" in found.text
    assert not record.read(made(tmp_path / "none", about="command pytest tests\n")).promise


def test_a_running_run_is_told_from_one_that_was_killed(tmp_path):
    folder = made(tmp_path / "run")
    lock = folder / "run.lock"
    assert record.read(folder).status == "stopped"
    lock.touch()
    assert record.read(folder).status == "running"
    os.utime(lock, (0, 0))
    assert record.read(folder).status == "stopped"


def test_what_a_crash_left_in_the_files_is_passed_over(tmp_path):
    folder = made(tmp_path / "run", results={"accuracy": 0.5}, notes=["warning: seen"])
    for name in ("metrics.jsonl", "notes.jsonl"):
        with (folder / name).open("a") as file:
            file.write(
                '[1]\n7\n{"step": "many"}\n{"step": 8, "split": 3}\n{"step": 1e999, "split": "train"}\n\x00\n{"st'
            )
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('\n{"step": 13, "split": "train", "loss": null, "huge": 1e999, "long": 1' + "0" * 400 + "}\n")
    assert reported(folder) == 0
    found = parsed(folder / "report.html")
    assert "seen" in found.text
    assert [held["unit"] for held in found.held("curve")] == ["loss"]
    assert found.held("curve")[0]["series"][0]["y"][-1] is None


def test_a_run_of_an_earlier_version_is_read(tmp_path):
    folder = pathlib.Path(shutil.copytree(ROOT / "tests" / "stored_run" / "run", tmp_path / "run"))
    assert reported(folder) == 0
    found = parsed(folder / "report.html")
    assert "not finished step 10 of 20" in found.text
    assert {held["unit"] for held in found.held("curve")} >= {"loss", "error", "images/s"}
    assert cells(found, "weighting", 2) == ["8"]


# --- curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 39, 40, 41, 1000, 1001])
def test_thinning_keeps_order_and_extremes(count):
    y = np.random.default_rng(count).normal(size=count)
    series = curves.Series("a", tuple(range(count)), (*y[:-1].tolist(), None))
    thin = curves.thinned(series, 40)
    assert len(thin.x) <= 40
    assert list(thin.x) == sorted(set(thin.x))
    assert all(series.y[x] == value for x, value in zip(thin.x, thin.y, strict=True))
    finite = [value for value in series.y if value is not None]
    if finite:
        assert {min(finite), max(finite)} <= set(thin.y)


@pytest.mark.parametrize(
    ("low", "high"),
    [(0, 1), (0.1, 0.2), (-3, 900), (5, 5), (0, 0), (1e-12, 2e-12), (1 - 1e-12, 1), (-9e299, 9e299), (0, 5e-324)],
)
def test_ticks_are_round_and_enclose_the_curve(low, high):
    found = curves.ticks(float(low), float(high), 5)
    assert 2 <= len(found) <= 8
    assert found[0] <= low
    assert found[-1] >= high
    assert found == sorted(set(found))


def test_a_curve_is_broken_where_values_are_missing():
    series = curves.Series("a", (1, 2, 3, 4, 5), (1.0, 2.0, None, 3.0, None))
    (drawn,) = curves.figures([curves.Chart("a", "a", (series,))])
    (line,) = [e for e in drawn.iter("path") if e.get("class") == "line s0"]
    assert (line.get("d") or "").count("M") == 2
    assert len(list(drawn.iter("circle"))) == 1  # the value that stands alone


def test_pictures_are_spread_over_the_run():
    pictures = [(step, pathlib.Path()) for step in range(100)]
    assert [step for step, _ in previews.spaced(pictures, 4)] == [0, 33, 66, 99]
    assert [step for step, _ in previews.spaced(pictures, 1)] == [99]
    assert previews.spaced(pictures, 100) == pictures


# --- several runs -----------------------------------------------------------------------------------------------------


def test_runs_are_compared_field_by_field_and_curve_by_curve(tmp_path, monkeypatch, capsys):
    first = made(tmp_path / "a" / "run", results={"accuracy": 0.25, "loss": 2.0}, seed=1)
    second = made(tmp_path / "b" / "run", results={"accuracy": 0.75}, seed=2, step=8)
    monkeypatch.chdir(tmp_path)
    assert reported(first, second, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["report"] == "report.html"
    assert [(run["state"], run["step"], run["metrics"]["accuracy"]) for run in told["runs"]] == [
        ("finished", 12, 0.25), ("stopped", 8, 0.75),
    ]  # fmt: skip
    found = parsed(tmp_path / "report.html")
    (loss,) = found.held("curve")
    assert [series["label"] for series in loss["series"]] == ["a/run", "b/run"]
    assert loss["series"][1]["x"] == [2, 4, 6, 8]
    assert cells(found, "accuracy", 3) == ["0.25", "0.75"]
    assert cells(found, "seed", 3) == ["1", "2"]
    assert "steps" not in found.texts[found.texts.index("Fields that differ") :]
    assert "loss (train)" in found.texts


def test_runs_of_one_experiment_differ_in_no_field(tmp_path):
    folders = [made(tmp_path / name) for name in "ab"]
    text = page.of_runs([record.read(folder) for folder in folders], compare.labels(folders))
    assert "None: these are runs of one experiment." in Parsed(text).text


# --- what is refused --------------------------------------------------------------------------------------------------


def test_mistakes_are_answered_in_two_lines(tmp_path, capsys):
    run = made(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    fresh = made(tmp_path / "fresh")
    (fresh / "metrics.jsonl").unlink()
    damaged = made(tmp_path / "damaged")
    (damaged / "experiment.json").write_text('{"steps": 3, "objective": {}}')
    cases = {
        (): "required: RUN",
        (tmp_path / "nowhere",): "there is no run folder .*nowhere",
        (tmp_path / "empty",): "is not a run folder: it has no experiment.json",
        (fresh,): "has no step yet to report on",
        (damaged,): "does not describe an experiment",
        (run, run / ".." / "run"): "is named twice",
        (run, tmp_path / "empty"): "is not a run folder",
        (run, "--out", tmp_path / "a.txt"): "end in .txt.*.html",
        (run, "--out", tmp_path / "none" / "a.html"): "there is no folder .*none",
        (run, "--out", tmp_path): "a file without a suffix|it is a folder",
        (run, "--nonsense"): "unrecognized arguments",
    }
    for words, pattern in cases.items():
        capsys.readouterr()
        assert reported(*words) == 2, words
        said = capsys.readouterr().err
        assert said.startswith("error: "), said
        assert 1 <= len(said.strip().splitlines()) <= 2, said
        assert re.search(pattern, said), said
    assert not (run / "report.html").exists()


def test_a_run_is_named_by_as_much_of_its_path_as_it_takes(tmp_path):
    assert compare.labels([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert compare.labels([tmp_path / "a", tmp_path / "b"]) == ["a", "b"]
    with pytest.raises(UserError, match="named twice"):
        compare.labels([tmp_path / "a", tmp_path / "b", tmp_path / "a"])
