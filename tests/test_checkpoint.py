"""Checkpoints: what comes back is what went in, or is refused by name."""

import errno
import pathlib
import shutil
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.errors import UserError
from jaxgen.parallel.mesh import MeshShape, with_shardings
from jaxgen.parallel.rules import Fsdp, Replicated, shardings
from jaxgen.runs.checkpoints import Checkpoints, checksum


def make(seed: int):
    kernel = jax.random.normal(jax.random.key(seed), (256, 64))
    return {"step": jnp.int32(seed), "nets": {"net": {"w": kernel, "ema": None}}, "half": jnp.ones(3, jnp.bfloat16)}


def placed(rule, shape, devices):
    mesh = shape.build(devices)
    return with_shardings(jax.eval_shape(lambda: make(0)), shardings(rule, jax.eval_shape(lambda: make(0)), mesh))


def put(target, seed):
    return jax.tree.map(lambda x, t: jax.device_put(x, t.sharding), make(seed), target)


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


@pytest.fixture
def three(tmp_path):
    target = placed(Replicated(), MeshShape(), jax.devices())
    with Checkpoints(tmp_path / "checkpoints", keep=2) as checkpoints:
        for seed in (1, 2, 3):
            checkpoints.save(seed, put(target, seed))
    return tmp_path / "checkpoints", target


def test_the_last_are_kept_and_come_back(three):
    folder, target = three
    with Checkpoints(folder) as checkpoints:
        assert checkpoints.steps == [2, 3]
        step, state = checkpoints.restore_latest(target, pytest.fail)
        assert step == 3
        assert equal(state, make(3))
        assert equal(checkpoints.restore(2, target), make(2))


@pytest.mark.parametrize("devices", [1, 2])
def test_saved_over_four_devices_restores_on_fewer(tmp_path, devices):
    over_four = placed(Fsdp(smallest=1), MeshShape(replica=1, fsdp=-1), jax.devices()[:4])
    state = put(over_four, 5)
    assert len({shard.index for shard in state["nets"]["net"]["w"].addressable_shards}) == 4
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(5, state)
    target = placed(Fsdp(smallest=1), MeshShape(replica=1, fsdp=-1), jax.devices()[:devices])
    with Checkpoints(tmp_path / "c") as checkpoints:
        found = checkpoints.restore(5, target)
    assert equal(found, make(5))
    assert found["nets"]["net"]["w"].sharding.num_devices == devices


def largest(folder: pathlib.Path) -> pathlib.Path:
    return max((f for f in folder.rglob("*") if f.is_file()), key=lambda f: f.stat().st_size)


def cut_short(folder: pathlib.Path) -> None:
    file = largest(folder)
    file.write_bytes(file.read_bytes()[:1000])


def flip_a_bit(folder: pathlib.Path) -> None:
    file = largest(folder)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


DAMAGE = {
    "cut short": cut_short,
    "one bit flipped": flip_a_bit,
    "largest file gone": lambda folder: largest(folder).unlink(),
    "state gone": lambda folder: shutil.rmtree(folder / "state"),
    "metadata garbled": lambda folder: (folder / "state" / "_METADATA").write_text("{"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(three, damage):
    folder, target = three
    damage(folder / "3")
    said: list[str] = []
    with Checkpoints(folder) as checkpoints:
        step, state = checkpoints.restore_latest(target, said.append)
        assert step == 2
        assert equal(state, make(2))
        assert len(said) == 1
        assert "step 3" in said[0]
        assert "going back to step 2" in said[0]
        checkpoints.set_aside(newer_than=2)
        checkpoints.save(3, put(target, 3))
    assert (folder.parent / "damaged" / "3").is_dir()
    with Checkpoints(folder) as checkpoints:
        assert equal(checkpoints.restore(3, target), make(3))


def test_with_nothing_whole_left_it_does_not_start_anew_silently(three):
    folder, target = three
    cut_short(folder / "2")
    cut_short(folder / "3")
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match=r"no checkpoint .* can be read"):
        checkpoints.restore_latest(target, lambda _: None)


def test_a_missing_step_is_answered_with_those_there_are(three):
    folder, target = three
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match=r"no checkpoint of step 9.*: 2, 3"):
        checkpoints.restore(9, target)


def test_another_shape_is_refused(three):
    folder, target = three
    leaf = target["nets"]["net"]["w"]
    wrong = {**target, "nets": {"net": {"w": jax.ShapeDtypeStruct((5, 5), leaf.dtype, sharding=leaf.sharding)}}}
    with Checkpoints(folder) as checkpoints, pytest.raises(UserError, match="step 3"):
        checkpoints.restore(3, wrong)


def test_the_checksum_sees_every_bit_and_no_sharding():
    state = make(1)
    whole = checksum(state)
    target = placed(Fsdp(smallest=1), MeshShape(replica=1, fsdp=-1), jax.devices())
    assert jax.jit(checksum)(put(target, 1)) == whole
    swapped = {**state, "nets": {"net": {"w": state["nets"]["net"]["w"][::-1], "ema": None}}}
    nudged = {**state, "half": state["half"].at[1].set(1.0078125)}
    assert len({int(whole), int(checksum(swapped)), int(checksum(nudged))}) == 3


def test_a_relative_folder_will_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    target = placed(Replicated(), MeshShape(), jax.devices())
    with Checkpoints(pathlib.Path("runs/mine")) as checkpoints:
        checkpoints.save(1, put(target, 1))
    with Checkpoints(pathlib.Path("runs/mine")) as checkpoints:
        assert equal(checkpoints.restore(1, target), make(1))


def test_a_full_disk_is_said_in_a_line_with_the_last_whole_step(three, monkeypatch):
    folder, target = three

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with Checkpoints(folder) as checkpoints:
        monkeypatch.setattr(checkpoints._orbax, "save_checkpointables_async", full)
        with pytest.raises(
            UserError, match=r"cannot write .*: No space left on device; the last whole one is of step 3$"
        ):
            checkpoints.save(4, put(target, 4))
        monkeypatch.setattr(checkpoints, "_saving", types.SimpleNamespace(result=full))
        with pytest.raises(UserError, match="No space left on device"):  # where it shows only later
            checkpoints.restore(3, target)


def test_what_is_no_checkpoint_is_left_alone(three):
    folder, target = three
    (folder / "notes.txt").write_text("mine")
    (folder / "2.bak").mkdir()
    (folder / ".DS_Store").touch()
    with Checkpoints(folder, keep=1) as checkpoints:
        assert checkpoints.steps == [2, 3]
        checkpoints.save(4, put(target, 4))
    assert sorted(path.name for path in folder.iterdir()) == [".DS_Store", "2.bak", "4", "notes.txt"]
