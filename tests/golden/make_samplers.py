"""Make samplers.npz: what the samplers of k-diffusion and of diffusers return.

    PYTHONPATH=tests python tests/golden/make_samplers.py K_DIFFUSION     (with torch, diffusers 0.42.1)

K_DIFFUSION is the folder that holds the package k_diffusion, of which only sampling.py is run. Both sides share the
starting point, the noise of each step and the denoiser, so that what is compared are the samplers' coefficients. The
test takes these from here, so torch is imported where it is used.
"""

import importlib
import pathlib
import sys
import types

import numpy as np
from golden.weights import array

STEPS = 10
# The mixture of Gaussians that k-diffusion is run on: means, standard deviations, shares.
MIXTURE = (((-1.0, 0.0), (0.5, 0.8), (0.7, -0.9)), (0.3, 0.4, 0.5), (0.25, 0.5, 0.25))
CHURN = 20.0


def points() -> np.ndarray:
    """Noise f64[8 2] of unit variance."""
    return array("samplers points", (8, 2), 1.0).astype(np.float64)


def noise(call: int, shape: tuple[int, ...]) -> np.ndarray:
    """The noise of one call of the net, f64[*shape]."""
    return array(f"samplers noise {call}", shape, 1.0).astype(np.float64)


def picture() -> np.ndarray:
    """The sample of diffusers' scheduler tests, f64[4 3 8 8]: numbers from 0 to 1, in a certain order."""
    return (np.arange(768).reshape(3, 8, 8, 4) / 768).transpose(3, 0, 1, 2).astype(np.float64)


def part(full: np.ndarray) -> np.ndarray:
    """What is kept of a picture, [4 3 2 2]: no pixel knows another."""
    return full[:, :, ::4, ::4]


class Drawn:
    """Hands out the noise of every `stride`-th call, one after the other, in place of a random generator."""

    def __init__(self, stride: int = 1):
        self.calls, self.stride = 0, stride

    def __call__(self, shape):
        import torch

        self.calls += 1
        return torch.from_numpy(noise((self.calls - 1) * self.stride, tuple(shape)))


