"""Weights of LPIPS under the names of its authors' package."""

import dataclasses

from jaxgen.typing import Tree
from jaxgen.weights.published import LEAVES, load, translated

FIRST = (0, 5, 10, 17, 24)  # where each stage of VGG-16 begins among torchvision's layers; every other one convolves


@dataclasses.dataclass(frozen=True)
class LpipsFile:
    """A .safetensors file of LPIPS by VGG-16, for `LpipsVgg`.

    Save {name: array.clone() for name, array in lpips.LPIPS(net="vgg").state_dict().items()} by
    safetensors.torch.save_file.
    """

    path: str

    def read(self, variables: Tree) -> Tree:
        """Return the file's arrays for a net.

        Raises UserError if there is no such file, or it holds another net or size.
        """
        stored = load(self.path)
        # The package has the weights twice, and two constants.
        ours = {name: x for name, x in stored.items() if not name.startswith(("lins.", "scaling_layer."))}
        return translated(ours, variables, names, self.path)


def names(path: str) -> tuple[str]:
    """Return LPIPS's name of one of a net's paths."""
    _, module, leaf = path.split("/")
    if module.startswith("lin"):
        return (f"lin{int(module.removeprefix('lin')) - 1}.model.1.weight",)
    stage, i = map(int, module.removeprefix("conv").split("_"))
    return (f"net.slice{stage}.{FIRST[stage - 1] + 2 * (i - 1)}.{LEAVES[leaf]}",)
