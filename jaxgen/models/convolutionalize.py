"""From classifiers to fully convolutional nets: dense layers seen as convolutions (arXiv:1605.06211, section 3.1).

A dense layer over a flattened map of h × w cells is a convolution whose kernel is h × w, at the one place where it
fits; the dense layers after it are 1 × 1 convolutions. On a larger map they fit at many places. With f the features,
s their stride, g the dense layers, and `logits = g(f(image))` the classifier:

    a picture of the native size    map[0, 0] = logits(image)
    any larger one                  map[i, j] = g(f(image)[i : i + h, j : j + w])
    the same, padding="VALID"       map[i, j] = logits(crop of the native size from pixel (s i, s j))

The last asks for features that see no padding: with "SAME" the crop is framed by zeros where the picture goes on.
"""

from typing import TypeVar

from jaxgen import tree
from jaxgen.models.cnn import Cnn
from jaxgen.models.vgg import Vgg
from jaxgen.typing import Tree, UserError

Classifier = TypeVar("Classifier", Cnn, Vgg)


def convolutionalize(net: Classifier, params: Tree, window: tuple[int, int]) -> tuple[Classifier, Tree]:
    """Return a net that gives one vector of logits per window, [b h w n], and the classifier's params in its form.

    `window` is (rows, columns) of the last map for pictures of the native size: (7, 7) for VGG at 224 × 224. Batch
    statistics serve both nets. Raises UserError if the first dense layer was trained on another number of cells.
    """
    names = [f"fc{len(net.widths) + 1 + i}" for i in range(len(net.hidden))] + ["score"]
    inputs = params["head"][names[0]]["kernel"].shape[0]
    if inputs != window[0] * window[1] * net.widths[-1]:
        raise UserError(
            f"convolutionalize: the first dense layer sees {inputs // net.widths[-1]} cells, and a window of"
            f" {window[0]} × {window[1]} has {window[0] * window[1]}: give the last map's size in training"
        )
    sides = [window] + [(1, 1)] * len(net.hidden)
    head = {name: _shape(params["head"][name], (*side, -1)) for name, side in zip(names, sides, strict=True)}
    return net.clone(window=window), {**params, "head": head}


def transplant(params: Tree, classifier: Tree) -> Tree:
    """Return the params of an Fcn with features and hidden dense layers taken from a classifier: net surgery.

    Layers that score and upsample stay as they are in `params`. The Fcn's `window` is the side of the classifier's
    last map; batch statistics, where there are any, serve both nets. Raises UserError where the two do not fit.
    """
    hidden = {name: layer for name, layer in classifier["head"].items() if name != "score"}
    new = {
        **params,
        "features": classifier["features"],
        "head": {
            "score": params["head"]["score"],
            **{name: _shape(layer, params["head"][name]["kernel"].shape[:3]) for name, layer in hidden.items()},
        },
    }
    return new


def _shape(layer: Tree, inputs: tuple[int, ...]) -> Tree:
    """Give a dense layer's kernel [m n] the shape [*inputs n]; its numbers keep their order."""
    return {**layer, "kernel": layer["kernel"].reshape(*inputs, layer["kernel"].shape[-1])}
