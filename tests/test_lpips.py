"""LPIPS against its definition written out in torch, by a file under its names, and as an objective's distance."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden.lpips_state import SIDES, WIDTHS, value
from golden.weights import image
from safetensors.numpy import save_file

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.learner import Learner
from jaxgen.models.cnn import Cnn
from jaxgen.models.lpips import LpipsVgg
from jaxgen.objectives.perceptual import Lpips
from jaxgen.weights.lpips import LpipsFile, names

GOLDEN = np.load(pathlib.Path(__file__).parent / "golden" / "lpips.npz")


def spec(*shape: int) -> dict[str, jax.ShapeDtypeStruct]:
    return {"image": jax.ShapeDtypeStruct((4, *shape), np.uint8)}


def test_it_gives_what_the_reference_gives_by_a_published_file(tmp_path):
    net, x = LpipsVgg(widths=WIDTHS), jnp.asarray(image(*SIDES))
    variables = jax.eval_shape(lambda: net.init(jax.random.key(0), x, train=False))
    stored = {"scaling_layer.shift": np.zeros((1, 3, 1, 1), np.float32)}
    for path, like in tree.leaves(variables):
        (name,) = names(path)
        torchs = like.shape if len(like.shape) == 1 else (*like.shape[:1:-1], *like.shape[:2])
        stored[name] = value(name, torchs)
        stored |= {name.replace("lin", "lins.", 1): stored[name]} if name.startswith("lin") else {}
    save_file(stored, tmp_path / "lpips.safetensors")
    file = LpipsFile(str(tmp_path / "lpips.safetensors"))
    distance = Lpips(net=Learner(module=net, weights=file))
    distance.check(spec(*SIDES, 3))
    found = jax.jit(distance.distance)(file.read(variables), x, x[:, :, ::-1])
    np.testing.assert_allclose(found, GOLDEN["distance"], rtol=1e-4)


def test_two_equal_images_have_no_distance_and_a_finite_gradient():
    distance = Lpips(net=Learner(module=LpipsVgg(widths=WIDTHS), weights=LpipsFile("unread")))
    x = jnp.zeros((1, 16, 16, 3))
    variables = LpipsVgg(widths=WIDTHS).init(jax.random.key(0), x, train=False)
    value, slope = jax.jit(jax.value_and_grad(lambda y: distance.distance(variables, x, y).sum()))(x)
    assert 0 <= value < 1e-12  # two compilations of one net may round differently
    assert jnp.isfinite(slope).all()


@pytest.mark.parametrize(
    ("learner", "shape", "words"),
    [
        (Learner(module=LpipsVgg()), (32, 32, 3), r"has no weights; give it weights=LpipsFile\(path\)"),
        (Learner(module=Cnn(classes=2), weights=LpipsFile("x")), (32, 32, 3), "Cnn is no Comparing"),
        (Learner(module=LpipsVgg(), weights=LpipsFile("x")), (32, 32, 1), "colour images .* these are 32×32×1"),
        (Learner(module=LpipsVgg(), weights=LpipsFile("x")), (8, 32, 3), "16 pixels a side or more, .* 8×32×3"),
    ],
)
def test_what_does_not_fit_is_refused(learner, shape, words):
    with pytest.raises(UserError, match=words):
        Lpips(net=learner).check(spec(*shape))
