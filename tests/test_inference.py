"""Dense prediction: any size in, the same size out, and what each way of looking leaves unchanged."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tyro
from golden.weights import array

from jaxgen.errors import UserError
from jaxgen.supervised.inference import Inference, Sliding, Tta, Whole

N = 3
WAYS = {
    "whole": Whole(),
    "multiple": Whole(multiple=32),
    "sliding": Sliding(height=16, width=24, stride=(11, 13)),
    "tta": Tta(scales=(0.5, 1.0)),
    "tta_sliding": Tta(scales=(1.25,), inference=Sliding(height=16, width=16, stride=(16, 12), batch=3)),
}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


def image(h: int, w: int, b: int = 2) -> np.ndarray:
    return array(f"inference {h}x{w}", (b, h, w, 3), 1.0)


@jax.jit
def pointwise(x: jax.Array) -> jax.Array:
    """A net that looks at one pixel."""
    return jnp.tanh(x) @ array("inference pointwise", (3, N), 2.0)


@jax.jit
def convolve(x: jax.Array) -> jax.Array:
    """A net that looks 5 pixels wide, and notices where its input ends."""
    return _convolve(x, array("inference kernel", (5, 5, 3, N), 0.5))


@jax.jit
def symmetric(x: jax.Array) -> jax.Array:
    """The same net, its kernel the same from left and right."""
    kernel = array("inference kernel", (5, 5, 3, N), 0.5)
    return _convolve(x, kernel + kernel[:, ::-1])


def _convolve(x: jax.Array, kernel: np.ndarray) -> jax.Array:
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def look(way: Inference, predict: Callable[[jax.Array], jax.Array], x: np.ndarray) -> np.ndarray:
    return np.asarray(jax.jit(lambda x: way.apply(predict, x))(jnp.asarray(x)))


@every_way
@pytest.mark.parametrize(("h", "w"), [(37, 53), (1, 1)])
def test_the_same_size_comes_out_on_device_and_host(way: Inference, h: int, w: int) -> None:
    x = image(h, w)
    found = look(way, convolve, x)
    assert found.shape == (2, h, w, N)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(way.on_host(convolve, x), found, rtol=1e-4, atol=1e-4)


@every_way
def test_a_constant_net_stays_constant(way: Inference) -> None:
    logits = jnp.asarray([1.0, -2.0, 0.5])
    found = look(way, lambda x: jnp.broadcast_to(logits, (*x.shape[:3], N)), image(37, 53))
    expected = jax.nn.log_softmax(logits) if isinstance(way, Tta) else logits
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-6)


def test_what_a_net_sees_of_one_pixel_does_not_depend_on_windows() -> None:
    for h, w in ((37, 53), (9, 40), (16, 24)):
        expected = pointwise(image(h, w))
        for way in (Whole(multiple=8), WAYS["sliding"]):
            np.testing.assert_allclose(look(way, pointwise, image(h, w)), expected, atol=1e-5)


def test_a_window_as_large_as_the_image_is_the_whole_image() -> None:
    x = image(16, 24)
    np.testing.assert_allclose(look(WAYS["sliding"], convolve, x), look(Whole(), convolve, x), atol=1e-5)
    # A larger one sees the image filled up to the window, as Whole fills it up to a multiple.
    small = image(14, 15)
    larger = Sliding(height=16, width=16, stride=(8, 8))
    np.testing.assert_allclose(look(larger, convolve, small), look(Whole(multiple=16), convolve, small), atol=1e-5)


def test_overlapping_windows_are_averaged() -> None:
    # The net adds to each pixel its place in the window, so that an average tells which windows saw the pixel.
    place = np.arange(3.0)[:, None, None] * 10 + np.arange(4.0)[None, :, None]
    predict = lambda x: x[..., :1] + jnp.asarray(place, jnp.float32)[None]  # noqa: E731
    x = image(8, 9)
    total, count = np.zeros((2, 8, 9, 1)), np.zeros((1, 8, 9, 1))
    for y0 in (0, 2, 4, 5):  # 3 high, every 2, the last moved back from 6 to 5
        for x0 in (0, 3, 5):  # 4 wide, every 3, the last moved back from 6 to 5
            total[:, y0 : y0 + 3, x0 : x0 + 4] += x[:, y0 : y0 + 3, x0 : x0 + 4, :1] + place[None]
            count[:, y0 : y0 + 3, x0 : x0 + 4] += 1
    for batch in (1, 5, 20):
        way = Sliding(height=3, width=4, stride=(2, 3), batch=batch)
        np.testing.assert_allclose(look(way, predict, x), total / count, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(way.on_host(jax.jit(predict), x), total / count, rtol=1e-5, atol=1e-5)


def test_every_pixel_is_seen_and_no_window_leaves_the_image() -> None:
    for size in range(1, 24):
        for window in range(1, size + 1):
            for stride in range(1, window + 1):
                way = Sliding(height=window, width=1, stride=(stride, 1), batch=3)
                corners, counts, cover = way._plan(size, 1)
                starts = corners[..., 0][counts > 0]
                assert len(starts) == max(size - window + stride - 1, 0) // stride + 1
                assert starts.min() == 0
                assert starts.max() == size - window
                assert cover.min() >= 1
                assert cover.sum() == len(starts) * window


def test_windows_compile_once_for_images_of_all_sizes() -> None:
    traced = []

    @jax.jit
    def predict(x: jax.Array) -> jax.Array:
        traced.append(x.shape)
        return convolve(x)

    for h, w in ((37, 53), (64, 20), (9, 9)):
        WAYS["sliding"].on_host(predict, image(h, w, b=1))
    assert set(traced) == {(4, 16, 24, 3)}
    assert len(traced) == 1
    traced.clear()
    for h, w in ((37, 53), (40, 60), (33, 64)):
        Whole(multiple=32).on_host(predict, image(h, w, b=1))
    assert traced == [(1, 64, 64, 3)]


def test_gradients_reach_every_pixel_through_the_windows() -> None:
    grad = jax.grad(lambda x: WAYS["sliding"].apply(convolve, x).sum())(jnp.asarray(image(20, 30)))
    assert (grad != 0).all()


def test_mirroring_changes_nothing_for_a_net_that_does_not_care() -> None:
    x = image(37, 53)
    plain = jax.nn.log_softmax(symmetric(x))
    np.testing.assert_allclose(look(Tta(mirrors=(False, True)), symmetric, x), plain, atol=1e-4)
    np.testing.assert_allclose(look(Tta(mirrors=(True,)), symmetric, x), plain, atol=1e-4)
    assert np.abs(look(Tta(mirrors=(True,)), convolve, x) - jax.nn.log_softmax(convolve(x))).max() > 0.1


def test_probabilities_are_averaged() -> None:
    x = image(12, 10)
    mean = (jax.nn.softmax(convolve(x)) + jax.nn.softmax(convolve(x[:, :, ::-1]))[:, :, ::-1]) / 2
    np.testing.assert_allclose(jax.nn.softmax(look(Tta(), convolve, x)), mean, atol=1e-5)
    one = lambda x: convolve(x)[..., :1]  # noqa: E731
    mean = (jax.nn.sigmoid(one(x)) + jax.nn.sigmoid(one(x[:, :, ::-1]))[:, :, ::-1]) / 2
    found = look(Tta(), one, x)
    assert found.shape == (2, 12, 10, 1)
    np.testing.assert_allclose(jax.nn.sigmoid(found), mean, atol=1e-5)
    sure = look(Tta(), lambda x: jnp.broadcast_to(jnp.asarray([1e4, -1e4]), (*x.shape[:3], 2)), x)
    np.testing.assert_array_equal(sure[..., 0], 0)
    assert np.isfinite(sure).all()


def test_scaled_views_come_back_to_the_size_of_the_image() -> None:
    asked = []

    def predict(x: jax.Array) -> jax.Array:
        asked.append(x.shape[1:3])
        return pointwise(x)

    scales = tuple(size / 10 for size in (0.1, *range(10, 22)))
    way = Tta(scales=scales, mirrors=(False, True))
    found = jax.eval_shape(lambda x: way.apply(predict, x), jax.ShapeDtypeStruct((2, 10, 10, 3), jnp.float32))
    assert found.shape == (2, 10, 10, N)
    assert asked == [(size, size) for size in (1, *range(10, 22)) for _ in range(2)]
    # Resizing is linear between pixel centres: a ramp that a net copies comes back as it was, away from the border.
    ramp = np.broadcast_to(np.arange(10.0, dtype=np.float32)[None, None, :, None] / 10, (1, 10, 10, 1))
    back = look(Tta(scales=(2.0,), mirrors=(False, True)), lambda x: x, ramp)
    np.testing.assert_allclose(back[:, :, 1:-1], ramp[:, :, 1:-1], atol=1e-5)


def test_four_devices_find_what_one_finds() -> None:
    mesh = jax.make_mesh((4,), ("data",), (jax.sharding.AxisType.Auto,))
    spread = jax.device_put(image(20, 30, b=4), jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data")))
    found = jax.jit(lambda x: WAYS["sliding"].apply(convolve, x))(spread)
    np.testing.assert_allclose(found, look(WAYS["sliding"], convolve, image(20, 30, b=4)), atol=1e-5)


def test_mistakes_are_named() -> None:
    for make in (
        lambda: Whole(multiple=0),
        lambda: Sliding(height=16, width=16, stride=(17, 16)),
        lambda: Sliding(height=16, width=16, stride=(8, 0)),
        lambda: Sliding(height=16, width=16, stride=(8, 8), batch=0),
        lambda: Tta(scales=()),
        lambda: Tta(scales=(1.0, 0.0)),
        lambda: Tta(mirrors=()),
    ):
        with pytest.raises(UserError):
            make()
    with pytest.raises(ValueError, match="need the image's size"):
        Whole().apply(lambda x: x[:, ::4, ::4], jnp.zeros((1, 16, 16, 3)))


@dataclasses.dataclass(frozen=True)
class Config:
    inference: Inference = Tta(inference=Sliding(height=32, width=32, stride=(20, 20)))


def test_inference_takes_overrides_from_the_command_line() -> None:
    given = ["--inference.scales", "0.5", "1", "--inference.mirrors", "True", "--inference.inference.stride", "16", "8"]
    expected = Tta(scales=(0.5, 1.0), mirrors=(True,), inference=Sliding(height=32, width=32, stride=(16, 8)))
    assert tyro.cli(Config, args=given).inference == expected