def k_diffusion(folder: str) -> dict[str, np.ndarray]:
    import torch

    package = types.ModuleType("k_diffusion")
    package.__path__ = [folder + "/k_diffusion"]  # its __init__, which wants much more, is not run
    sys.modules["k_diffusion"] = package
    for name, wanted in (("torchsde", ()), ("torchdiffeq", ("odeint",)), ("k_diffusion.utils", ())):
        stub = types.ModuleType(name)
        for word in wanted:
            setattr(stub, word, None)
        sys.modules[name] = stub
    sys.modules["k_diffusion.utils"].append_dims = lambda x, n: x[(...,) + (None,) * (n - x.ndim)]
    kd = importlib.import_module("k_diffusion.sampling")

    means, stds, shares = (torch.tensor(part, dtype=torch.float64) for part in MIXTURE)

    def denoise(x, sigma):
        total = stds**2 + sigma[:, None] ** 2
        distance = ((x[:, None] - means) ** 2).sum(-1)
        posterior = torch.softmax(shares.log() - total.log() - distance / (2 * total), 1)
        kept = (stds**2 / total)[..., None]
        return (posterior[..., None] * (means + kept * (x[:, None] - means))).sum(1)

    ramp = torch.linspace(0, 1, STEPS, dtype=torch.float64)  # k-diffusion's own function rounds to float32
    karras = (80 ** (1 / 7) + ramp * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    sigmas = torch.cat([karras, karras.new_zeros(1)])
    x = 80.0 * torch.from_numpy(points())

    def drawn(stride=1):
        made = Drawn(stride)
        return lambda *_: made(x.shape)

    quiet = dict(disable=True)
    out = {"kd sigmas": sigmas}
    out["kd euler"] = kd.sample_euler(denoise, x, sigmas, **quiet)
    out["kd heun"] = kd.sample_heun(denoise, x, sigmas, **quiet)
    out["kd dpm2m"] = kd.sample_dpmpp_2m(denoise, x, sigmas, **quiet)
    out["kd dpm2m above"] = kd.sample_dpmpp_2m(denoise, x, sigmas[:-1], **quiet)
    for eta in (0.0, 1.0):
        out[f"kd dpm2m_sde {eta}"] = kd.sample_dpmpp_2m_sde(denoise, x, sigmas, eta=eta, noise_sampler=drawn(), **quiet)
    for eta in (0.5, 1.0):
        out[f"kd ancestral {eta}"] = kd.sample_euler_ancestral(
            denoise, x, sigmas, eta=eta, noise_sampler=drawn(), **quiet
        )
    draw = drawn(2)  # two calls a step, of which the first has noise
    random, torch.randn_like = torch.randn_like, lambda _: draw()
    out["kd heun churn"] = kd.sample_heun(
        denoise, x, sigmas, s_churn=CHURN, s_tmin=0.05, s_tmax=50, s_noise=1.003, **quiet
    )
    torch.randn_like = random
    return {name: value.numpy() for name, value in out.items()}


def diffusers() -> dict[str, np.ndarray]:
    import torch

    sys.modules["torchvision"] = None
    import diffusers as d

    linear = dict(num_train_timesteps=1000, beta_start=1e-4, beta_end=0.02, beta_schedule="linear")
    out = {}

    def record(name, scheduler, **step):
        """Run the loop of diffusers' tests."""
        drawn = Drawn()
        module = sys.modules[type(scheduler).__module__]
        if hasattr(module, "randn_tensor"):
            module.randn_tensor = lambda shape, **_: drawn(shape).float()
        scheduler.set_timesteps(STEPS)
        sample = torch.from_numpy(picture()).float() * scheduler.init_noise_sigma
        sigmas = scheduler.sigmas if hasattr(scheduler, "sigmas") else None
        for t in scheduler.timesteps:
            seen = scheduler.scale_model_input(sample, t)
            sample = scheduler.step(seen * t / (t + 1), t, sample, **step).prev_sample
        out[f"{name} t"] = scheduler.timesteps.double()
        if sigmas is not None:
            out[f"{name} sigmas"] = sigmas.double()
        else:
            signal = scheduler.alphas_cumprod[scheduler.timesteps.long()].double()
            out[f"{name} sigmas"] = torch.cat([((1 - signal) / signal).sqrt(), torch.zeros(1)])
        out[f"{name} scale"] = torch.as_tensor(scheduler.init_noise_sigma).double()
        print(f"{name}: {sample.abs().sum():.4f} {sample.abs().mean():.6f}")
        out[name] = part(sample)

    for spacing in ("leading", "trailing"):
        record(f"ddim {spacing}", d.DDIMScheduler(**linear, clip_sample=False, timestep_spacing=spacing))
    record("ddim v", d.DDIMScheduler(**linear, clip_sample=False, prediction_type="v_prediction"))
    record("ddim eta", d.DDIMScheduler(**linear, clip_sample=False), eta=0.5)
    for kind in ("small", "large"):
        record(f"ddpm {kind}", d.DDPMScheduler(**linear, clip_sample=False, variance_type=f"fixed_{kind}"))
    record("dpm2m", d.DPMSolverMultistepScheduler(**linear))
    record("dpm2m v", d.DPMSolverMultistepScheduler(**linear, prediction_type="v_prediction"))
    record("dpm2m karras", d.DPMSolverMultistepScheduler(**linear, use_karras_sigmas=True))
    record("dpm2m_sde", d.DPMSolverMultistepScheduler(**linear, algorithm_type="sde-dpmsolver++"))
    record("unipc", d.UniPCMultistepScheduler(**linear))
    # Theirs divides by the log of 0 where a step of order 3 ends at 0, and otherwise lowers the order of the last two.
    above = dict(lower_order_final=False, final_sigmas_type="sigma_min")
    record("unipc3", d.UniPCMultistepScheduler(**linear, solver_order=3, **above))
    record("euler", d.EulerDiscreteScheduler(**linear))
    record("euler leading", d.EulerDiscreteScheduler(**linear, timestep_spacing="leading"))
    record("euler karras", d.EulerDiscreteScheduler(**linear, use_karras_sigmas=True))
    record("euler exponential", d.EulerDiscreteScheduler(**linear, use_exponential_sigmas=True))
    record("heun", d.HeunDiscreteScheduler(**linear))
    record("ancestral", d.EulerAncestralDiscreteScheduler(**linear))
    edm = dict(sigma_min=0.002, sigma_max=80.0, sigma_data=0.5)
    record("edm euler", d.EDMEulerScheduler(**edm))
    record("edm dpm2m", d.EDMDPMSolverMultistepScheduler(**edm))
    for spacing in ("leading", "trailing", "linspace"):
        scheduler = d.DDIMScheduler(**linear, timestep_spacing=spacing)
        for steps in (1, 2, 6, 50):
            if spacing != "linspace" or steps > 1:  # theirs is then the time of least noise
                scheduler.set_timesteps(steps)
                out[f"times {spacing} {steps}"] = scheduler.timesteps
    return {name: np.asarray(value) for name, value in out.items()}


def main() -> None:
    # In this order: diffusers asks which packages there are, and would find the stubs.
    found = diffusers() | k_diffusion(sys.argv[1])
    path = pathlib.Path(__file__).parent / "samplers.npz"
    np.savez_compressed(path, **found)
    print(len(found), "arrays,", path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()
