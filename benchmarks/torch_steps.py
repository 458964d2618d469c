"""Torch's side of benchmarks/against_torch.py: five training steps, as one who knows torch writes them, and samplers.

Needs torch only, of 2.6 or later; sampling needs diffusers, too, and from texts transformers. Every mode has fused
optimizers, scaled_dot_product_attention and cuDNN's own choice of algorithms; on a GPU maps are channels_last, and
float32 products take TF32, as jax's do.
"""

import argparse
import contextlib
import dataclasses
import json
import pathlib
import platform
import sys
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from step_server import DTYPES, EVALUATIONS, MODES, SAMPLING, TEXT_SAMPLING, Workload, serve
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch_nets import DcganDiscriminator, DcganGenerator, DiT, FcnResNet50, ResNet18, SongUNet

Batch = dict[str, Tensor]


@dataclasses.dataclass(frozen=True)
class Mode:
    """How the nets are run."""

    compiler: str | None = None
    """Mode of torch.compile; None for eager."""
    channels_last: bool = False
    """Whether maps are channels_last on a CPU, too."""


HOW = {
    "eager": Mode(),
    "eager_channels_last": Mode(channels_last=True),
    "compile": Mode(compiler="default"),
    "compile_channels_last": Mode(compiler="default", channels_last=True),
    "compile_graphs": Mode(compiler="reduce-overhead"),  # CUDA graphs
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A mode on a device."""

    mode: Mode
    device: torch.device
    dtype: str

    @property
    def layout(self) -> torch.memory_format:
        last = self.mode.channels_last or self.device.type == "cuda"
        return torch.channels_last if last else torch.contiguous_format

    def place(self, net: nn.Module) -> nn.Module:
        return net.to(self.device).to(memory_format=self.layout).train()

    def compiled(self, net: nn.Module) -> nn.Module:
        return net if self.mode.compiler is None else torch.compile(net, mode=self.mode.compiler)

    def cast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16")

    def pixels(self, batch: Batch) -> Tensor:
        """Bytes as floats in [-1, 1]; floats as they are."""
        image = batch["image"]
        image = image.float() / 127.5 - 1.0 if image.dtype == torch.uint8 else image
        return image.contiguous(memory_format=self.layout)


class Ema:
    """A moving average of a net's parameters."""

    def __init__(self, net: nn.Module, decay: float):
        self.params, self.decay = list(net.parameters()), decay
        self.average = [p.detach().clone() for p in self.params]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self.average, self.params, 1 - self.decay)


Made = tuple[list[nn.Module], Callable[[Batch], Any], Callable[[Batch], None]]  # nets, forward for counting, step


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    optimizer.step()


def resnet18(run: Run) -> Made:
    plain = run.place(ResNet18(1000))
    net = run.compiled(plain)
    optimizer = torch.optim.SGD(plain.parameters(), 0.1, momentum=0.9, weight_decay=5e-4, fused=True)

    def step(batch: Batch) -> None:
        with run.cast():
            loss = F.cross_entropy(net(run.pixels(batch)), batch["label"])
        descend(optimizer, loss)

    return [plain], lambda batch: plain(run.pixels(batch)), step


def fcn_resnet50(run: Run) -> Made:
    plain = run.place(FcnResNet50(21))
    net = run.compiled(plain)
    optimizer = torch.optim.SGD(plain.parameters(), 0.01, momentum=0.9, weight_decay=1e-4, fused=True)

    def step(batch: Batch) -> None:
        with run.cast():
            logits, aux = net(run.pixels(batch))
            loss = F.cross_entropy(logits, batch["mask"], ignore_index=255)
            loss = loss + 0.5 * F.cross_entropy(aux, batch["mask"], ignore_index=255)
        descend(optimizer, loss)

    return [plain], lambda batch: plain(run.pixels(batch)), step


def songunet(run: Run) -> Made:
    plain = run.place(SongUNet())
    net, ema = run.compiled(plain), Ema(plain, 0.999)
    optimizer = torch.optim.Adam(plain.parameters(), 1e-3, fused=True)

    def step(batch: Batch) -> None:
        x0 = run.pixels(batch)
        sigma = torch.exp(-1.2 + 1.2 * torch.randn(len(x0), device=run.device))[:, None, None, None]
        z = x0 + sigma * torch.randn_like(x0)
        variance = sigma**2 + 0.25  # of z, for data of standard deviation 0.5 (arXiv:2206.00364, table 1)
        with run.cast():
            output = net(z * variance.rsqrt(), sigma.flatten().log() / 4)
        denoised = z * (0.25 / variance) + output.float() * (0.5 * sigma * variance.rsqrt())
        loss = ((denoised - x0).square() * (variance / (0.5 * sigma) ** 2)).mean()
        descend(optimizer, loss)
        ema.update()

    def forward(batch: Batch) -> Any:
        x = run.pixels(batch)
        return plain(x, x[:, 0, 0, 0])

    return [plain], forward, step


