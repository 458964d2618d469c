"""InceptionV3 and FID's features: parity with torch-fidelity, its odd pools and resizing, and reading weights."""

import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.resnet_state import value
from golden.weights import image
from safetensors.numpy import save_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.features.inception import Inception
from jaxgen.models import inception
from jaxgen.pictures.pixels import to_float
from jaxgen.weights.inception import LEAVES, load, shapes

GOLDEN = pathlib.Path(__file__).parent / "golden" / "inception.npz"

# Compiling takes longer than running here: leave LLVM's optimisations out.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def torch_state() -> dict[str, np.ndarray]:
    """The weights of the golden, by the names and in the layouts of torch."""
    state = {}
    for path, like in tree.leaves(shapes()):
        _, *modules, kind = path.split("/")
        name, shape = ".".join([*modules, LEAVES[kind]]), like.shape
        state[name] = value(name, (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape[::-1])
    return state


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("inception") / "weights.safetensors"
    save_file(torch_state(), path)
    return path


def picture(height: int, width: int) -> jax.Array:
    """f32[2 height width 3] in [-1, 1], of 8-bit levels."""
    levels = np.round((image(height, width) + 1.0) * 127.5).astype(np.uint8)
    return to_float(jnp.asarray(levels))


def relative(ours: Any, reference: np.ndarray) -> float:
    assert np.asarray(ours).shape == reference.shape
    # Over what tells the two pictures apart: most of each feature is the same for both.
    return float(np.abs(np.asarray(ours) - reference).max() / np.abs(reference[0] - reference[1]).max())


def test_as_many_parameters_as_torch_fidelity() -> None:
    assert tree.count(shapes()["params"]) == np.load(GOLDEN)["parameters"]


@pytest.mark.slow
def test_features_equal_torch_fidelity(weights: pathlib.Path) -> None:
    extractor = Inception(weights=str(weights)).extractor()
    features = jit(lambda extractor, x: extractor(x))(extractor, picture(64, 64))
    assert relative(features, np.load(GOLDEN)["features_64x64"]) < 1e-4
    assert jax.eval_shape(extractor, jnp.zeros((3, 8, 9, 1))).shape == (3, 2048)  # grey, of any size


@pytest.mark.slow
def test_logits_equal_torch_fidelity(weights: pathlib.Path) -> None:
    golden = np.load(GOLDEN)
    run = jit(lambda v, x: inception.InceptionV3().apply(v, inception.preprocess(x)))
    features, logits = run(load(weights), picture(299, 299))
    assert relative(features, golden["features_299x299"]) < 1e-4
    assert relative(logits[:, ::4], golden["logits_299x299"]) < 1e-4


@pytest.mark.parametrize("size", [(37, 53), (400, 310)])
def test_resizes_as_tensorflow_did(size: tuple[int, int]) -> None:
    resized = inception.preprocess(picture(*size))[:1, ::13, ::13] * 128.0 + 128.0
    np.testing.assert_allclose(resized, np.load(GOLDEN)[f"resized_{size[0]}x{size[1]}"], atol=2e-3)


def test_levels_are_counted_from_128() -> None:
    levels = jnp.arange(256.0).repeat(350)[: 299 * 299].reshape(1, 299, 299, 1).repeat(3, axis=3)
    np.testing.assert_allclose(inception.preprocess(levels / 127.5 - 1.0), (levels - 128.0) / 128.0, atol=1e-6)


def test_pools_do_not_see_the_border() -> None:
    x = image(4, 5, channels=2) - 2.0  # all below 0, where a padding of zeros would show
    average, largest = np.zeros_like(x), np.zeros_like(x)
    for i in range(4):
        for j in range(5):
            around = x[:, max(i - 1, 0) : i + 2, max(j - 1, 0) : j + 2]
            average[:, i, j], largest[:, i, j] = around.mean((1, 2)), around.max((1, 2))
    np.testing.assert_allclose(inception.average_pool(jnp.asarray(x)), average, rtol=1e-5)
    np.testing.assert_array_equal(inception.max_pool(jnp.asarray(x)), largest)
    np.testing.assert_array_equal(inception.halving_pool(jnp.asarray(x)), largest[:, 1:3:2, 1:4:2])


def test_only_this_is_called_fid() -> None:
    features = Inception(weights="w.safetensors")
    assert (features.name, features.metric) == ("inception", "fid")


def test_weights_that_do_not_fit_are_refused(tmp_path: pathlib.Path) -> None:
    def refused(name: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            Inception(weights=str(tmp_path / name)).extractor()

    refused("a.pth", r"python -c .*save_file\(torch\.load\('.*a\.pth'.*\), '.*a\.safetensors'\)")
    refused("b.safetensors", "there is no file .*b.safetensors")
    (tmp_path / "c.safetensors").write_bytes(b"nothing")
    refused("c.safetensors", "cannot be read")
    bias = np.zeros(1008, np.float32)
    save_file({"fc.bias": bias}, tmp_path / "d.safetensors")
    refused("d.safetensors", r"has no Conv2d_1a_3x3\.bn\.\w+")
    save_file({"Conv2d_1a_3x3.bn.running_mean": bias}, tmp_path / "e.safetensors")
    refused("e.safetensors", r"Conv2d_1a_3x3.bn.running_mean .* \(1008,\)")
