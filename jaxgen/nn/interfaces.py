"""What objectives ask of their nets: a Protocol for each kind, which a net meets by its fields and methods alone.

Images are f32[b h w c] in [-1, 1], points f32[b d]: both are "b *s" below. A net takes a `Condition`, with the label as
class weights f32[b classes + 1] whose last column is the null class. `train` says whether statistics of the batch and
dropout are used.
"""

import inspect
from typing import Any, Protocol, runtime_checkable

from flax import struct
from jaxtyping import Array, Float, Int, Key

from jaxgen.errors import UserError
from jaxgen.typing import Condition


@runtime_checkable
class Classifier(Protocol):
    """Map images to logits f32[b classes]."""

    classes: int
    """Number of classes."""

    def __call__(self, image: Float[Array, "b *s"], *, train: bool) -> Float[Array, "b n"]: ...


@runtime_checkable
class Segmenter(Protocol):
    """Map images to logits of each pixel, f32[b h w classes]."""

    classes: int
    """Number of classes."""

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w n"]: ...


@runtime_checkable
class Denoiser(Protocol):
    """Map noisy images, scaled as the prediction type says, and their noise levels f32[b] to what it predicts."""

    classes: int
    """Number of classes, without the null class; 0 for a net that takes no label."""

    def __call__(
        self, x: Float[Array, "b *s"], noise: Float[Array, " b"], condition: Condition, *, train: bool
    ) -> Float[Array, "b *s"]: ...


@runtime_checkable
class Generator(Protocol):
    """Map z f32[b latent], standard normal, to images."""

    latent: int
    """Length of z."""
    classes: int
    """Number of classes; 0 for a net that takes no label."""

    def __call__(
        self,
        z: Float[Array, "b z"],
        condition: Condition,
        noise: Key[Array, " b"],
        *,
        train: bool,
        truncation: float = 1.0,
    ) -> Float[Array, "b *s"]:
        """Make an image from each row: what is random in addition to z is drawn from the keys `noise`.

        `truncation` below 1 trades diversity for quality.
        """
        ...


@runtime_checkable
class StyleGenerator(Generator, Protocol):
    """A `Generator` in two steps, by a style for each layer: what path-length regularisation needs."""

    def styles(
        self, z: Float[Array, "b z"], condition: Condition, *, train: bool, truncation: float = 1.0
    ) -> Float[Array, "b l s"]:
        """Map z to the styles of all layers."""
        ...

    def synthesize(
        self, styles: Float[Array, "b l s"], noise: Key[Array, " b"], *, train: bool
    ) -> Float[Array, "b *s"]:
        """Map styles to images; noise is drawn from the keys."""
        ...


@runtime_checkable
class Discriminator(Protocol):
    """Map images to logits, higher where more real: f32[b], or of any shape f32[b *t], one for each patch."""

    classes: int
    """Number of classes; 0 for a net that takes no label."""

    def __call__(self, image: Float[Array, "b *s"], condition: Condition, *, train: bool) -> Float[Array, "b *t"]: ...


@struct.dataclass
class Encoded:
    """A text as its encoder returns it."""

    text: Any  # f32[b n c], a vector for each token
    pooled: Any  # f32[b d], a vector for the whole text
    mask: Any  # bool[b n], true for what may be attended to; None where that is every token, padding among them


@runtime_checkable
class TextEncoder(Protocol):
    """Map the token ids of texts, i32[b n], to vectors."""

    vocabulary: int
    """Number of token ids."""

    def __call__(self, tokens: Int[Array, "b n"], *, train: bool) -> Encoded: ...


@runtime_checkable
class Autoencoder(Protocol):
    """Map images to latents, of a fraction of their height and width, and back.

    The collection "latent" holds `mean` and `std` f32[channels] of the latents of the images that it was trained on:
    (latent - mean) / std is what a denoiser is trained on. Calling the net decodes what it has encoded.
    """

    channels: int
    """Channels of a latent."""
    factor: int
    """Height and width of an image over those of its latent."""

    def encode(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b i j m"]:
        """Return mean and logarithm of the variance of each latent, `channels` of the one, then of the other."""
        ...

    def decode(self, latent: Float[Array, "b i j k"], *, train: bool) -> Float[Array, "b h w c"]:
        """Return images in [-1, 1], but for overshoot."""
        ...

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]: ...


@runtime_checkable
class Translator(Protocol):
    """Map images of one domain to images of another, of the same size and channels, in [-1, 1]."""

    factor: int
    """What must divide the sides of an image, which are at least twice as long."""

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b h w c"]: ...


@runtime_checkable
class FeatureTranslator(Translator, Protocol):
    """A `Translator` that shows its maps on the way to its middle."""

    def features(self, image: Float[Array, "b h w c"], *, train: bool) -> dict[str, Array]:
        """Return maps f32[b i j n] by the names of their layers."""
        ...


@runtime_checkable
class Restorer(Protocol):
    """Map images to others of `scale` times their height and width, in [-1, 1] but for overshoot."""

    scale: int
    """Height and width of what it makes, over those of an image."""
    factor: int
    """What must divide the sides of an image."""

    def __call__(self, image: Float[Array, "b h w c"], *, train: bool) -> Float[Array, "b i j c"]: ...


@runtime_checkable
class Comparing(Protocol):
    """Map images to maps whose squared differences say how unlike two images are, weights and all."""

    def compared(self, image: Float[Array, "b h w c"], *, train: bool) -> tuple[Float[Array, "b _ _ _"], ...]: ...


def require(module: Any, protocol: type, name: str) -> None:
    """Raise UserError unless a module has the fields and the methods of a Protocol above.

    `name` is the objective's field that holds the module's Learner. Methods are compared by how they can be called.
    """
    reasons = []
    for member in _members(protocol):
        method = getattr(protocol, member, None)  # a field without a default has no value
        if not hasattr(module, member):
            reasons.append(f"it has no `{member}`")
        elif method is not None and not _takes(getattr(module, member), method):
            reasons.append(f"`{member}` does not take ({', '.join(_parameters(method))})")
    if reasons:
        raise UserError(
            f"objective.{name}.module: {type(module).__name__} is no {protocol.__name__}: {'; '.join(reasons)} "
            "(see jaxgen.nn.interfaces)"
        )


def _members(protocol: type) -> list[str]:
    names = {name for base in protocol.__mro__ for name in (*inspect.get_annotations(base), *vars(base))}
    return sorted(name for name in names if name == "__call__" or not name.startswith("_"))


def _parameters(method: Any) -> dict[str, inspect.Parameter]:
    parameters = dict(inspect.signature(method).parameters)
    del parameters["self"]
    return parameters


def _takes(call: Any, method: Any) -> bool:
    """Say whether `call` takes the arguments of a Protocol's method: positional ones by place, others by name."""
    by_name = [key for key, value in _parameters(method).items() if value.kind is inspect.Parameter.KEYWORD_ONLY]
    by_place = [key for key in _parameters(method) if key not in by_name]
    try:
        inspect.signature(call).bind(*by_place, **dict.fromkeys(by_name))
    except TypeError:
        return False
    return True
