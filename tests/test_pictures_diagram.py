"""Block diagrams tell the truth about the net, and are drawn whole."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from jaxgen import tree
from jaxgen.models.cnn import Cnn
from jaxgen.models.dcgan import DcganDiscriminator, DcganGenerator
from jaxgen.models.fcn import Fcn
from jaxgen.models.mlp import MlpDiscriminator
from jaxgen.models.r3gan import R3ganDiscriminator, R3ganGenerator
from jaxgen.models.songunet import SongUNet
from jaxgen.models.unet import Unet
from jaxgen.nn.backbones import SmallBackbone
from jaxgen.pictures.diagram import Block, Shown, blocks, draw

Z, KEYS = jnp.zeros((2, 16)), jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
GREY8, RGB64 = jnp.zeros((2, 8, 8, 1)), jnp.zeros((2, 64, 64, 3))
SMALL = SmallBackbone(widths=(4, 8, 8, 8, 8))
FCN = Fcn(classes=11, stride=8, backbone=SMALL, hidden=(16,), window=3)
SONG = SongUNet(classes=0, model_channels=8, multipliers=(1, 2), blocks=1, attention=())
UNET = Unet(classes=11, widths=(4, 8, 16))
NETS = {
    "cnn": (Cnn(widths=(4, 8), hidden=(16,)), (GREY8,)),
    "cnn, as convolutions": (Cnn(widths=(4, 8), hidden=(16,), window=(2, 2)), (RGB64,)),
    "fcn": (FCN, (RGB64,)),
    "unet": (UNET, (RGB64,)),
    "songunet": (SONG, (GREY8, jnp.zeros(2), {})),
    "dcgan generator": (DcganGenerator(latent=16), (Z, {}, KEYS)),
    "dcgan discriminator": (DcganDiscriminator(), (RGB64, {})),
    "r3gan generator": (R3ganGenerator(latent=16, widths=(16, 16)), (Z, {}, KEYS)),
    "r3gan discriminator": (R3ganDiscriminator(widths=(16, 16)), (GREY8, {})),
    "mlp with classes": (MlpDiscriminator(classes=3), (jnp.zeros((2, 2)), {"label": jnp.zeros((2, 4))})),
}


@pytest.mark.parametrize("name", NETS)
def test_shapes_and_parameters_are_the_nets(name):
    module, inputs = NETS[name]
    depth = 2 if name in ("cnn", "fcn", "songunet", "r3gan generator") else 1

    def run(inputs):
        return module.init_with_output(jax.random.key(0), *inputs, train=False, capture_intermediates=True)

    _, variables = jax.eval_shape(run, inputs)
    found = blocks(module, *inputs, depth=depth)
    assert found[0] == Block("input", "input", inputs[0].shape[1:], 0, ())
    assert sum(block.parameters for block in found) == tree.count(variables["params"])
    given = dict(tree.leaves(variables["intermediates"]))
    for block in found[1:]:
        if block.kind == "parameter":
            assert block.shape == dict(tree.leaves(variables["params"]))[block.name].shape
            continue
        # A norm belongs to the block before it: what the block gives is then what the norm gives.
        own = [leaf for path, leaf in given.items() if path.startswith(f"{block.name}/__call__/")][-1:]
        norms = [leaf for path, leaf in given.items() if re.search(r"(?i)norm|dropout", path)]
        assert block.shape in {leaf.shape[1:] for leaf in (*own, *norms)}
        inside = [leaf for path, leaf in tree.leaves(variables["params"]) if path.startswith(f"{block.name}/")]
        assert block.parameters >= tree.count(inside)


def test_a_whole_net_is_one_block():
    assert blocks(UNET, RGB64, depth=0)[1:] == [
        Block("Unet", "Unet", (64, 64, 11), sum(block.parameters for block in blocks(UNET, RGB64)))
    ]


def edges(module, *inputs, depth=1) -> set[tuple[str, str]]:
    found = blocks(module, *inputs, depth=depth)
    return {(found[i - back].name, block.name) for i, block in enumerate(found) for back in block.sources}


@pytest.mark.parametrize("net", [UNET, UNET.clone(remat=True)])
def test_skips_are_found(net):
    way = ["input", "down0", "down1", "bottom", "upsample1", "up1", "upsample0", "up0", "logits"]
    assert edges(net, RGB64) == {*itertools.pairwise(way), ("down0", "up0"), ("down1", "up1")}


def test_an_fcn_scores_three_maps_and_adds_them():
    found = edges(FCN, RGB64, depth=2)
    assert {b: a for a, b in found if b.startswith("score_pool")} == {
        "score_pool4": "features/conv4_1", "score_pool3": "features/conv3_2"
    }  # fmt: skip
    assert {a for a, b in found if b == "upsample_to_pool3"} == {"upsample_to_pool4", "score_pool4"}
    assert {a for a, b in found if b == "upsample"} == {"upsample_to_pool3", "score_pool3"}


def test_an_embedding_comes_from_the_noise_level_and_not_from_the_image():
    found = edges(SONG, *NETS["songunet"][1])
    assert not [a for a, b in found if b == "embed0"]
    assert {b for a, b in found if a == "input"} == {"in"}


def test_norms_and_dropout_belong_to_the_block_before():
    module, inputs = NETS["cnn"]
    names = [block.name.split("/")[-1] for block in blocks(module, *inputs, depth=2)]
    assert names == ["input", "conv1_1", "conv1_2", "conv2_1", "conv2_2", "fc3", "score"]


@pytest.fixture(scope="module")
def rows() -> dict:
    image = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8, 1)
    net = blocks(Cnn(widths=(4,), depths=(1,), hidden=()), GREY8, depth=0)[1]
    return {
        "U-Net": blocks(UNET, RGB64),
        "FCN": blocks(FCN, RGB64, depth=2),
        "reverse": [Shown(image, "noise\nσ = 80"), net, Shown(-image, "sample")],
    }


def test_all_is_drawn_within_the_figure_and_no_text_overlaps(rows):
    figure = draw(rows)
    renderer = FigureCanvasAgg(figure).get_renderer()
    (axes,) = figure.axes
    whole = figure.bbox
    boxes = [text.get_window_extent(renderer) for text in axes.texts]
    boxes_and_shapes = boxes + [shape.get_window_extent(renderer) for shape in axes.patches]
    assert all(whole.containsx(b.x0) and whole.containsx(b.x1) for b in boxes_and_shapes)
    assert all(whole.containsy(b.y0) and whole.containsy(b.y1) for b in boxes_and_shapes)
    assert not [(a, b) for i, a in enumerate(boxes) for b in boxes[:i] if a.overlaps(b)]
    written = [text.get_text() for text in axes.texts]
    for title, row in rows.items():
        assert title in written
        for item in row:
            if isinstance(item, Block):
                assert "×".join(map(str, item.shape)) in written
    assert len(axes.images) == 2


def test_it_is_drawn_the_same_each_time(rows):
    first, second = (draw(rows)._repr_png_() for _ in range(2))  # what a notebook asks for
    assert first.startswith(b"\x89PNG")
    assert first == second