def dit_s2(run: Run) -> Made:
    plain = run.place(DiT(1000))
    net, ema = run.compiled(plain), Ema(plain, 0.9999)
    optimizer = torch.optim.AdamW(plain.parameters(), 1e-4, weight_decay=0.0, fused=True)
    signal = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    alphas, sigmas = (x.sqrt().float().to(run.device) for x in (signal, 1 - signal))

    def step(batch: Batch) -> None:
        x0, b = run.pixels(batch), len(batch["image"])
        t = torch.randint(1000, (b,), device=run.device)
        eps = torch.randn_like(x0)
        label = torch.where(torch.rand(b, device=run.device) < 0.1, 1000, batch["label"])
        z = alphas[t][:, None, None, None] * x0 + sigmas[t][:, None, None, None] * eps
        with run.cast():
            output = net(z, t, label)
        descend(optimizer, F.mse_loss(output.float(), eps))
        ema.update()

    def forward(batch: Batch) -> Any:
        return plain(run.pixels(batch), batch["label"], batch["label"])

    return [plain], forward, step


def dcgan(run: Run) -> Made:
    plain_g, plain_d = run.place(DcganGenerator()), run.place(DcganDiscriminator())
    generator, discriminator = run.compiled(plain_g), run.compiled(plain_d)
    optimizer_g, optimizer_d = (
        torch.optim.Adam(net.parameters(), 2e-4, betas=(0.5, 0.999), fused=True) for net in (plain_g, plain_d)
    )

    def step(batch: Batch) -> None:
        real = run.pixels(batch)
        with run.cast():
            fake = generator(torch.randn(len(real), 100, device=run.device))
            on_real, on_fake = discriminator(real), discriminator(fake.detach())
            loss = F.softplus(-on_real.float()).mean() + F.softplus(on_fake.float()).mean()
        descend(optimizer_d, loss)
        plain_d.requires_grad_(False)  # its gradients are not wanted here
        with run.cast():
            loss = F.softplus(-discriminator(fake).float()).mean()
        descend(optimizer_g, loss)
        plain_d.requires_grad_(True)

    def forward(batch: Batch) -> Any:
        real = run.pixels(batch)
        return plain_d(plain_g(torch.zeros(len(real), 100, device=run.device))), plain_d(real)

    return [plain_g, plain_d], forward, step


MAKE: dict[str, Callable[[Run], Made]] = {
    "resnet18": resnet18,
    "fcn_resnet50": fcn_resnet50,
    "songunet": songunet,
    "dit_s2": dit_s2,
    "dcgan": dcgan,
}


def sampler(run: Run, count: int) -> Made:
    """Diffusers' net and scheduler, in the loop of its pipelines; the net is that of jaxgen_steps.sampler."""
    import diffusers  # here, since training steps do not need it

    plain = run.place(
        diffusers.UNet2DModel(
            sample_size=8,
            in_channels=1,
            out_channels=1,
            block_out_channels=(32, 64),
            layers_per_block=1,
            down_block_types=("ResnetDownsampleBlock2D",) * 2,
            up_block_types=("ResnetUpsampleBlock2D",) * 2,
            attention_head_dim=None,  # one head
            norm_num_groups=8,
        )
    ).eval()
    for blocks in (*plain.down_blocks, *plain.up_blocks):  # DDPM++ projects the shortcuts that resample, too
        for block in getattr(blocks, "downsamplers", None) or getattr(blocks, "upsamplers", None) or ():
            block.conv_shortcut = run.place(nn.Conv2d(block.in_channels, block.out_channels, 1))
    net, scheduler = run.compiled(plain), diffusers.EDMEulerScheduler()

    @torch.inference_mode()
    def step(batch: Batch) -> None:
        scheduler.set_timesteps(EVALUATIONS, device=run.device)
        x = torch.randn(count, 1, 8, 8, device=run.device) * scheduler.init_noise_sigma
        for t in scheduler.timesteps:
            with run.cast():
                output = net(scheduler.scale_model_input(x, t), t).sample
            x = scheduler.step(output, t, x).prev_sample
        x.cpu()

    return [plain], lambda batch: plain(torch.zeros(count, 1, 8, 8, device=run.device), 1.0), step


