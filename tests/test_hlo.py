"""What a compiled program moves, against arithmetic done by hand and against XLA's own count."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxgen.plan.collectives import Collective, collectives, memory_traffic
from jaxgen.plan.hlo import unknown_loops

EIGHT = {"a": 2, "b": 4}


def compiled(function, sizes, shapes, specs, out):
    """A function of f32 arrays compiled for a mesh of the first devices; all that it returns lies as `out` says."""
    devices = np.array(jax.devices()[: math.prod(sizes.values())]).reshape(*sizes.values())
    mesh = jax.sharding.Mesh(devices, tuple(sizes), axis_types=(jax.sharding.AxisType.Auto,) * len(sizes))
    place = lambda spec: NamedSharding(mesh, PartitionSpec(*spec))  # noqa: E731
    given = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    to = jax.jit(function, in_shardings=tuple(map(place, specs)), out_shardings=place(out))
    return to.lower(*given).compile()


def entry(lines, types="f32[8]{0}", before=""):
    """A program of a few instructions, in the words of XLA."""
    text = "\n  ".join(line.strip() for line in lines.strip().splitlines())
    return f"HloModule m, is_scheduled=true\n\n{before}\nENTRY %main (p: {types}) -> f32[] {{\n  {text}\n}}\n"


# Programs that XLA compiled


def test_data_parallel_training_reduces_each_gradient_once():
    def loss(w, b, x):
        return jnp.sum(jnp.tanh(x @ w + b[None]))

    shapes, specs = ((32, 16), (16,), (8, 32)), ((), (), ("data",))
    found = collectives(compiled(jax.grad(loss, (0, 1)), {"data": 4}, shapes, specs, ()).as_text(), {"data": 4})
    assert {(x.kind, x.axes, x.group, x.times) for x in found} == {("all-reduce", ("data",), 4, 1)}
    assert sum(x.payload for x in found) == 4 * (32 * 16 + 16)
    assert sum(x.traffic for x in found) == 2 * 4 * (32 * 16 + 16) * 3 / 4
    assert any("dot_general" in x.op for x in found)


def test_a_layers_weights_are_gathered_as_often_as_the_scan_runs():
    def net(w, x):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0]

    specs = ((None, "fsdp"), ("fsdp",))
    text = compiled(net, {"fsdp": 4}, ((5, 256, 256), (8, 256)), specs, ("fsdp",)).as_text()
    gathered = [x for x in collectives(text, {"fsdp": 4}) if x.kind == "all-gather"]
    assert [(x.axes, x.payload, x.times) for x in gathered] == [(("fsdp",), 4 * 256 * 256, 5)]
    assert gathered[0].traffic == 5 * 4 * 256 * 256 * 3 / 4
    assert unknown_loops(text) == 0


def test_loops_in_loops_multiply():
    def net(w, x):
        inner = lambda x, w: (jax.lax.fori_loop(0, 3, lambda _, x: jnp.tanh(x @ w), x), None)  # noqa: E731
        return jax.lax.scan(inner, x, w)[0]

    specs = ((None, None, "m"), (None, "m"))
    text = compiled(net, {"m": 4}, ((5, 64, 64), (8, 64)), specs, (None, "m")).as_text()
    assert {(x.kind, x.times) for x in collectives(text, {"m": 4}) if x.payload == 4 * 8 * 64} == {("all-gather", 15)}


def test_the_axes_are_those_that_a_communication_runs_along():
    shapes, sizes = ((64, 32), (8, 64)), {"data": 2, "tensor": 2}
    product = lambda w, x: jnp.tanh(x @ w)  # noqa: E731
    text = compiled(product, sizes, shapes, (("tensor",), ("data", "tensor")), ("data",)).as_text()
    assert [(x.kind, x.axes, x.group) for x in collectives(text, sizes)] == [("all-reduce", ("tensor",), 2)]
    text = compiled(product, sizes, shapes, (("data",), ("tensor", "data")), ("tensor",)).as_text()
    assert [(x.kind, x.axes, x.group) for x in collectives(text, sizes)] == [("all-reduce", ("data",), 2)]
    everywhere = (("data", "tensor"),)
    text = compiled(lambda w, x: x.T @ (x @ w), sizes, shapes, ((), everywhere), ()).as_text()
    assert [(x.kind, x.axes, x.group) for x in collectives(text, sizes)] == [("all-reduce", ("data", "tensor"), 4)]


def test_a_function_that_is_called_twice_communicates_twice():
    total = jax.jit(lambda x: jax.lax.psum(x, "d"))
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ("d",), axis_types=(jax.sharding.AxisType.Auto,))
    twice = lambda x: total(jnp.sin(total(x)))  # noqa: E731
    f = jax.shard_map(twice, mesh=mesh, in_specs=PartitionSpec("d"), out_specs=PartitionSpec())
    text = jax.jit(f).lower(jax.ShapeDtypeStruct((16, 8), jnp.float32)).compile().as_text()
    assert [(x.kind, x.payload) for x in collectives(text, {"d": 4})] == [("all-reduce", 4 * 4 * 8)] * 2


def test_one_device_does_not_communicate():
    text = compiled(lambda w, x: x @ w, {"data": 1}, ((8, 8), (8, 8)), (("data",), ("data",)), ()).as_text()
    assert collectives(text, {"data": 1}) == []


def test_a_program_for_another_mesh_is_refused():
    text = compiled(lambda x: x.sum(), {"data": 4}, ((8, 8),), (("data",),), ()).as_text()
    with pytest.raises(ValueError, match="for 4 devices, the mesh has 8"):
        collectives(text, EIGHT)
    with pytest.raises(ValueError, match="no ENTRY"):
        memory_traffic("HloModule m\n")


def mlp(w, v, x):
    return jnp.sum(jnp.tanh(x @ w) @ v)


def convolved(k, x):
    return jax.nn.relu(jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")))


@pytest.mark.parametrize(
    ("function", "shapes"),
    [
        (jax.grad(mlp, (0, 1)), ((256, 512), (512, 128), (64, 256))),
        (lambda x: jax.nn.softmax(x * 2), ((512, 512),)),
        (convolved, ((3, 3, 16, 16), (2, 32, 32, 16))),
        (lambda x, u: jax.lax.dynamic_update_slice(x, jnp.sin(u), (3, 0)), ((1024, 256), (4, 256))),
        (lambda x: jnp.sort(x, axis=0), ((512, 64),)),
        (lambda x: jax.lax.dynamic_slice(jnp.tanh(x), (7, 0), (16, 256)) * 2, ((1024, 256),)),
    ],
    ids=["mlp", "softmax", "convolution", "update", "sort", "slice"],
)
def test_memory_traffic_without_loops_is_what_xla_counts(function, shapes):
    program = compiled(function, {"data": 1}, shapes, ((),) * len(shapes), ())
    assert memory_traffic(program.as_text()) == pytest.approx(program.cost_analysis()["bytes accessed"], rel=1e-3)


def test_memory_traffic_of_a_loop_counts_each_trip():
    def traffic(layers):
        net = lambda w, x: jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), x), x, w)  # noqa: E731
        text = compiled(net, {"d": 1}, ((layers, 128, 128), (8, 128)), ((), ()), ()).as_text()
        assert unknown_loops(text) == 0
        return memory_traffic(text)

    layer = (traffic(7) - traffic(3)) / 4
    assert traffic(11) == pytest.approx(traffic(3) + 8 * layer, rel=1e-6)
    # the weights are read twice if the slice is copied first, the stack of all layers never
    weights, row = 4 * 128 * 128, 4 * 8 * 128
    assert weights + 3 * row <= layer <= 3 * weights + 12 * row


def test_of_a_conditionals_branches_the_one_that_moves_most_counts():
    def f(p, x):
        return jax.lax.cond(p[0] > 0, lambda x: jnp.tanh(x @ x), lambda x: x / x.sum(), x)

    text = compiled(f, {"d": 4}, ((1,), (64, 64)), ((), ("d",)), ("d",)).as_text()
    assert " all-reduce(" in text
    assert [(x.kind, x.payload, x.times) for x in collectives(text, {"d": 4})] == [("all-gather", 4 * 64 * 64, 1)]


def test_a_loop_whose_length_depends_on_data_is_counted_once_and_said_to_be_unknown():
    f = lambda x: jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: jnp.tanh(x @ x), x)  # noqa: E731
    text = compiled(f, {"d": 4}, ((64, 64),), (("d",),), ("d",)).as_text()
    assert unknown_loops(text) == 1
    assert [(x.kind, x.times) for x in collectives(text, {"d": 4}) if x.payload > 4] == [("all-gather", 1)]


# Ways to write groups of devices


@pytest.mark.parametrize(
    ("groups", "axes", "size"),
    [
        ("{}", ("a", "b"), 8),
        ("{{0,1,2,3},{4,5,6,7}}", ("b",), 4),
        ("{{0,4},{1,5},{2,6},{3,7}}", ("a",), 2),
        ("{{0,1},{2,3},{4,5},{6,7}}", ("b",), 2),
        ("[2,4]<=[8]", ("b",), 4),
        ("[4,2]<=[2,4]T(1,0)", ("a",), 2),
        ("[1,8]<=[8]", ("a", "b"), 8),
        ("mesh['a'=2,'b'=4] {'b'}", ("b",), 4),
        ("mesh['a'=2,'b'=4] {'a','b'}", ("a", "b"), 8),
        ("mesh[axis_0=2,axis_1=4] {axis_0}", ("a",), 2),
        ("mesh['one'=1,'axis_0'=8,'last'=1] {'axis_0'}", ("a", "b"), 8),
        # a part of an axis: (how many parts are before it)size
        ("mesh['axis_0'=8] {'axis_0':(1)2}", ("a",), 2),
        ("mesh['axis_0'=8] {'axis_0':(2)4}", ("b",), 4),
        ("mesh['axis_0'=8] {'axis_0':(2)2}", ("b",), 2),
        ("mesh['axis_0'=8] {'axis_0':(1)2,'axis_0':(4)2}", ("a", "b"), 4),
        # meshes whose devices are in another order
        ("mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'y'}", ("a",), 2),
        ("mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}", ("b",), 4),
        ("mesh['x'=2,'y'=4], device_ids=(0,4,1,5,2,6,3,7) {'x'}", ("b",), 2),
    ],
)
def test_groups_of_devices_are_read_in_every_form(groups, axes, size):
    text = entry(f"""
        %p = f32[8]{{0}} parameter(0)
        ROOT %r = f32[8]{{0}} all-reduce(%p), channel_id=1, replica_groups={groups}, to_apply=%add
    """)
    assert collectives(text, EIGHT) == [Collective("all-reduce", axes, size, 32, 1, "")]


def test_groups_of_one_device_do_not_count():
    text = entry("""
        %p = f32[8]{0} parameter(0)
        %g = f32[8]{0} all-gather(%p), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, dimensions={0}
        ROOT %r = f32[8]{0} collective-permute(%g), source_target_pairs={{0,0},{1,1}}
    """)
    assert collectives(text, EIGHT) == []


@pytest.mark.parametrize(
    ("pairs", "axes"),
    [
        ("{{0,0},{4,5},{5,4}}", ("b",)),
        ("{{0,4},{4,0}}", ("a",)),
        ("{{0,0},{2,4},{1,1},{3,5},{4,2},{6,6},{5,3},{7,7}}", ("a", "b")),
    ],
)
def test_a_permute_runs_along_the_axes_of_all_its_pairs(pairs, axes):
    text = entry(f"""
        %p = f32[8]{{0}} parameter(0)
        ROOT %r = f32[8]{{0}} collective-permute(%p), channel_id=1, source_target_pairs={pairs}
    """)
    (found,) = collectives(text, EIGHT)
    assert (found.axes, found.payload, found.traffic) == (axes, 32, 32)


@pytest.mark.parametrize(
    ("kind", "types", "payload", "traffic"),
    [
        ("all-gather", ("bf16[6]", "bf16[24]"), 48, 36),
        ("reduce-scatter", ("bf16[24]", "bf16[6]"), 48, 36),
        ("all-reduce", ("bf16[24]", "bf16[24]"), 48, 72),
        ("all-to-all", ("bf16[24]", "bf16[24]"), 48, 36),
    ],
)
def test_a_communication_costs_what_a_ring_sends(kind, types, payload, traffic):
    given, made = types
    groups = r"""channel_id=3, replica_groups=[2,4]<=[8], metadata={op_name="w[\'k\']" stack_frame_id=3}"""
    text = entry(f"""
        %p = {given}{{0}} parameter(0)
        ROOT %r = {made}{{0}} {kind}(%p), {groups}
    """)
    assert collectives(text, EIGHT) == [Collective(kind, ("b",), 4, payload, 1, "w['k']")]
    assert collectives(text, EIGHT)[0].traffic == traffic
    # in two halves, as the GPU and the TPU run them, and two arrays at once
    pair = f"({given}{{0}}, {given}{{0}})"
    both = f"({made}{{0}}, {made}{{0}})"
    text = entry(f"""
        %p = {given}{{0}} parameter(0)
        %s = {both if kind == "all-reduce" else f"({pair}, {both}, u32[]{{:S(2)}})"} {kind}-start(%p, %p), {groups}
        ROOT %r = {both} {kind}-done(%s)
    """)
    assert collectives(text, EIGHT) == [Collective(kind, ("b",), 4, 2 * payload, 1, "w['k']")]
    bytes_of = {"bf16[6]": 12, "bf16[24]": 48}
    assert memory_traffic(text) == bytes_of[given] + 2 * bytes_of[made]


def test_a_wrapped_asynchronous_operation_counts_once():
    before = """
