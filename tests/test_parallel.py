"""The mesh and the rules: what lies where, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, Mesh, PartitionSpec

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.dit import DIT, DiT
from jaxgen.models.r3gan import R3GAN, R3ganDiscriminator
from jaxgen.nn.transformer import SwiGlu
from jaxgen.parallel.activations import constrained
from jaxgen.parallel.mesh import MeshShape, check_batch, put_batch, with_shardings
from jaxgen.parallel.rules import ByPath, Composed, Fsdp, Replicated, Split, shardings, table


def four(shape: MeshShape | None = None) -> Mesh:
    return (shape or MeshShape()).build(jax.devices()[:4])


@pytest.mark.parametrize(
    ("shape", "sizes"),
    [
        (MeshShape(), (8, 1, 1, 1)),
        (MeshShape(replica=1, fsdp=-1), (1, 8, 1, 1)),
        (MeshShape(replica=2, fsdp=-1), (2, 4, 1, 1)),
        (MeshShape(replica=2, fsdp=1, tensor=-1), (2, 1, 1, 4)),
        (MeshShape(replica=2, fsdp=2, context=2), (2, 2, 2, 1)),
        (MeshShape(replica=-1, fsdp=2, slices=2), (4, 2, 1, 1)),
    ],
)
def test_sizes_fill_the_devices(shape, sizes):
    mesh = shape.build()
    assert tuple(mesh.shape.values()) == sizes
    assert set(mesh.axis_types) == {AxisType.Auto}
    assert set(mesh.devices.flat) == set(jax.devices())


def test_slices_share_the_replicas_and_nothing_else():
    mesh = MeshShape(replica=4, fsdp=2, slices=2).build()
    first, second = mesh.devices[:2], mesh.devices[2:]
    assert {d.id for d in first.flat} == {0, 1, 2, 3}
    assert {d.id for d in second.flat} == {4, 5, 6, 7}
    with pytest.raises(UserError, match="2 replicas do not spread evenly over 4 slices"):
        MeshShape(replica=2, fsdp=4, slices=4).build()


@pytest.mark.parametrize(
    "shape", [MeshShape(replica=3), MeshShape(replica=16), MeshShape(replica=3, fsdp=-1), MeshShape(fsdp=16)]
)
def test_sizes_that_do_not_multiply_are_refused(shape):
    with pytest.raises(UserError, match="do not multiply to the 8 device"):
        shape.build()


@pytest.mark.parametrize("shape", [MeshShape(fsdp=-1), MeshShape(replica=0), MeshShape(replica=1, fsdp=-2)])
def test_impossible_sizes_are_refused(shape):
    with pytest.raises(UserError, match="whole numbers"):
        shape.build()


def test_a_batch_that_does_not_divide_is_refused_with_one_that_does():
    with pytest.raises(UserError, match=r"batch size 30 does not divide over 4 device.*--batch-size 32"):
        check_batch(four(), 30)
    check_batch(four(), 32, 8)
    with pytest.raises(UserError, match="8 parts"):
        check_batch(four(), 16, 8)
    check_batch(four(MeshShape(replica=1, tensor=4)), 3)  # tensor devices share their rows


def test_fsdp_splits_the_largest_dimension_that_divides():
    mesh = four(MeshShape(replica=1, fsdp=-1))
    rule = Fsdp(smallest=16)
    assert rule("w", (3, 3, 16, 64), mesh) == PartitionSpec(None, None, None, "fsdp")
    assert rule("w", (512, 10), mesh) == PartitionSpec("fsdp", None)
    assert rule("w", (3, 3, 8, 8), mesh) == PartitionSpec(None, None, None, "fsdp")
    assert rule("w", (7, 9), mesh) == PartitionSpec()  # nothing divides
    assert rule("w", (12,), mesh) == PartitionSpec()  # too small to be worth it


def test_optimizer_state_lies_as_its_parameter():
    mesh = four(MeshShape(replica=1, fsdp=-1))
    shapes = jax.eval_shape(lambda: {"params": {"w": jnp.zeros((64, 8))}, "mu": {"w": jnp.zeros((64, 8))}, "n": 0})
    found = shardings(Fsdp(smallest=1), shapes, mesh)
    assert found["params"]["w"].spec == found["mu"]["w"].spec == PartitionSpec("fsdp", None)
    assert found["n"].spec == PartitionSpec()


def test_by_path_takes_the_first_and_refuses_what_none_finds():
    mesh = four(MeshShape(replica=1, fsdp=-1))
    rule = ByPath((("head", Replicated()), ("kernel$", Fsdp(smallest=1))))
    assert rule("head/kernel", (64, 8), mesh) == PartitionSpec()
    assert rule("body/kernel", (64, 8), mesh) == PartitionSpec("fsdp", None)
    with pytest.raises(UserError, match=r"finds body/bias"):
        rule("body/bias", (64,), mesh)


@pytest.mark.parametrize(
    "rule",
    [
        ByPath((("haed", Split(-1)), ("", Replicated()))),
        Composed((ByPath((("body", ByPath((("haed", Split(-1)), ("", Replicated())))), ("", Replicated()))), Fsdp())),
    ],
)
def test_a_pattern_that_finds_nothing_is_refused(rule):
    shapes = jax.eval_shape(lambda: {"head": {"kernel": jnp.zeros((64, 8))}, "body": {"kernel": jnp.zeros((8, 8))}})
    with pytest.raises(UserError, match="'haed' of ByPath finds no array of the state, such as body/kernel"):
        shardings(rule, shapes, four())
    shapes["haed"] = shapes.pop("head")
    assert jax.tree.leaves(shardings(rule, shapes, four()))


@pytest.mark.parametrize("mlp", [None, SwiGlu()])
def test_the_rule_of_a_net_finds_its_arrays_and_those_of_its_optimizer(mlp):
    net = DiT(width=16, depth=2, heads=4, **({} if mlp is None else {"mlp": mlp}))
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, jnp.zeros(2), {}, train=False)["params"], x)
    state = {"params": params, "opt": jax.eval_shape(optax.adam(1e-3).init, params)}
    mesh = four(MeshShape(replica=1, tensor=-1))
    if mlp is not None:  # 42 hidden channels over 4 devices
        mesh = four(MeshShape(replica=2, tensor=2))
    split = {path for path, leaf in tree.leaves(shardings(DIT, state, mesh)) if not leaf.is_fully_replicated}
    layers = {path.rsplit("/", 2)[-2] for path in split}
    assert layers == {"qkv", "out", "up", "down"}
    assert len(split) == 3 * 6  # four kernels and two biases, and both of Adam's moments
    with pytest.raises(UserError, match=r"of ByPath finds no array of the state"):
        shardings(R3GAN, state, mesh)


def test_a_rule_that_names_a_missing_axis_is_refused():
    with pytest.raises(UserError, match="no axis 'model'; it has replica, fsdp, context, tensor"):
        Fsdp(axis="model")("w", (64,), MeshShape().build())


def test_a_batch_is_split_over_replicas_and_fsdp():
    mesh = four(MeshShape(replica=2, fsdp=2))
    rows = np.arange(8, dtype=np.int32)
    placed = put_batch(mesh, {"label": rows})["label"]
    assert [shard.data.shape for shard in placed.addressable_shards] == [(2,)] * 4
    np.testing.assert_array_equal(placed, rows)


def test_split_takes_a_dimension_from_the_end_and_refuses_what_does_not_divide():
    mesh = four(MeshShape(replica=1, tensor=-1))
    assert Split(-2)("w", (3, 16, 10), mesh) == PartitionSpec(None, "tensor", None)
    assert Split(-1)("b", (8,), mesh) == PartitionSpec("tensor")
    with pytest.raises(UserError, match=r"dimension -1 of w \(16, 10\) does not divide over the 4 devices of 'tensor'"):
        Split(-1)("w", (16, 10), mesh)
    with pytest.raises(UserError, match="has no dimension -3"):
        Split(-3)("w", (16, 8), mesh)


def test_composed_rules_share_what_is_left():
    mesh = four(MeshShape(replica=1, fsdp=2, tensor=2))
    rule = Composed((ByPath((("up", Split(-1)), ("", Replicated()))), Fsdp(smallest=1)))
    assert rule("up/kernel", (6, 32), mesh) == PartitionSpec(None, ("tensor", "fsdp"))  # 16 are still the most
    assert rule("up/kernel", (20, 32), mesh) == PartitionSpec("fsdp", "tensor")
    assert rule("norm", (32,), mesh) == PartitionSpec("fsdp")
    assert rule("odd", (7,), mesh) == PartitionSpec()
    with pytest.raises(UserError, match="over the same axis"):
        Composed((Fsdp(smallest=1), Fsdp(smallest=1)))("w", (32, 16), mesh)


def test_rows_of_a_picture_are_split_over_context():
    mesh = four(MeshShape(replica=2, context=2))
    image, label = np.zeros((4, 6, 5, 1), np.uint8), np.zeros(4, np.int32)
    placed = put_batch(mesh, {"image": image, "label": label})
    assert {shard.data.shape for shard in placed["image"].addressable_shards} == {(2, 3, 5, 1)}
    assert {shard.data.shape for shard in placed["label"].addressable_shards} == {(2,)}
    odd = put_batch(mesh, {"image": image[:, :5]})["image"]  # five rows stay together
    assert {shard.data.shape for shard in odd.addressable_shards} == {(2, 5, 5, 1)}


@pytest.mark.slow
def test_a_game_over_tensor_devices_changes_nothing(key):
    net = R3ganDiscriminator(classes=0, widths=(16, 16), blocks=1, group_width=8)
    x = jax.random.normal(key, (4, 8, 8, 3))
    params = net.init(key, x, {}, train=False)["params"]
    # The residual branches begin at 0; as they are, nothing would pass the split layers.
    params = jax.tree.map(lambda p: p + 0.1 * jax.random.normal(key, p.shape), params)
    mesh = four(MeshShape(replica=2, tensor=2))
    whole = jax.eval_shape(lambda: {"params": params})
    placed = jax.device_put({"params": params}, shardings(R3GAN, whole, mesh))["params"]
    specs = {path.rsplit("/", 2)[-2] for path, leaf in tree.leaves(placed) if not leaf.sharding.is_fully_replicated}
    assert specs == {"widen", "conv", "narrow"}

    def loss(params, x):
        return jnp.square(net.apply({"params": params}, x, {}, train=True)).sum()

    one = jax.jit(jax.value_and_grad(loss))(params, x)
    two = jax.jit(constrained(mesh, jax.value_and_grad(loss)))(placed, put_batch(mesh, {"x": np.asarray(x)})["x"])
    for (path, a), (_, b) in zip(tree.leaves(one), tree.leaves(two), strict=True):
        assert np.abs(np.asarray(a) - np.asarray(b)).max() <= 2e-5 * np.abs(a).max(), path


def test_the_table_says_where_everything_lies():
    mesh = four(MeshShape(replica=1, fsdp=-1))
    shapes = jax.eval_shape(lambda: {"w": jnp.zeros((64, 8)), "n": jnp.int32(0)})
    head, n, w, total = table(with_shardings(shapes, shardings(Fsdp(smallest=1), shapes, mesh)))
    assert head.split()[-3:] == ["bytes", "a", "device"]
    assert n.split() == ["n", "int32", "1", "whole", "4"]
    assert w.split() == ["w", "float32", "64×8", "('fsdp',", "None)", "512"]
    assert total.split() == ["all", "516"]
