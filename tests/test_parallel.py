"""The mesh and the rules: what lies where, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec

from jaxgen.parallel.mesh import MeshShape, check_batch, put_batch
from jaxgen.parallel.rules import ByPath, Fsdp, Replicated, shardings
from jaxgen.typing import UserError


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (MeshShape(), (4, 1, 1)),
        (MeshShape(replica=1, fsdp=-1), (1, 4, 1)),
        (MeshShape(replica=2, fsdp=-1), (2, 2, 1)),
        (MeshShape(replica=2, fsdp=1, tensor=2), (2, 1, 2)),
    ],
)
def test_sizes_fill_the_devices(shape, sizes):
    mesh = shape.build()
    assert tuple(mesh.shape.values()) == sizes
    assert set(mesh.axis_types) == {AxisType.Auto}


@pytest.mark.parametrize(
    "shape", [MeshShape(replica=3), MeshShape(replica=8), MeshShape(replica=3, fsdp=-1), MeshShape(fsdp=8)]
)
def test_sizes_that_do_not_multiply_are_refused(shape):
    with pytest.raises(UserError, match="do not multiply to the 4 device"):
        shape.build()


@pytest.mark.parametrize("shape", [MeshShape(fsdp=-1), MeshShape(replica=0), MeshShape(replica=1, fsdp=-2)])
def test_impossible_sizes_are_refused(shape):
    with pytest.raises(UserError, match="whole numbers"):
        shape.build()


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(UserError, match=r"batch size 30 does not divide over 4 device.*--batch-size 32"):
        check_batch(MeshShape().build(), 30)
    check_batch(MeshShape().build(), 32, 8)
    with pytest.raises(UserError, match="8 turns"):
        check_batch(MeshShape().build(), 16, 8)
    check_batch(MeshShape(replica=1, fsdp=1, tensor=4).build(), 3)  # tensor devices share their rows


def test_fsdp_splits_the_largest_dimension_that_divides():
    mesh = MeshShape(replica=1, fsdp=-1).build()
    rule = Fsdp(smallest=16)
    assert rule("w", (3, 3, 16, 64), mesh) == PartitionSpec(None, None, None, "fsdp")
    assert rule("w", (512, 10), mesh) == PartitionSpec("fsdp", None)
    assert rule("w", (3, 3, 8, 8), mesh) == PartitionSpec(None, None, None, "fsdp")
    assert rule("w", (7, 9), mesh) == PartitionSpec()  # nothing divides
    assert rule("w", (12,), mesh) == PartitionSpec()  # too small to be worth it


def test_optimizer_state_lies_as_its_parameter():
    mesh = MeshShape(replica=1, fsdp=-1).build()
    shapes = jax.eval_shape(lambda: {"params": {"w": jnp.zeros((64, 8))}, "mu": {"w": jnp.zeros((64, 8))}, "n": 0})
    found = shardings(Fsdp(smallest=1), shapes, mesh)
    assert found["params"]["w"].spec == found["mu"]["w"].spec == PartitionSpec("fsdp", None)
    assert found["n"].spec == PartitionSpec()


def test_by_path_takes_the_first_and_refuses_what_none_finds():
    mesh = MeshShape(replica=1, fsdp=-1).build()
    rule = ByPath((("head", Replicated()), ("kernel$", Fsdp(smallest=1))))
    assert rule("head/kernel", (64, 8), mesh) == PartitionSpec()
    assert rule("body/kernel", (64, 8), mesh) == PartitionSpec("fsdp", None)
    with pytest.raises(UserError, match=r"finds body/bias"):
        rule("body/bias", (64,), mesh)


def test_a_rule_that_names_a_missing_axis_is_refused():
    with pytest.raises(UserError, match="no axis 'model'; it has replica, fsdp, tensor"):
        Fsdp(axis="model")("w", (64,), MeshShape().build())


def test_a_batch_is_split_over_replicas_and_fsdp():
    mesh = MeshShape(replica=2, fsdp=2).build()
    rows = np.arange(8, dtype=np.int32)
    placed = put_batch(mesh, {"label": rows})["label"]
    assert [shard.data.shape for shard in placed.addressable_shards] == [(2,)] * 4
    np.testing.assert_array_equal(placed, rows)