%inside (q: f32[16]) -> f32[4] {
  %q = f32[16]{0} parameter(0)
  ROOT %s = f32[4]{0} reduce-scatter(%q), replica_groups={{0,1,2,3},{4,5,6,7}}, dimensions={0}, to_apply=%add
}
"""
    text = entry(
        """
        %p = f32[16]{0} parameter(0)
        %b = ((f32[16]{0}), f32[4]{0}) async-start(%p), calls=%inside
        ROOT %e = f32[4]{0} async-done(%b), calls=%inside
        """,
        before=before,
    )
    assert collectives(text, EIGHT) == [Collective("reduce-scatter", ("b",), 4, 64, 1, "")]
    assert memory_traffic(text) == 64 + 16


# What only the TPU's compiler writes

CHAIN = 'all-gather(%w), channel_id=9, replica_groups=[2,4]<=[8], dimensions={0}, frontend_attributes={chain_id="0"}'

# The gather of bf16[256] into bf16[1024] starts, goes on in a loop beside work on f32[32], and ends; the outer loop
# runs 5 times and the inner counts to 6 by 2. All lies in main memory but the counters and the contexts.
PIPELINED = f"""
%start (w: bf16[256]) -> (bf16[256], bf16[1024], u32[]) {{
  %w = bf16[256]{{0:T(256)(128)(2,1)}} parameter(0)
  %g = bf16[1024]{{0:T(1024)(128)(2,1)}} {CHAIN}
  ROOT %c = (bf16[256]{{0}}, bf16[1024]{{0}}, u32[]{{:S(2)}}) custom-call(%g), custom_call_target="AsyncCollectiveStart"
}}

