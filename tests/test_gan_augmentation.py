"""DiffAugment, Ada and their probabilities: parity with the references, and laws."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.weights import image

from jaxgen.adversarial import ada, diffaugment, warp
from jaxgen.adversarial.ada import Ada
from jaxgen.adversarial.augmentation import Adaptive, Augmentation, Fixed, NoAugmentation, Probability
from jaxgen.adversarial.diffaugment import DiffAugment
from jaxgen.errors import UserError
from jaxgen.optim.schedules import CosineRamp

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "gan_augment.npz")
EVERY = {"ada": Ada(cutout=1.0), "diff": DiffAugment()}
BLITS = Ada(scale=0.0, rotate=0.0, aniso=0.0, xfrac=0.0)  # nothing falls between pixels
every_augmentation = pytest.mark.parametrize("name", EVERY)
X = jnp.asarray(image(8, 8, 3, batch=8))
ONE = jnp.float32(1.0)

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.partial(jit, static_argnums=0)
def run(augmentation, images, key, p):
    return augmentation(images, key, p)


@functools.partial(jit, static_argnums=0)
def many(augmentation, key, p):
    return augmentation.draw(key, 4096, 1000, 1000, p)


def still(n: int, **changed) -> ada.Draws:
    """Draws that leave n pictures alone, but for the fields given: numbers, or pairs of them."""
    neutral = {"scale": 1.0, "aniso": 1.0, "contrast": 1.0, "saturation": 1.0}
    sizes = {"xint": (2,), "xfrac": (2,), "cutout": (3,)}
    return ada.Draws(
        **{
            name: np.broadcast_to(np.float32(changed.get(name, neutral.get(name, 0.0))), (n, *sizes.get(name, ())))
            for name in ada.Draws._fields
        }
    )


# --- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "x"),
    [
        ("ada_colour", image(16, 12, 3, batch=8)),
        ("ada_grey", image(8, 8, 1, batch=8)),
        ("ada_near", image(32, 32, 1, batch=2)),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_ada_matches_the_reference(case, x):
    draws = ada.Draws(**{name: jnp.asarray(GOLDEN[f"{case}_{name}"]) for name in ada.Draws._fields})
    np.testing.assert_allclose(jit(Ada().apply)(jnp.asarray(x), draws), GOLDEN[case], atol=3e-5)


def test_diffaugment_matches_the_reference():
    names = diffaugment.Draws._fields
    draws = diffaugment.Draws(**{name: jnp.asarray(GOLDEN[f"diff_{name}"]) for name in names})
    ours = jit(DiffAugment().apply)(jnp.asarray(image(16, 8, 3, batch=4)), draws)
    np.testing.assert_allclose(ours, GOLDEN["diff"], atol=2e-6)


# --- what all of them obey --------------------------------------------------------------------------------------------


@every_augmentation
def test_at_p_0_pictures_stay_as_they_are(name, key):
    np.testing.assert_allclose(run(EVERY[name], X, key, jnp.float32(0.0)), X, atol=1e-6)


@every_augmentation
def test_a_row_depends_on_its_own_picture_and_draws(name, key):
    augmentation = EVERY[name]
    before, other = run(augmentation, X, key, ONE), run(augmentation, X.at[3].set(0.5), key, ONE)
    same = [bool((before[i] == other[i]).all()) for i in range(8)]
    assert same == [i != 3 for i in range(8)]
    alike = run(augmentation, jnp.broadcast_to(X[:1], X.shape), key, ONE)
    assert all(not np.allclose(alike[0], alike[i], atol=1e-3) for i in range(1, 8))
    assert not np.allclose(before, run(augmentation, X, jax.random.key(1), ONE), atol=1e-3)


@every_augmentation
def test_a_batch_over_devices_gives_the_same(name, key):
    mesh = jax.make_mesh((4,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    sharding = jax.NamedSharding(mesh, jax.P("data"))
    spread = run(EVERY[name], jax.device_put(X, sharding), key, ONE)
    np.testing.assert_allclose(spread, run(EVERY[name], X, key, ONE), atol=1e-5)


@every_augmentation
def test_a_penalty_on_gradients_has_a_gradient(name, key):
    def penalty(x):
        score = lambda x: jnp.tanh(EVERY[name](x, key, ONE)).sum()  # noqa: E731
        return jnp.square(jax.grad(score)(x)).sum()

    gradient = jit(jax.grad(penalty))(X)
    assert np.isfinite(gradient).all()
    assert (jnp.abs(gradient).max((1, 2, 3)) > 1e-3).all()


def test_points_are_refused_where_pictures_are_meant():
    for augmentation in (Ada(), DiffAugment()):
        augmentation.check((8, 8, 3))
        with pytest.raises(UserError, match="augments images"):
            augmentation.check((2,))
    with pytest.raises(UserError, match="hue=0"):
        Ada().check((8, 8, 4))
    Ada(hue=0.0).check((8, 8, 4))


def test_no_augmentation_is_one_too(key):
    points = jnp.ones((4, 2))
    NoAugmentation().check((2,))
    assert NoAugmentation()(points, key, ONE) is points
    assert NoAugmentation().p.adapt(NoAugmentation().p.init(), jnp.ones(4)) == {}
    assert float(NoAugmentation().p.at({}, jnp.int32(0), 100)) == 0.0
    assert all(isinstance(a, Augmentation) for a in (NoAugmentation(), *EVERY.values()))
    assert not isinstance(Ada(), Probability)


@pytest.mark.parametrize("p", [0.5, 0.2])
def test_each_operation_comes_with_its_probability(p, key):
    draws, drawn = many(Ada(cutout=1.0, hue=0.5, saturation=0.0), key, p), many(DiffAugment(), key, p)
    # A flip or a turn may be drawn as none. Two rotations come together with probability p, and independently.
    either = 1 - (1 - p) ** 0.5
    expected = dict.fromkeys(ada.Draws._fields, p) | {"xflip": p / 2, "lumaflip": p / 2, "rotate90": 0.75 * p}
    expected |= {"rotate": either, "rotate_after": either, "hue": p / 2, "saturation": 0.0}
    for name, share in expected.items():
        column = np.array(getattr(draws, name)).reshape(4096, -1)[:, -1]
        np.testing.assert_allclose((column != np.array(getattr(still(1), name)).ravel()[-1]).mean(), share, atol=0.03)
    np.testing.assert_allclose(((draws.rotate != 0) | (draws.rotate_after != 0)).mean(), p, atol=0.03)
    for name, neutral in {"brightness": 0, "saturation": 1, "contrast": 1, "shift": 0, "hole": 1000}.items():
        column = np.array(getattr(drawn, name)).reshape(4096, -1)[:, 0]
        np.testing.assert_allclose((column != neutral).mean(), p, atol=0.03)


# --- single operations ------------------------------------------------------------------------------------------------


@jit
def moved(draws):
    return warp.move(X, ada.inverse(draws)), BLITS.apply(X, draws)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"xflip": 1.0}, lambda x: x[:, :, ::-1]),
        ({"rotate90": 1.0}, lambda x: np.rot90(x, 1, (1, 2))),
        ({"rotate90": 3.0, "xflip": 1.0}, lambda x: np.rot90(x, 3, (1, 2))[:, ::-1]),
        ({"xint": (3.0, -1.0)}, lambda x: np.pad(x, ((0, 0), (0, 1), (3, 0), (0, 0)), mode="reflect")[:, 1:, :-3]),
    ],
    ids=["flip", "turn", "turn and flip", "shift"],
)
def test_whole_pixels_move_exactly(changed, expected):
    draws = still(8, **changed)
    alone, among_others = moved(draws)
    np.testing.assert_array_equal(alone, expected(np.array(X)))
    np.testing.assert_allclose(among_others, expected(np.array(X)), atol=1e-6)


@pytest.mark.parametrize("side", [3, 8])
def test_resampling_moves_whole_pixels_alike(side):
    both = jit(lambda x, draws: [warped(x, ada.inverse(draws)) for warped in (warp.resample, warp.move)])
    resampled, as_they_are = both(X[:, :side, :side], still(8, xint=(2.0, -1.0)))
    np.testing.assert_allclose(resampled, as_they_are, atol=1e-5)


def test_colours():
    grey = X.mean(3)
    coloured = lambda **changed: jit(ada.coloured)(X, still(8, **changed))  # noqa: E731
    np.testing.assert_allclose(coloured(brightness=0.25), X + 0.25, atol=1e-6)
    np.testing.assert_allclose(coloured(contrast=2.0, brightness=0.25), 2 * (X + 0.25), atol=1e-6)
    np.testing.assert_allclose(coloured(lumaflip=1.0), X - 2 * grey[..., None], atol=1e-6)
    np.testing.assert_allclose(coloured(hue=1.0, saturation=2.0).mean(3), grey, atol=1e-6)
    # A third of a circle takes red to green, green to blue and blue to red.
    np.testing.assert_allclose(coloured(hue=2 * np.pi / 3), jnp.roll(X, 1, axis=3), atol=1e-6)
    np.testing.assert_allclose(coloured(saturation=0.0), jnp.broadcast_to(grey[..., None], X.shape), atol=1e-6)
    one = X[..., :1]
    np.testing.assert_allclose(ada.coloured(one, still(8, hue=1.0, saturation=3.0)), one, atol=1e-6)


def test_a_hole_has_half_the_sides():
    hole = jnp.array([[0.5, 0.5, 0.5], [0.0, 1.0, 0.5]])  # in the middle, and around the lower left corner
    filled = np.array(jit(ada.cut)(jnp.ones((2, 8, 4, 1)), hole))
    assert list((filled == 0).sum((1, 2, 3))) == [4 * 2, 2 * 1]
    assert (filled[1, 6:, :1] == 0).all()


def test_strengths_of_diffaugment(key):
    draws = many(DiffAugment(brightness=0.25, translation=0.25, contrast=0.0), key, ONE)
    # The middle of the hole, 250 from its corner, never leaves the picture.
    bounds = {"brightness": (-0.25, 0.25), "saturation": (0, 2), "contrast": (1, 1), "shift": (-250, 250)}
    for name, (low, high) in (bounds | {"hole": (-250, 750)}).items():
        drawn = np.array(getattr(draws, name))
        np.testing.assert_allclose((drawn.min(), drawn.max()), (low, high), atol=0.01 * (high - low))
    ones = jnp.ones((64, 8, 8, 3))
    shifted = np.array(run(DiffAugment(brightness=0.0, translation=0.25, cutout=0.0), ones, key, ONE))
    assert set((shifted == 0).all((2, 3)).sum(1).tolist()) == {0, 1, 2}  # rows that came in; a plain grey stays


# --- p ----------------------------------------------------------------------------------------------------------------


def test_a_fixed_p_follows_its_schedule():
    p = Fixed(p=CosineRamp(first=0.0, last=0.3, until=0.5))
    values = [float(DiffAugment(p=p).p.at(p.init(), jnp.int32(step), 100)) for step in (0, 25, 50, 90)]
    np.testing.assert_allclose(values, [0.0, 0.15, 0.3, 0.3], atol=1e-6)


def test_an_adaptive_p_goes_from_0_to_1_in_so_many_images():
    p = Adaptive(target=0.5, images=64.0, every=2)
    p, step = Ada(p=p).p, jnp.int32(0)
    memory = p.init()

    def after(logits: jax.Array, steps: int) -> list[float]:
        nonlocal memory
        values = []
        for _ in range(steps):
            memory = p.adapt(memory, logits)
            values.append(float(p.at(memory, step, 100)))
        return values

    sure, unsure = jnp.full(8, 3.0), jnp.array([0.1, -9.0] * 4)
    assert after(sure, 5) == [0.0, 0.25, 0.25, 0.5, 0.5]
    assert after(unsure, 1) == [0.5]  # 8 rows of 1 and 8 of mean 0: just the target
    assert after(sure, 6) == [0.5, 0.75, 0.75, 1.0, 1.0, 1.0]
    assert after(unsure, 10) == [1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25, 0.0, 0.0, 0.0]
    assert {name: value.dtype for name, value in memory.items()} == {
        name: value.dtype for name, value in p.init().items()
    }


def test_an_adaptive_p_counts_images_and_not_patches():
    p, logits = Adaptive(target=0.5, images=64.0, every=1), jax.random.normal(jax.random.key(0), (8, 3, 3)) + 1.0
    memory = p.adapt(p.init(), logits)
    assert float(memory["p"]) == np.sign(np.sign(logits).mean() - 0.5) * 8 / 64 > 0
    unsure = p.adapt(memory, jnp.stack([jnp.ones((8, 3)), -jnp.ones((8, 3))], 1))
    assert float(unsure["p"]) == 0.0
