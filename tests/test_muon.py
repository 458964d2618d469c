"""Muon against the polynomial that it is, against optax's, and under the laws of every optimizer."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.dit import AXES, DIT, DiT
from jaxgen.nn.transformer import Gelu, SwiGlu
from jaxgen.optim.muon import Muon
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Constant
from jaxgen.parallel.mesh import MeshShape
from jaxgen.parallel.rules import Composed, Fsdp, shardings
from jaxgen.program import Program
from jaxgen.runs.checkpoints import Checkpoints

RATE = 0.1
PARTS = ("muon", "adam")


def optimizer(method: Muon, **fields) -> Optimizer:
    return Optimizer(learning_rate=Constant(value=RATE), method=method, **fields)


def by_polynomial(gradient: np.ndarray) -> np.ndarray:
    """Return Newton-Schulz of a matrix [in out], by what five of its polynomials make of the singular values."""
    u, s, v = np.linalg.svd(gradient.astype(np.float64), full_matrices=False)
    s = s / np.linalg.norm(s)
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ np.diag(s) @ v


# Shape of a kernel, its axes' letters, and an einsum that brings them to [n in out]
KERNELS = [
    ((24, 40), None, "io->io", (1, 24, 40)),
    ((40, 24), None, "io->io", (1, 40, 24)),
    ((3, 3, 4, 24), None, "hwio->hwio", (1, 36, 24)),
    ((40, 24), "oi", "oi->io", (1, 24, 40)),
    ((2, 24, 40), "nio", "nio->nio", (2, 24, 40)),
    ((2, 24, 3, 5, 8), "ninoo", "nijhc->njihc", (6, 24, 40)),
]


@pytest.mark.parametrize(("shape", "letters", "order", "matrices"), KERNELS, ids=str)
def test_a_step_has_singular_values_near_one_and_a_size_like_adams(shape, letters, order, matrices, key):
    gradient = jax.random.normal(key, shape)
    method = Muon() if letters is None else Muon(axes=(("kernel", letters),))
    tx = optimizer(method).transform(1)
    params = {"kernel": jnp.zeros(shape)}
    updates, _ = jax.jit(tx.update)({"kernel": gradient}, tx.init(params), params)
    step, gradient = (np.einsum(order, x).reshape(matrices) for x in (updates["kernel"], np.asarray(gradient)))
    longest = max(matrices[1:])
    for found, own in zip(step, gradient, strict=True):
        wanted = -RATE * 0.2 * np.sqrt(longest) * by_polynomial(own)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * RATE)
        values = np.linalg.svd(found / (RATE * 0.2 * np.sqrt(longest)), compute_uv=False)
        assert values.min() > 0.6
        assert values.max() < 1.25
        assert 0.7 < np.sqrt(np.mean(found**2)) / (RATE * 0.2) < 1.1


def test_its_steps_are_optaxs_and_adams(key):
    k1, k2, k3 = jax.random.split(key, 3)
    params = {"a": {"kernel": jax.random.normal(k1, (3, 3, 2, 8)), "bias": jax.random.normal(k2, (8,))}}
    grads = [jax.tree.map(lambda x, k=k: jax.random.normal(k, x.shape), params) for k in jax.random.split(k3, 4)]
    adam = Adam(b1=0.8, b2=0.9)
    numbers = {"a": {"kernel": optax.contrib.MuonDimensionNumbers((0, 1, 2), 3), "bias": None}}
    theirs = optax.contrib.muon(
        RATE, weight_decay=0.5, consistent_rms=0.2, beta=0.9, muon_weight_dimension_numbers=numbers
    )
    beside = optax.adam(RATE, b1=0.8, b2=0.9)
    ours = optimizer(Muon(momentum=0.9, adam=adam), weight_decay=0.5).transform(1)

    def after(tx: optax.GradientTransformation):
        moved, state, update = params, tx.init(params), jax.jit(tx.update)
        for g in grads:
            updates, state = update(g, state, moved)
            moved = optax.apply_updates(moved, updates)
        return moved["a"]

    found = after(ours)
    np.testing.assert_allclose(found["kernel"], after(theirs)["kernel"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["bias"], after(beside)["bias"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Muon(momentum=1.0), "Muon.momentum is 1.0; it must be at least 0 and below 1"),
        (lambda: Muon(iterations=0), "Muon.iterations is 0; it must be at least 1"),
        (lambda: Muon(rms=0.0), "Muon.rms is 0.0; it must be above 0"),
        (lambda: Muon(matrices="*kernel"), r"Muon: '\*kernel' is no regular expression"),
        (lambda: Muon(axes=(("kernel", "iox"),)), "Muon.axes is .* letters of"),
        (lambda: Muon(axes=(("kernel", "nn"),)), "Muon.axes is .* letters of"),
        (
            lambda: init(Muon(matrices="weight$")),
            r"method.matrices: 'weight\$' finds no parameter; there are ",
        ),
        (lambda: init(Muon(left_to_adam="^in/")), "optimizer.method.left_to_adam: '.in/' finds no parameter"),
        (lambda: init(Muon(axes=(("qkv", "nio"),))), "optimizer.method.axes: 'qkv' finds no parameter"),
        (lambda: init(Muon()), r"axes of blocks/kernel \(2, 4, 4\) are inputs.*\n.*'blocks/kernel\$', 'nio'"),
        (lambda: init(Muon(axes=(("blocks", "nino"),))), r"axes of blocks/kernel \(2, 4, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_the_first_step(make, said):
    with pytest.raises(UserError, match=said) as caught:
        make()
    assert str(caught.value).count("\n") <= 1


def init(method: Muon):
    params = {"head": {"kernel": jnp.zeros((4, 4))}, "blocks": {"kernel": jnp.zeros((2, 4, 4))}}
    return jax.eval_shape(optimizer(method).transform(1).init, params)


@pytest.mark.parametrize("mlp", [Gelu(), SwiGlu()])
def test_kernels_are_muons_all_else_is_adams_and_state_lies_as_its_parameter(mlp):
    net = DiT(width=16, depth=2, heads=4, mlp=mlp)
    x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float32)
    params = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, jnp.zeros(2), {}, train=False)["params"], x)
    tx = optimizer(Muon(axes=AXES, left_to_adam=r"^(patch|out)/")).transform(1)
    state = {"params": params, "opt": jax.eval_shape(tx.init, params)}
    paths = dict(tree.leaves(params))
    opt = [path for path, _ in tree.leaves(state["opt"])]
    moved = {
        part: {p for p in paths if any(q.endswith(f"/{part}/inner_state/0/mu/{p}") for q in opt)} for part in PARTS
    }
    assert moved["muon"] == {p for p in paths if p.endswith("kernel")} - {"patch/kernel", "out/kernel"}
    assert moved["adam"] == set(paths) - moved["muon"]
    mesh = MeshShape(replica=2, tensor=2).build(jax.devices()[:4])
    specs = {path: where.spec for path, where in tree.leaves(shardings(DIT, state, mesh))}
    (momentum,) = (specs[path] for path in specs if path.endswith("/mu/blocks/qkv/kernel"))
    assert momentum == specs["params/blocks/qkv/kernel"]
    assert "tensor" in momentum


def assemble(make, layout: MeshShape | None = None) -> Program:
    """A small experiment whose net learns by Muon."""
    experiment = make()
    axes = AXES if make is small.diffusion else ()
    # Adam divides by the gradient's size, and so amplifies rounding; not with an epsilon that is larger than that.
    method = Muon(axes=axes, adam=Adam(eps=1.0))
    tuned = Optimizer(learning_rate=Constant(value=1e-2), method=method, weight_decay=1e-2)
    changed = small.with_learners(experiment.objective, lambda one: dataclasses.replace(one, optimizer=tuned))
    experiment = dataclasses.replace(experiment, objective=changed)
    if layout is None:
        return Program.of(experiment, devices=jax.devices()[:1])
    both = Composed((Fsdp(axis="tensor", smallest=1), Fsdp(smallest=1)))
    return Program.of(dataclasses.replace(experiment, mesh=layout, rule=both))


def run(program: Program, state, start: int, stop: int):
    state = program.init() if state is None else state
    losses = []
    for batch in program.batches(start, stop):
        state, scalars = program.step(state, batch)
        losses.append(float(scalars["loss"]))
    return state, losses


@pytest.mark.slow
def test_restoring_and_going_on_is_going_straight_on(tmp_path):
    program = assemble(small.classification)
    straight, _ = run(program, None, 0, 6)
    half, _ = run(program, None, 0, 3)
    with Checkpoints(tmp_path / "c") as checkpoints:
        checkpoints.save(3, half)
        half = checkpoints.restore(3, program.shapes)
    resumed, _ = run(program, half, 3, 6)
    assert tree.digest(resumed) == tree.digest(straight)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(small.classification, id="convolutions", marks=pytest.mark.slow),
        pytest.param(small.diffusion, id="stack", marks=pytest.mark.by_hand),
    ],
)
def test_devices_and_rules_change_nothing_but_rounding(make):
    one, one_losses = run(assemble(make), None, 0, 4)
    many, many_losses = run(assemble(make, MeshShape(replica=1, fsdp=-1, tensor=2)), None, 0, 4)
    np.testing.assert_allclose(many_losses, one_losses, rtol=1e-4)
    for (path, a), (_, b) in zip(*(tree.leaves(s.nets["net"].params) for s in (one, many)), strict=True):
        assert np.abs(np.asarray(a) - b).max() <= 1e-3 * max(np.abs(a).max(), 1e-3), path