def text_sampler(run: Run, count: int) -> Made:
    """Diffusers' nets and scheduler, in the loop of its pipelines; the nets are those of jaxgen_steps.text_sampler."""
    import diffusers  # here, since training steps need neither
    import transformers

    size, width = 16, 128
    encoder = run.place(
        transformers.CLIPTextModel(
            transformers.CLIPTextConfig(
                vocab_size=2048,
                max_position_embeddings=size,
                hidden_size=width,
                intermediate_size=4 * width,
                num_hidden_layers=2,
                num_attention_heads=4,
                hidden_act="gelu",
                bos_token_id=1,
                eos_token_id=2,
                pad_token_id=0,
            )
        )
    ).eval()
    plain = run.place(
        diffusers.UNet2DConditionModel(
            sample_size=8,
            in_channels=8,
            out_channels=8,
            block_out_channels=(48, 96),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            attention_head_dim=4,  # diffusers takes it for the number of heads
            cross_attention_dim=width,
            norm_num_groups=16,
        )
    ).eval()
    net, scheduler = run.compiled(plain), diffusers.FlowMatchEulerDiscreteScheduler()
    tokens = torch.randint(3, 2048, (count, size), device=run.device)
    nothing = torch.tensor([[1, 2] + [0] * (size - 2)], device=run.device).expand(count, -1)

    @torch.inference_mode()
    def step(batch: Batch) -> None:
        with run.cast():
            text = encoder(torch.cat([nothing, tokens])).last_hidden_state
        scheduler.set_timesteps(EVALUATIONS, device=run.device)
        x = torch.randn(count, 8, 8, 8, device=run.device)
        for t in scheduler.timesteps:
            with run.cast():
                without, given = net(torch.cat([x, x]), t, text).sample.chunk(2)
            x = scheduler.step(without + 3.0 * (given - without), t, x).prev_sample
        x.cpu()

    def forward(batch: Batch) -> Any:
        empty = {"device": run.device}
        return plain(torch.zeros(count, 8, 8, 8, **empty), 1.0, torch.zeros(count, size, width, **empty))

    return [plain, encoder], forward, step


def read_batches(folder: pathlib.Path, device: torch.device) -> Iterator[Batch]:
    """Yield the batches that jaxgen's side wrote: images as [b c h w], ids as int64."""
    for arrays in json.loads((folder / "batches.json").read_text()):
        batch = {}
        for name, (file, dtype, shape) in arrays.items():
            data = bytearray((folder / file).read_bytes())
            rows = torch.frombuffer(data, dtype=getattr(torch, dtype)).reshape(shape)
            batch[name] = (rows.permute(0, 3, 1, 2).contiguous() if name == "image" else rows.long()).to(device)
        yield batch


def _touching(x: list[int], kernel: list[int], *args: Any, out_shape: list[int]) -> int:
    """FLOPs of a convolution without the products with padding, which jaxgen does not count either."""
    _, stride, padding, dilation, transposed = args[:5]
    wide, narrow = (out_shape, x) if transposed else (x, out_shape)  # the side whose every n-th cell the other one is
    pairs = 1
    for i in range(2):
        at = [
            place * stride[i] - padding[i] + tap * dilation[i]
            for place in range(narrow[2 + i])
            for tap in range(kernel[2 + i])
        ]
        pairs *= sum(0 <= p < wide[2 + i] for p in at)
    return 2 * pairs * x[0] * kernel[0] * kernel[1]  # the kernel's channels are those of one group


def forward_flops(forward: Callable[[Batch], Any], batch: Batch) -> int:
    counter = FlopCounterMode(display=False, custom_mapping={torch.ops.aten.convolution: _touching})
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
        forward(batch)
    return counter.get_total_flops()


def workload(name: str, run: Run, folder: pathlib.Path) -> Workload:
    torch._dynamo.reset()
    if name in SAMPLING:
        nets, forward, step = sampler(run, SAMPLING[name])
    elif name in TEXT_SAMPLING:
        nets, forward, step = text_sampler(run, TEXT_SAMPLING[name])
    else:
        nets, forward, step = MAKE[name](run)
    batches = list(read_batches(folder / name, run.device)) if name in MAKE else [{}]

    def numbered(number: int) -> None:
        if run.mode.compiler == "reduce-overhead":
            torch.compiler.cudagraph_mark_step_begin()
        step(batches[number % len(batches)])

    return Workload(
        parameters=sum(p.numel() for net in nets for p in net.parameters()),
        forward_flops=forward_flops(forward, batches[0]),
        step=numbered,
        wait=torch.cuda.synchronize if run.device.type == "cuda" else lambda: None,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path, help="where jaxgen's side wrote the batches")
    parser.add_argument("--mode", choices=MODES, required=True)
    parser.add_argument("--dtype", choices=DTYPES, required=True)
    parser.add_argument("--threads", type=int, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True
    gpu = torch.cuda.is_available()
    run = Run(HOW[args.mode], torch.device("cuda" if gpu else "cpu"), args.dtype)
    name = torch.cuda.get_device_name() if gpu else platform.machine()
    hello = {"platform": "gpu" if gpu else "cpu", "device": name, "versions": f"torch {torch.__version__}"}
    serve(hello, lambda asked: workload(asked, run, args.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