%beside (w: bf16[256], v: bf16[1024], x: f32[32]) -> (f32[32], bf16[256], bf16[1024], bf16[1024]) {{
  %w = bf16[256]{{0}} parameter(0)
  %v = bf16[1024]{{0}} parameter(1)
  %x = f32[32]{{0}} parameter(2)
  %g = bf16[1024]{{0:T(1024)(128)(2,1)}} {CHAIN}
  %y = f32[32]{{0}} tanh(%x)
  ROOT %t = (f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}, /*index=3*/bf16[1024]{{0}}) tuple(%y, %w, %v, /*index=3*/%g)
}}

%done (w: bf16[256], v: bf16[1024]) -> bf16[1024] {{
  %w = bf16[256]{{0}} parameter(0)
  %v = bf16[1024]{{0}} parameter(1)
  %g = bf16[1024]{{0:T(1024)(128)(2,1)}} {CHAIN}
  ROOT %c = bf16[1024]{{0}} custom-call(%w, %v, %g), custom_call_target="AsyncCollectiveDone"
}}

%body (s: (u32[], f32[32], bf16[256], bf16[1024])) -> (u32[], f32[32], bf16[256], bf16[1024]) {{
  %s = (u32[]{{:T(128)S(6)}}, f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}) parameter(0)
  %two = u32[]{{:T(128)}} constant(2)
  %i = u32[]{{:T(128)S(6)}} get-tuple-element(%s), index=0
  %x = f32[32]{{0}} get-tuple-element(%s), index=1
  %w = bf16[256]{{0}} get-tuple-element(%s), index=2
  %v = bf16[1024]{{0}} get-tuple-element(%s), index=3
  %f = (f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}, bf16[1024]{{0}}) fusion(%w, %v, %x), kind=kOutput, calls=%beside
  %y = f32[32]{{0}} get-tuple-element(%f), index=0
  %v2 = bf16[1024]{{0}} get-tuple-element(%f), index=2
  %next = u32[]{{:T(128)S(6)}} add(%i, %two)
  ROOT %t = (u32[]{{:S(6)}}, f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}) tuple(%next, %y, %w, %v2)
}}

