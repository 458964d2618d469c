"""Samples from a diffusion model: what they depend on, and what is refused before anything is compiled."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small import diffusion

from jaxgen import tree
from jaxgen.config import codec, expression
from jaxgen.data.batches import DataSpec
from jaxgen.diffusion.adaptive import Adaptive
from jaxgen.diffusion.apg import Apg
from jaxgen.diffusion.cads import Cads
from jaxgen.diffusion.choices import GUIDANCE, SCHEDULES, SOLVERS
from jaxgen.diffusion.guidance import Autoguidance, ClassifierFree, Unguided
from jaxgen.diffusion.path import Flow, ScaledLinearBetas, ZeroTerminal
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import Eps, Velocity
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Given, Rho, UniformTime
from jaxgen.diffusion.solvers import Euler, Heun
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.models.mlp import MlpDenoiser
from jaxgen.models.songunet import SongUNet
from jaxgen.program import Program
from jaxgen.sampling import draw, resized

OBJECTIVE = diffusion().objective
SHAPE = (8, 8, 1)
SPEC = {
    "image": jax.ShapeDtypeStruct((4, *SHAPE), jnp.uint8),
    "label": jax.ShapeDtypeStruct((4,), jnp.int32),
}
NAMES = ("class 0", "class 1", "class 2")


def with_classes(objective, classes):
    return dataclasses.replace(
        objective, net=dataclasses.replace(objective.net, module=objective.net.module.clone(classes=classes))
    )


def some_state(objective=OBJECTIVE):
    """A state whose net does something: as made, its output is 0."""
    state = jax.jit(lambda: objective.init(jax.random.key(0), SPEC))()
    net = state.nets["net"]
    leaves, form = jax.tree.flatten(net.params)
    params = form.unflatten([0.05 * jax.random.normal(jax.random.key(i), x.shape) for i, x in enumerate(leaves)])
    return state.replace(nets={**state.nets, "net": net.replace(params=params, ema=(params, params))})


STATE = some_state()


def drawn(objective, n, *, devices=1, batch=8, guide=None, seed=0, first=0):
    experiment = dataclasses.replace(diffusion(), objective=objective, test_batch_size=batch)
    data = DataSpec(NAMES, {"image": (SHAPE, np.dtype(np.uint8)), "label": ((), np.dtype(np.int32))})
    program = Program.laid_out(experiment, data, jax.devices()[:devices])
    return draw(program, STATE, range(first, first + n), seed, guide=guide)


def with_sampling(**parts):
    return dataclasses.replace(OBJECTIVE, sampling=dataclasses.replace(OBJECTIVE.sampling, **parts))


def test_a_sample_depends_on_its_seed_and_number_only():
    eight = drawn(OBJECTIVE, 8)
    assert len(np.unique(eight.round(3).reshape(8, -1), axis=0)) == 8
    np.testing.assert_array_equal(drawn(OBJECTIVE, 8), eight)  # nothing is left over from a call
    np.testing.assert_allclose(drawn(OBJECTIVE, 1, first=5), eight[5:6], atol=1e-4)  # alone
    np.testing.assert_allclose(drawn(OBJECTIVE, 8, batch=3), eight, atol=1e-4)  # in batches, the last one padded
    np.testing.assert_allclose(drawn(OBJECTIVE, 8, devices=4), eight, atol=1e-4)  # spread over devices
    assert np.abs(drawn(OBJECTIVE, 8, seed=1) - eight).max() > 0.1


def test_guidance_of_scale_one_is_the_conditional_net_bit_for_bit():
    plain = drawn(with_sampling(guidance=Unguided()), 4)
    np.testing.assert_array_equal(drawn(with_sampling(guidance=ClassifierFree(scale=1.0)), 4), plain)
    assert np.abs(drawn(with_sampling(guidance=ClassifierFree(scale=3.0)), 4) - plain).max() > 1e-3


def test_guidance_by_itself_is_no_guidance():
    guided = drawn(with_sampling(guidance=Autoguidance(scale=2.0)), 4, guide=STATE)
    np.testing.assert_allclose(guided, drawn(with_sampling(guidance=Unguided()), 4), atol=1e-3)


def test_the_protocol_counts_evaluations():
    assert with_sampling(guidance=Unguided()).protocol()["nfe"] == 5  # Heun: 2 N - 1
    assert with_sampling(guidance=ClassifierFree(scale=2.0)).protocol()["nfe"] == 10
    assert with_sampling(guidance=ClassifierFree(scale=2.0, high=1.0)).protocol()["nfe"] < 10


@pytest.mark.slow
def test_accumulation_sees_the_same_noise(key):
    objective = dataclasses.replace(OBJECTIVE, condition_dropout=0.5)
    batch = {"image": jax.random.bits(key, (4, *SHAPE), jnp.uint8), "label": jnp.arange(4) % 3}
    steps = [jax.jit(dataclasses.replace(objective, microbatches=parts).step)(STATE, batch, key) for parts in (1, 2)]
    (one, scalars), (two, others) = steps
    np.testing.assert_allclose(others["loss"], scalars["loss"], rtol=1e-5)
    for (path, a), (_, b) in zip(tree.leaves(one.nets["net"].opt), tree.leaves(two.nets["net"].opt), strict=True):
        np.testing.assert_allclose(b, a, rtol=1e-3, atol=1e-5, err_msg=path)


@pytest.mark.slow
def test_dropped_labels_are_the_null_class(key):
    # With every label dropped, the labels that the batch had cannot matter.
    objective = dataclasses.replace(OBJECTIVE, condition_dropout=1.0)
    step = jax.jit(objective.step)
    image = jax.random.bits(key, (4, *SHAPE), jnp.uint8)
    losses = [float(step(STATE, {"image": image, "label": jnp.full(4, k)}, key)[1]["loss"]) for k in (0, 2)]
    assert losses[0] == losses[1]
    kept = jax.jit(dataclasses.replace(objective, condition_dropout=0.0).step)
    losses = [float(kept(STATE, {"image": image, "label": jnp.full(4, k)}, key)[1]["loss"]) for k in (0, 2)]
    assert losses[0] != losses[1]


UNCONDITIONAL = dataclasses.replace(
    with_classes(OBJECTIVE, 0),
    condition_dropout=0.0,
    sampling=Sampling(solver=Heun(), schedule=Rho(steps=3)),
)
UNLABELLED = {"image": SPEC["image"]}


@pytest.mark.parametrize(
    ("objective", "spec", "said"),
    [
        (UNCONDITIONAL, SPEC, "the data has labels, but the net is unconditional"),
        (OBJECTIVE, UNLABELLED, "but the data has no labels"),
        (with_classes(OBJECTIVE, 7), SPEC, "7 classes, but the data has 3"),
        (dataclasses.replace(OBJECTIVE, condition_dropout=0.0), SPEC, "labels dropped"),
        (dataclasses.replace(UNCONDITIONAL, condition_dropout=0.1), UNLABELLED, "needs a net with classes"),
        (
            dataclasses.replace(UNCONDITIONAL, sampling=Sampling(guidance=ClassifierFree(scale=2.0))),
            UNLABELLED,
            "this net takes none",
        ),
        (with_sampling(guidance=Autoguidance(scale=2.0)), SPEC, "guiding model"),
        (
            dataclasses.replace(
                OBJECTIVE, path=ZeroTerminal(path=ScaledLinearBetas()), prediction=Direct(quantity=Eps())
            ),
            SPEC,
            "(?i)eps",
        ),
        (with_sampling(solver=Adaptive(), schedule=Rho(steps=1)), SPEC, "at least 2 steps"),
        (
            dataclasses.replace(
                with_sampling(solver=Heun(), schedule=UniformTime(steps=3)),
                path=Flow(),
                prediction=Direct(quantity=Velocity()),
            ),
            SPEC,
            "infinite noise level",
        ),
        (with_sampling(schedule=Rho(steps=3, sigma_max=500.0)), SPEC, "500"),
        (
            dataclasses.replace(
                UNCONDITIONAL, net=Learner(module=SongUNet(model_channels=8, multipliers=(1, 1, 1, 1, 1)))
            ),
            UNLABELLED,
            "(?i)multiple|halv",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused(objective, spec, said):
    with pytest.raises(UserError, match=said) as caught:
        objective.check(spec, NAMES)
    assert len(str(caught.value).splitlines()) <= 2


@pytest.mark.parametrize(
    ("text", "table", "made"),
    [
        ("Heun(churn=10.0)", SOLVERS, Heun(churn=10.0)),
        ("UniformTime(steps=4)", SCHEDULES, UniformTime(steps=4)),
        ("ClassifierFree(scale=2.0, high=inf)", GUIDANCE, ClassifierFree(scale=2.0)),
        ("Apg(scale=2.0, momentum=-0.25)", GUIDANCE, Apg(scale=2.0, momentum=-0.25)),
        ("Euler()", SOLVERS, Euler()),
    ],
)
def test_values_are_written_as_python_writes_them(text, table, made):
    assert expression.value(text, table) == made


CHOSEN = [
    (SOLVERS, Heun(churn=4.0, churn_max=math.inf)),
    (SOLVERS, Heun(churn_min=-math.inf)),
    (SCHEDULES, Given(levels=(80.0, 1.0, 0.0))),
    (SCHEDULES, Given(levels=(math.inf, 0.5, 0.0))),
    (SCHEDULES, Rho(steps=3, sigma_min=None)),
    (GUIDANCE, Cads(inner=ClassifierFree(scale=2.0))),
    (GUIDANCE, Cads(inner=Cads(inner=Apg(scale=3.0)))),
]
CHOSEN += [
    (table, kind())
    for table in (SOLVERS, SCHEDULES, GUIDANCE)
    for kind in table.values()
    if not any(f.default is dataclasses.MISSING for f in dataclasses.fields(kind))
]


@pytest.mark.parametrize(("table", "made"), CHOSEN, ids=lambda value: type(value).__name__)
def test_what_is_printed_can_be_typed(table, made):
    assert expression.value(codec.describe(made), table) == made
    assert expression.value(repr(made), table) == made


def test_options_are_read_by_their_tables():
    texts = {"solver": "Euler()", "schedule": None, "guidance": "Unguided()", "truncation": 0.5}
    assert expression.parse_options(texts) == {"solver": Euler(), "guidance": Unguided(), "truncation": 0.5}
    assert expression.parse_options({"solver": None, "truncation": 0.0}) == {"truncation": 0.0}
    with pytest.raises(UserError, match="there is no Rho"):
        expression.parse_options({"solver": "Rho()"})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Huen()", "perhaps you meant Heun"),
        ("Rho(steps=3)", "there is no Rho"),  # a schedule is no solver
        ("Heun(chum=1.0)", "fields of Heun: churn"),
        ("Heun(churn=__import__('os').getpid())", "arguments are named"),
        ("Heun(churn=[1])", "arguments are named"),
        ("Heun(churn={})", "arguments are named"),
        ("Heun(churn=b'x')", "arguments are named"),
        ("Heun(churn=1+1)", "arguments are named"),
        ("Heun(1.0)", "arguments are named"),
        ("Heun(**{})", "arguments are named"),
        ("solvers.Heun()", "arguments are named"),
        ("Heun(", "write it as a call"),
        ("3", "write it as a call"),
        ("", "write it as a call"),
        ("Heun()\0", "write it as a call"),
        ("(" * 10_000, "write it as a call"),
    ],
)
def test_what_is_no_value_is_refused(text, said):
    with pytest.raises(UserError, match=said):
        expression.value(text, SOLVERS)


# --- samples of another size ------------------------------------------------------------------------------------------


def program_of(module, shape=SHAPE):
    net = dataclasses.replace(UNCONDITIONAL.net, module=module)
    experiment = dataclasses.replace(diffusion(), objective=dataclasses.replace(UNCONDITIONAL, net=net))
    return Program.laid_out(experiment, DataSpec((), {"image": (shape, np.dtype(np.uint8))}), jax.devices()[:1])


def unet(attention):
    return SongUNet(model_channels=8, multipliers=(1, 1), blocks=1, attention=attention)


def test_a_net_without_a_size_of_its_own_makes_others():
    program = program_of(unet(()))
    assert resized(program, 12, 20).data.element["image"] == ((12, 20, 1), np.dtype(np.uint8))
    assert resized(program, *SHAPE[:2]).data == program.data
    assert program.data.element["image"][0] == SHAPE


@pytest.mark.parametrize(
    ("module", "size", "said"),
    [
        (unet(()), (9, 8), "and cannot make 9×8: u-net: an image of 9×8 cannot be halved once; .* such as 8×8"),
        (unet((8,)), (16, 16), "makes images of 8×8, and cannot make 16×16; drop --size"),  # attention of other maps
        (unet((4,)), (16, 16), "cannot make 16×16"),  # and attention that would be left out
        (MlpDenoiser(width=4, depth=1), (16, 16), "cannot make 16×16; drop --size"),
    ],
)
def test_a_size_that_the_net_was_not_made_for_is_refused(module, size, said):
    with pytest.raises(UserError, match=said):
        resized(program_of(module), *size)


def test_points_have_no_size():
    with pytest.raises(UserError, match="makes points, which have no size"):
        resized(program_of(MlpDenoiser(width=4, depth=1), (2,)), 8, 8)
