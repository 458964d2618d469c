"""From classifiers to fully convolutional nets: dense layers seen as convolutions (arXiv:1605.06211, section 3.1).

A dense layer over a flattened map of h × w cells is a convolution whose kernel is h × w, at the one place where it
fits; the dense layers after it are 1 × 1 convolutions. On a larger map they fit at many places. With f the features,
s their stride, g the dense layers, and `logits = g(f(image))` the classifier:

    an image of the native size    map[0, 0] = logits(image)
    any larger one                  map[i, j] = g(f(image)[i : i + h, j : j + w])
    the same, padding="VALID"       map[i, j] = logits(crop of the native size from pixel (s i, s j))

The last needs features without padding: with "SAME" the crop is surrounded by zeros, the larger image is not.
"""

import re

from jaxtyping import Array

from jaxgen import tree
from jaxgen.errors import UserError
from jaxgen.models.cnn import Cnn
from jaxgen.models.vgg import Vgg
from jaxgen.typing import Tree


def convolutionalize[C: (Cnn, Vgg)](net: C, params: Tree, window: tuple[int, int]) -> tuple[C, Tree]:
    """Return a net that gives one vector of logits per window, [b h w n], and the classifier's params in its form.

    `window` is (rows, columns) of the last map for images of the native size: (7, 7) for VGG at 224 × 224. Batch
    statistics serve both nets. Raises UserError if the first dense layer was trained on another number of cells.
    """
    names = [f"fc{len(net.widths) + 1 + i}" for i in range(len(net.hidden))] + ["score"]
    inputs = params["head"][names[0]]["kernel"].shape[0]
    if inputs != window[0] * window[1] * net.widths[-1]:
        raise UserError(
            f"convolutionalize: the first dense layer takes {inputs // net.widths[-1]} cells, and a window of"
            f" {window[0]} × {window[1]} has {window[0] * window[1]}: give the last map's size in training"
        )
    sides = [window] + [(1, 1)] * len(net.hidden)
    head = {}
    for name, side in zip(names, sides, strict=True):
        kernel = params["head"][name]["kernel"]
        head[name] = {**params["head"][name], "kernel": kernel.reshape(*side, -1, kernel.shape[-1])}
    return net.clone(window=window), {**params, "head": head}


def transplant(params: Tree, classifier: Tree) -> Tree:
    """Return the params of an Fcn with features and hidden dense layers taken from a classifier: net surgery.

    Layers that score and upsample stay as they are in `params`. The Fcn's `window` is the side of the classifier's
    last map in training; batch statistics serve both nets. Raises UserError if a layer has no counterpart of its size.
    """
    layers = dict(tree.leaves(classifier))
    wanted = [path for path, _ in tree.leaves(params) if re.match(r"features/|head/fc", path)]
    for path in set(wanted) ^ {path for path in layers if not path.startswith("head/score")}:
        raise UserError(
            f"transplant: only one of the two nets has {path}; give both the same widths, depths and hidden"
        )

    def take(path: str, leaf: Array) -> Array:
        if path not in wanted:
            return leaf
        # The hidden layers' kernels [h·w·c n] become [h w c n], [m n] become [1 1 m n]; all else has its shape.
        if layers[path].size != leaf.size or (path.startswith("features/") and layers[path].shape != leaf.shape):
            raise UserError(f"transplant: {path} is {layers[path].shape} in the classifier, {leaf.shape} in the Fcn")
        return layers[path].reshape(leaf.shape)

    return tree.map_with_path(take, params)