%cond (s: (u32[], f32[32], bf16[256], bf16[1024])) -> pred[] {{
  %six = u32[]{{:T(128)}} constant(6)
  %s = (u32[]{{:T(128)}}, f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}) parameter(0)
  %i = u32[]{{:T(128)S(6)}} get-tuple-element(%s), index=0
  ROOT %lt = pred[]{{:T(512)S(6)}} compare(%i, %six), direction=LT
}}

%outer (s: (s32[], bf16[256], f32[32])) -> (s32[], bf16[256], f32[32]) {{
  %s = (s32[]{{:T(128)S(6)}}, bf16[256]{{0}}, f32[32]{{0}}) parameter(0)
  %one = s32[]{{:T(128)}} constant(1)
  %zero = u32[]{{:T(128)}} constant(0)
  %i = s32[]{{:T(128)S(6)}} get-tuple-element(%s), index=0
  %w = bf16[256]{{0}} get-tuple-element(%s), index=1
  %x = f32[32]{{0}} get-tuple-element(%s), index=2
  %b = (bf16[256]{{0}}, bf16[1024]{{0}}, u32[]{{:S(2)}}) fusion(%w), kind=kCustom, calls=%start
  %v = bf16[1024]{{0}} get-tuple-element(%b), index=1
  %first = u32[]{{:T(128)S(6)}} copy(%zero)
  %in = (u32[]{{:T(128)}}, f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}) tuple(%first, %x, %w, %v)
  %loop = (u32[]{{:T(128)}}, f32[32]{{0}}, bf16[256]{{0}}, bf16[1024]{{0}}) while(%in), condition=%cond, body=%body
  %y = f32[32]{{0}} get-tuple-element(%loop), index=1
  %v2 = bf16[1024]{{0}} get-tuple-element(%loop), index=3
  %e = bf16[1024]{{0}} fusion(%w, %v2), kind=kCustom, calls=%done
  %next = s32[]{{:T(128)S(6)}} add(%i, %one)
  ROOT %t = (s32[]{{:T(128)}}, bf16[256]{{0}}, f32[32]{{0}}) tuple(%next, %w, %y)
}}

