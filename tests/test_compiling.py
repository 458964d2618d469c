"""What is compiled ahead: once, as a call would compile it, with a word on how long that usually takes."""

import contextlib
import dataclasses
import json
from concurrent.futures import Future, ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import linear

from jaxgen import loop
from jaxgen.evaluation import evaluated, evaluation_batches
from jaxgen.parallel.mesh import MeshShape, put_batch
from jaxgen.parallel.on_mesh import OnMesh
from jaxgen.parallel.rules import Fsdp
from jaxgen.program import Program
from jaxgen.runs import compiling
from jaxgen.runs.compiling import Compiling
from jaxgen.runs.folder import RunFolder
from jaxgen.runs.session import Session

MESH = MeshShape().build(jax.devices()[:1])


@pytest.fixture
def threads():
    with ThreadPoolExecutor(1) as pool:
        yield pool


def compiled_by(caplog):
    """The functions that this thread has traced or compiled while `jax.log_compiles` was on."""
    return [r.getMessage() for r in caplog.records if r.getMessage().startswith(("Finished tracing", "Compiling"))]


@pytest.mark.parametrize("rule", ["replicated", "fsdp"])
def test_a_call_finds_what_was_compiled_ahead(rule, threads, caplog):
    made = linear()
    if rule == "fsdp":
        made = dataclasses.replace(made, mesh=MeshShape(replica=1, fsdp=-1), rule=Fsdp(smallest=1))
    program = Program.of(made)
    test_set = program.experiment.test.source.open()
    program.step.compile_ahead(threads, program.shapes, program.spec)
    program.evaluate.compile_ahead(threads, program.shapes, evaluated(program, test_set))
    state, batch = program.init(), next(program.batches())
    measured = put_batch(program.mesh, next(evaluation_batches(program, test_set)))
    for function in (program.step, program.evaluate):
        function.wait()
    caplog.clear()
    with jax.log_compiles(), jax.transfer_guard("disallow"):
        state, _ = program.step(state, batch)
        program.evaluate(state, measured)
    assert [line for line in compiled_by(caplog) if "step" in line or "lambda" in line] == []


def test_the_test_above_sees_what_is_compiled(caplog):
    program = Program.of(linear())
    state, batch = program.init(), next(program.batches())
    caplog.clear()
    with jax.log_compiles():
        program.step(state, batch)
    assert any("step" in line for line in compiled_by(caplog))


def test_an_error_of_the_compiler_is_raised_where_it_is_called(threads):
    def failing(x):
        raise ValueError("it cannot be traced")

    function = OnMesh(MESH, jax.jit(failing))
    function.compile_ahead(threads, jnp.zeros(3))
    with pytest.raises(ValueError, match="cannot be traced"):
        function(jnp.zeros(3))


def test_results_are_those_of_a_call(threads):
    made = [OnMesh(MESH, jax.jit(lambda x: jnp.sin(x) @ jnp.cos(x).T)) for _ in range(2)]
    x = jax.random.normal(jax.random.key(0), (32, 32))
    seconds = made[0].compile_ahead(threads, jax.ShapeDtypeStruct(x.shape, x.dtype)).result()
    assert min(seconds) > 0
    np.testing.assert_array_equal(made[0](x), made[1](x))


def test_the_first_state_is_made_while_the_step_is_compiled(tmp_path, monkeypatch):
    order = []
    real = {name: getattr(cls, name) for cls, name in ((Program, "init"), (Compiling, "begin"), (Compiling, "wait"))}
    monkeypatch.setattr(Program, "init", lambda *a: order.append("init") or real["init"](*a))
    monkeypatch.setattr(Compiling, "begin", lambda s, n, *a: order.append(f"begin {n}") or real["begin"](s, n, *a))
    monkeypatch.setattr(Compiling, "wait", lambda s, n: order.append(f"wait {n}") or real["wait"](s, n))
    loop.train(dataclasses.replace(linear(), steps=2, log_every=1), RunFolder(tmp_path / "run"))
    assert order == [
        "begin step", "begin preview", "begin evaluation", "init",
        "wait step", "wait preview", "wait step", "wait preview", "wait evaluation",
    ]  # fmt: skip
    order.clear()
    loop.train(dataclasses.replace(linear(), steps=2, log_every=1), RunFolder(tmp_path / "run"))
    assert order == ["begin evaluation", "wait evaluation"]  # a finished run needs no other


# --- how long it usually takes ----------------------------------------------------------------------------------------


class Slow(OnMesh):
    """A function of which the compiler says, once somebody waits, that it took so long."""

    def __init__(self, traced: float, compiled: float) -> None:
        super().__init__(MESH, function=None)
        object.__setattr__(self, "seconds", (traced, compiled))
        object.__setattr__(self, "future", Future())

    def compile_ahead(self, threads, *shapes):
        return self.future


@pytest.fixture
def said(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_path", lambda: tmp_path / "seconds.json")

    def said(program: Program, function: Slow) -> list[str]:
        lines = []

        def say(line: str) -> None:
            lines.append(line)
            function.future.set_result(function.seconds)

        with contextlib.ExitStack() as stack:
            own = Compiling(stack, program, say)
            own.begin("step", function)
            own.wait("step")
            own.wait("step")  # it is there
        return lines

    return said


def test_how_long_it_took_before_is_said(said, tmp_path):
    program = Program.of(linear())
    other = Program.of(dataclasses.replace(linear(), batch_size=32))
    assert said(program, Slow(3.0, 37.0)) == ["compiling the step"]
    # The same program is in the cache now, and is traced only; another one of its kind is not.
    assert said(program, Slow(3.0, 1.0)) == ["compiling the step (usually 3 s)"]
    assert said(other, Slow(1.0, 9.0)) == ["compiling the step (usually 40 s)"]
    assert said(program, Slow(1.0, 0.1)) == ["compiling the step (usually 4 s)"]
    assert said(program, Slow(1.0, 0.1)) == ["compiling the step"]  # what takes a second is not worth a word
    assert len(json.loads((tmp_path / "seconds.json").read_text())) == 3


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"a": "b"}'])
def test_a_record_that_cannot_be_read_says_nothing(text, said, tmp_path):
    (tmp_path / "seconds.json").write_text(text)
    assert said(Program.of(linear()), Slow(3.0, 37.0)) == ["compiling the step"]


def test_a_session_keeps_how_long_it_took(tmp_path, monkeypatch):
    monkeypatch.setattr(compiling, "_path", lambda: tmp_path / "seconds.json")
    with Session.open(dataclasses.replace(linear(), steps=1), RunFolder(tmp_path / "run")) as session:
        next(iter(session.batches()))
    kept = json.loads((tmp_path / "seconds.json").read_text())
    assert {name.rpartition(", ")[2] for name in kept} == {"step"}
    assert any(name.startswith("Classification of Linear on 8 x ") for name in kept)
