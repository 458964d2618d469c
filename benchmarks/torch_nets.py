"""Five nets in plain torch, written from their papers, layer by layer those of jaxgen/models; images are [b c h w]."""

import itertools
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_norm(inputs: int, features: int, kernel: int = 1, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    padding = dilation * (kernel - 1) // 2
    conv = nn.Conv2d(inputs, features, kernel, stride, padding, dilation, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(features))


class Residual(nn.Module):
    """ReLU of a branch and a shortcut, which is a projection where shapes differ (arXiv:1512.03385)."""

    def __init__(self, branch: nn.Module, inputs: int, features: int, stride: int):
        super().__init__()
        self.branch = branch
        same = inputs == features and stride == 1
        self.shortcut = nn.Identity() if same else conv_norm(inputs, features, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


def basic(inputs: int, width: int, stride: int, dilation: int) -> Residual:
    layers = (
        conv_norm(inputs, width, 3, stride, dilation),
        nn.ReLU(inplace=True),
        conv_norm(width, width, 3, 1, dilation),
    )
    return Residual(nn.Sequential(*layers), inputs, width, stride)


def bottleneck(inputs: int, width: int, stride: int, dilation: int) -> Residual:
    layers = (
        conv_norm(inputs, width),
        nn.ReLU(inplace=True),
        conv_norm(width, width, 3, stride, dilation),
        nn.ReLU(inplace=True),
        conv_norm(width, 4 * width),
    )
    return Residual(nn.Sequential(*layers), inputs, 4 * width, stride)


def stem() -> nn.Sequential:
    return nn.Sequential(conv_norm(3, 64, 7, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1))


class ResNet18(nn.Module):
    def __init__(self, classes: int):
        super().__init__()
        blocks, inputs = [], 64
        for stage in range(4):
            for i in range(2):
                width = 64 * 2**stage
                blocks.append(basic(inputs, width, 2 if stage and not i else 1, 1))
                inputs = width
        self.body = nn.Sequential(stem(), *blocks)
        self.head = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def fcn_head(inputs: int, classes: int) -> nn.Sequential:
    inner = conv_norm(inputs, inputs // 4, 3)
    return nn.Sequential(inner, nn.ReLU(inplace=True), nn.Dropout(0.1), nn.Conv2d(inputs // 4, classes, 1))


class FcnResNet50(nn.Module):
    """FCN at output stride 8 with an auxiliary head on the third stage: logits of both, of the image's size."""

    def __init__(self, classes: int):
        super().__init__()
        stages, inputs = [], 64
        # A stage's first block still reads the finer grid, with the dilation of the stage before.
        for width, count, stride, first, dilation in (
            (64, 3, 1, 1, 1),
            (128, 4, 2, 1, 1),
            (256, 6, 1, 1, 2),
            (512, 3, 1, 2, 4),
        ):
            blocks = [bottleneck(inputs, width, stride, first)]
            blocks += [bottleneck(4 * width, width, 1, dilation) for _ in range(count - 1)]
            stages.append(nn.Sequential(*blocks))
            inputs = 4 * width
        self.early = nn.Sequential(stem(), *stages[:3])
        self.last = stages[3]
        self.head, self.aux = fcn_head(2048, classes), fcn_head(1024, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        c4 = self.early(x)
        logits = self.head(self.last(c4)), self.aux(c4)
        main, aux = (F.interpolate(y, size=x.shape[2:], mode="bilinear", align_corners=False) for y in logits)
        return main, aux


def sinusoid(x: Tensor, channels: int, *, endpoint: bool) -> Tensor:
    half = channels // 2
    exponent = torch.arange(half, device=x.device, dtype=torch.float32) / (half - endpoint)
    angle = x.float()[:, None] * torch.exp(-math.log(10_000.0) * exponent)[None]
    return torch.cat([angle.cos(), angle.sin()], dim=1)


def group_norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(min(32, channels // 4), channels, eps=1e-6)


class MapAttention(nn.Module):
    """Residual self-attention of one head over all cells of a map."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm, self.qkv = group_norm(channels), nn.Conv2d(channels, 3 * channels, 1)
        self.out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.flatten(2).transpose(1, 2)[:, None] for y in self.qkv(self.norm(x)).chunk(3, dim=1))
        y = F.scaled_dot_product_attention(q, k, v)[:, 0].transpose(1, 2).reshape(x.shape)
        return (x + self.out(y)) * math.sqrt(0.5)


class UBlock(nn.Module):
    """Residual block of EDM's DDPM++ (arXiv:2206.00364, appendix F.4); `scale` is 1, 2 (doubles) or 0.5 (halves)."""

    def __init__(self, inputs: int, features: int, embedding: int, *, scale: float = 1, attention: bool = False):
        super().__init__()
        self.scale = scale
        self.norm0, self.conv0 = group_norm(inputs), nn.Conv2d(inputs, features, 3, padding=1)
        self.shift = nn.Linear(embedding, features)
        self.norm1, self.conv1 = group_norm(features), nn.Conv2d(features, features, 3, padding=1)
        self.skip = None if inputs == features and scale == 1 else nn.Conv2d(inputs, features, 1)
        self.attention = MapAttention(features) if attention else nn.Identity()

    def resample(self, x: Tensor) -> Tensor:
        if self.scale == 1:
            return x
        return F.avg_pool2d(x, 2) if self.scale < 1 else F.interpolate(x, scale_factor=2.0, mode="nearest")

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        y = self.conv0(self.resample(F.silu(self.norm0(x))))
        y = self.conv1(F.silu(self.norm1(y + self.shift(embedding)[:, :, None, None])))
        if self.skip is not None:  # the projection acts on the smaller map, as in jaxgen: both orders are equal
            x = self.resample(self.skip(x)) if self.scale > 1 else self.skip(self.resample(x))
        return self.attention((x + y) * math.sqrt(0.5))


class SongUNet(nn.Module):
    """DDPM++ of 64 channels, multipliers (1, 2, 2), two blocks a resolution, attention at 16, for 32×32×3."""

    def __init__(self):
        super().__init__()
        base, widths, blocks, embedding = 64, (64, 128, 128), 2, 256
        self.embed = nn.Sequential(nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.first = nn.Conv2d(3, base, 3, padding=1)
        encoder, skips, x = [], [base], base
        for level, width in enumerate(widths):
            if level:
                encoder.append(UBlock(x, x, embedding, scale=0.5))
                skips.append(x)
            for _ in range(blocks):
                encoder.append(UBlock(x, width, embedding, attention=level == 1))
                skips.append(x := width)
        self.encoder = nn.ModuleList(encoder)
        self.middle = nn.ModuleList([UBlock(x, x, embedding, attention=True), UBlock(x, x, embedding)])
        decoder = []
        for level, width in reversed(list(enumerate(widths))):
            for i in range(blocks + 1):
                decoder.append(UBlock(x + skips.pop(), width, embedding, attention=level == 1 and i == blocks))
                x = width
            if level:
                decoder.append(UBlock(x, x, embedding, scale=2))
        self.decoder = nn.ModuleList(decoder)
        self.norm, self.out = group_norm(x), nn.Conv2d(x, 3, 3, padding=1)

    def forward(self, x: Tensor, noise: Tensor) -> Tensor:
        embedding = self.embed(sinusoid(noise, 64, endpoint=True))
        x = self.first(x)
        skips = [x]
        for block in self.encoder:
            x = block(x, embedding)
            skips.append(x)
        for block in self.middle:
            x = block(x, embedding)
        for block in self.decoder:
            x = block(x if block.scale > 1 else torch.cat([x, skips.pop()], dim=1), embedding)
        return self.out(F.silu(self.norm(x)))


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return x * (1 + scale[:, None]) + shift[:, None]


def zero_linear(inputs: int, features: int) -> nn.Linear:
    layer = nn.Linear(inputs, features)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


class DiTBlock(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.norm2 = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        self.modulation = zero_linear(width, 6 * width)

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift1, scale1, gate1, shift2, scale2, gate2 = self.modulation(F.silu(c)).chunk(6, dim=1)
        b, n, width = x.shape
        qkv = self.qkv(modulate(self.norm1(x), shift1, scale1)).view(b, n, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, width)
        x = x + gate1[:, None] * self.out(y)
        return x + gate2[:, None] * self.mlp(modulate(self.norm2(x), shift2, scale2))


def positions(side: int, width: int) -> Tensor:
    """Sines and cosines of each patch's column, then of its row: [side² width]."""
    at = torch.arange(side, dtype=torch.float32)
    frequency = 10_000.0 ** (-torch.arange(width // 4) / (width // 4))
    angles = [place[:, None] * frequency for place in (at.repeat(side), at.repeat_interleave(side))]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


class DiT(nn.Module):
    """DiT-S/2 (arXiv:2212.09748) for 32×32×4, without learned variances; class `classes` is the null class."""

    def __init__(self, classes: int):
        super().__init__()
        width, depth, heads, side = 384, 12, 6, 16
        self.time = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))
        self.label = nn.Embedding(classes + 1, width)
        self.patch = nn.Linear(16, width)
        self.blocks = nn.ModuleList([DiTBlock(width, heads) for _ in range(depth)])
        self.norm = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.modulation, self.out = zero_linear(width, 2 * width), zero_linear(width, 16)
        self.register_buffer("position", positions(side, width))

    def forward(self, x: Tensor, t: Tensor, label: Tensor) -> Tensor:
        b, channels, height, width = x.shape
        c = self.time(sinusoid(t, 256, endpoint=False)) + self.label(label)
        grid = x.view(b, channels, height // 2, 2, width // 2, 2).permute(0, 2, 4, 3, 5, 1)
        tokens = self.patch(grid.reshape(b, -1, 4 * channels)) + self.position
        for block in self.blocks:
            tokens = block(tokens, c)
        shift, scale = self.modulation(F.silu(c)).chunk(2, dim=1)
        patches = self.out(modulate(self.norm(tokens), shift, scale))
        grid = patches.view(b, height // 2, width // 2, 2, 2, channels).permute(0, 5, 1, 3, 2, 4)
        return grid.reshape(x.shape)


class DcganGenerator(nn.Module):
    """z of 100 to 32×32×3 (arXiv:1511.06434)."""

    def __init__(self):
        super().__init__()
        widths = (256, 128, 64)
        self.first = nn.Linear(100, 16 * widths[0], bias=False)
        layers = [nn.BatchNorm2d(widths[0]), nn.ReLU(inplace=True)]
        for inputs, features in itertools.pairwise(widths):
            layers += [
                nn.ConvTranspose2d(inputs, features, 4, 2, 1, bias=False),
                nn.BatchNorm2d(features),
                nn.ReLU(inplace=True),
            ]
        self.body = nn.Sequential(*layers, nn.ConvTranspose2d(widths[-1], 3, 4, 2, 1, bias=False), nn.Tanh())

    def forward(self, z: Tensor) -> Tensor:
        return self.body(self.first(z).view(len(z), -1, 4, 4))


class DcganDiscriminator(nn.Module):
    """32×32×3 to a logit (arXiv:1511.06434)."""

    def __init__(self):
        super().__init__()
        layers, inputs = [], 3
        for width in (64, 128, 256):
            layers.append(nn.Conv2d(inputs, width, 4, 2, 1, bias=False))
            layers += [nn.BatchNorm2d(width)] if inputs != 3 else []
            layers.append(nn.LeakyReLU(0.2, inplace=True))
            inputs = width
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * inputs, 1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)[:, 0]