%until (s: (s32[], bf16[256], f32[32])) -> pred[] {{
  %five = s32[]{{:T(128)}} constant(5)
  %s = (s32[]{{:T(128)}}, bf16[256]{{0}}, f32[32]{{0}}) parameter(0)
  %i = s32[]{{:T(128)S(6)}} get-tuple-element(%s), index=0
  ROOT %lt = pred[]{{:T(512)S(6)}} compare(%i, %five), direction=LT
}}
"""


def test_a_gather_that_runs_beside_other_work_counts_where_it_starts():
    text = entry(
        """
        %p = bf16[256]{0} parameter(0)
        %x = f32[32]{0} parameter(1)
        %zero = s32[]{:T(128)} constant(0)
        %in = (s32[]{:T(128)}, bf16[256]{0}, f32[32]{0}) tuple(%zero, %p, %x)
        ROOT %loop = (s32[]{:T(128)}, bf16[256]{0}, f32[32]{0}) while(%in), condition=%until, body=%outer
        """,
        before=PIPELINED,
    )
    assert unknown_loops(text) == 0
    assert collectives(text, EIGHT) == [Collective("all-gather", ("b",), 4, 2048, 5, "")]
    # 5 times the gather reads its part and writes the whole, and 3 times each the work beside it reads and writes; the
    # constants lie in main memory: two in the outer loop, one in the inner, and the bounds, asked once more than met
    constants = 4 * (5 * 2 + 5 * 3 + 5 * 4 + 6)
    assert memory_traffic(text) == 5 * (512 + 2048) + 5 * 3 * (128 + 128) + constants


def test_a_reduce_scatter_is_written_as_an_all_reduce_and_a_slice():
    before = """
%all-reduce-scatter (input: f32[32,512]) -> f32[32,128] {
  %input = f32[32,512]{1,0:T(8,128)S(1)} parameter(0)
  %sum = f32[32,512]{1,0:T(8,128)} all-reduce(%input), channel_id=2, replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
  %zero = u32[] constant(0)
  %id = u32[] partition-id()
  ROOT %part = f32[32,128]{1,0:T(8,128)} dynamic-slice(%sum, %zero, %id), dynamic_slice_sizes={32,128}
}
"""
    text = entry(
        """
        %p = f32[32,512]{1,0:T(8,128)S(1)} parameter(0)
        ROOT %f = f32[32,128]{1,0:T(8,128)} fusion(%p), calls=%all-reduce-scatter, metadata={op_name="dot"}
        """,
        before=before,
    )
    assert collectives(text, EIGHT) == [Collective("reduce-scatter", ("b",), 4, 4 * 32 * 512, 1, "dot")]
    assert memory_traffic(text) == 4 * 32 * 128


def test_only_main_memory_counts():
    text = entry("""
        %p = bf16[16,128]{1,0:T(8,128)} parameter(0)
        %in = (bf16[16,128]{1,0:T(8,128)(2,1)S(1)}, bf16[16,128]{1,0:T(8,128)}, u32[]{:S(2)}) copy-start(%p)
        %near = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} copy-done(%in)
        %work = bf16[16,128]{1,0:T(8,128)(2,1)S(1)} tanh(%near)
        %some = ((bf16[16,128]{1,0}), bf16[4,128]{1,0:T(8,128)S(1)}, s32[]{:S(2)}) slice-start(%p), slice={[0:4]}
        %four = bf16[4,128]{1,0:T(8,128)S(1)} slice-done(%some)
        %host = bf16[4,128]{1,0:T(8,128)(2,1)S(5)} negate(%four)
        %room = bf16[16,128]{1,0:T(8,128)} custom-call(), custom_call_target="AllocateBuffer"
        ROOT %far = bf16[16,128]{1,0:T(8,128)(2,1)S(0)} copy(%work)
    """)
    whole = 2 * 16 * 128
    assert memory_traffic(text) == whole + whole // 4 + whole


def test_a_fusion_reads_slices_and_writes_in_place():
    before = """
%fused (stack: f32[64,128], row: f32[1,128], i: s32[], whole: f32[128]) -> (f32[8192], f32[1,128]) {
  %stack = f32[64,128]{1,0} parameter(0)
  %row = f32[64,128]{1,0} parameter(1)
  %i = s32[] parameter(2)
  %whole = f32[128]{0} parameter(3)
  %zero = s32[] constant(0)
  %wide = bf16[64,128]{1,0} convert(%row)
  %slice = bf16[1,128]{1,0} dynamic-slice(%wide, %i, %zero), dynamic_slice_sizes={1,128}
  %back = f32[1,128]{1,0} convert(%slice)
  %add = f32[1,128]{1,0} add(%back, %whole)
  %update = f32[64,128]{1,0} dynamic-update-slice(%stack, %add, %i, %zero)
  %flat = f32[8192]{0} bitcast(%update)
  ROOT %t = (f32[8192]{0}, f32[1,128]{1,0}) tuple(%flat, %add)
}
"""
    text = entry(
        """
        %p = f32[64,128]{1,0} parameter(0)
        %q = f32[64,128]{1,0} parameter(1)
        %i = s32[] parameter(2)
        %w = f32[128]{0} parameter(3)
        ROOT %f = (f32[8192]{0}, f32[1,128]{1,0}) fusion(%p, %q, %i, %w), kind=kLoop, calls=%fused
        """,
        before=before,
    )
    row = 4 * 128
    # read: the slice, the index and `whole`; written: the update and the second result
    assert memory_traffic(text) == (row + 4 + row) + (row + row)


# Loops whose length only the counter tells


def loop(first="constant(0)", condition="", step="", direction="LT"):
    """A loop that sends f32[8] around; `condition` and `step` make %end from the counter and %next."""
    before = f"""
%plus (x: s32[], y: s32[]) -> s32[] {{
  %x = s32[] parameter(0)
  %y = s32[] parameter(1)
  %more = s32[] add(%y, %x)
  ROOT %z = s32[] bitcast(%more)
}}

%less (x: s32[], y: s32[]) -> pred[] {{
  %x = s32[] parameter(0)
  %y = s32[] parameter(1)
  ROOT %z = pred[] compare(%x, %y), direction={direction}
}}

%body (s: (f32[8], s32[], s32[])) -> (f32[8], s32[], s32[]) {{
  %s = (f32[8]{{0}}, s32[], s32[]) parameter(0)
  %x = f32[8]{{0}} get-tuple-element(%s), index=0
  %i = s32[] get-tuple-element(%s), index=1
  %n = s32[] get-tuple-element(%s), index=2
  %one = s32[] constant(1)
  %two = s32[] constant(2)
  %down = s32[] constant(-3)
  %y = f32[8]{{0}} collective-permute(%x), channel_id=1, source_target_pairs={{{{0,1}},{{1,0}}}}
  {step or "%next = s32[] add(%i, %one)"}
  ROOT %t = (f32[8]{{0}}, s32[], s32[]) tuple(%y, %next, %n)
}}

%cond (s: (f32[8], s32[], s32[])) -> pred[] {{
  %s = (f32[8]{{0}}, s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=1
  %n = s32[] get-tuple-element(%s), index=2
  %ten = s32[] constant(10)
  {condition or f"ROOT %z = pred[] compare(%i, %ten), direction={direction}"}
}}
"""
    return entry(
        f"""
        %p = f32[8]{{0}} parameter(0)
        %q = s32[] parameter(1)
        %c = s32[] {first}
        %n = s32[] constant(12)
        %d = s32[] copy(%c)
        %in = (f32[8]{{0}}, s32[], s32[]) tuple(%p, %d, %n)
        ROOT %loop = (f32[8]{{0}}, s32[], s32[]) while(%in), condition=%cond, body=%body
        """,
        before=before,
    )


UNROLLED = "%half = s32[] add(%one, %i)\n  %next = s32[] add(%half, %one)"
CONVERTED = "%m = s32[] convert(%ten)\n  %z = pred[] compare(%i, %m), direction=LT\n  ROOT %r = pred[] copy(%z)"


@pytest.mark.parametrize(
    ("text", "times"),
    [
        (loop(), 10),
        (loop(first="constant(4)"), 6),
        (loop(first="copy(%q)"), 10),  # nobody knows where it starts: at 0
        (loop(direction="LE"), 11),
        (loop(direction="NE"), 10),
        (loop(step="%next = s32[] add(%i, %two)"), 5),
        (loop(step=UNROLLED), 5),
        (loop(step="%next = s32[] fusion(%two, %i), kind=kLoop, calls=%plus"), 5),
        (loop(first="constant(1)", step=UNROLLED), 5),
        (loop(first="constant(31)", step="%next = s32[] add(%i, %down)", direction="GT"), 7),
        (loop(first="constant(31)", step="%next = s32[] add(%i, %down)", direction="GE"), 8),
        (loop(first="constant(12)", step="%next = s32[] subtract(%i, %one)", direction="GT"), 2),
        (loop(condition="ROOT %z = pred[] compare(%ten, %i), direction=GT", direction="GT"), 10),
        (loop(condition="ROOT %z = pred[] compare(%i, %n), direction=LT"), 12),  # the bound lies in the state
        (loop(condition="ROOT %z = pred[] compare(%n, %i), direction=GE"), 13),
        (loop(condition="ROOT %z = pred[] fusion(%i, %n), kind=kLoop, calls=%less"), 12),
        (loop(condition=CONVERTED), 10),
    ],
)
def test_a_loop_runs_until_its_counter_meets_the_bound(text, times):
    assert unknown_loops(text) == 0
    assert [x.times for x in collectives(text, {"a": 2})] == [times]


@pytest.mark.parametrize(
    "text",
    [
        loop(step="%next = s32[] multiply(%i, %two)"),
        loop(step="%next = s32[] add(%i, %n)"),
        loop(step="%next = s32[] add(%i, %down)"),  # never
        loop(first="copy(%q)", step="%next = s32[] add(%i, %down)", direction="GT"),
        loop(condition="ROOT %z = pred[] compare(%i, %i), direction=LT"),
    ],
)
def test_a_loop_without_a_counter_runs_once(text):
    assert unknown_loops(text) == 1
    assert [x.times for x in collectives(text, {"a": 2})] == [1]


def test_a_loop_that_never_runs_sends_nothing():
    assert collectives(loop(first="constant(10)"), {"a": 2}) == []


def test_the_compilers_own_note_of_a_loops_length_goes_first():
    noted = 'body=%body, backend_config={"known_trip_count":{"n":"28"}}'
    text = loop().replace("body=%body", noted)
    assert [x.times for x in collectives(text, {"a": 2})] == [28]
