"""Make schedules.npz: beta tables, noised data, v targets and min-SNR weights of diffusers 0.42.1.

    PYTHONPATH=tests python tests/golden/make_schedules.py     (with torch and diffusers)

Its betas are float32; all that follows from them is computed in float64, by its own functions. The test takes times,
data and noise from here, so torch is imported where it is used.
"""

import pathlib
import sys

import numpy as np
from golden.weights import array

TIMES = list(range(0, 1000, 37))  # 37 · 27 is 999: the last time is among them
SCHEDULES = {
    "linear": {"beta_schedule": "linear", "beta_start": 1e-4, "beta_end": 0.02},
    "scaled_linear": {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012},
    "cosine": {"beta_schedule": "squaredcos_cap_v2"},
}
GAMMA = 5.0


def case() -> tuple[np.ndarray, np.ndarray]:
    """Make x0 and eps, f32[len(TIMES) 3]."""
    return array("schedules x0", (len(TIMES), 3), 1.0), array("schedules eps", (len(TIMES), 3), 1.0)


def main() -> None:
    sys.modules["torchvision"] = None  # its operators may be missing for this torch; diffusers then does without it
    import torch
    from diffusers import DDPMScheduler
    from diffusers.schedulers.scheduling_ddpm import rescale_zero_terminal_snr
    from diffusers.training_utils import compute_snr

    times = torch.tensor(TIMES)
    x0, eps = (torch.from_numpy(a).double() for a in case())
    found = {}
    for name, options in SCHEDULES.items():
        for zero in (False, True):
            scheduler = DDPMScheduler(num_train_timesteps=1000, **options)
            # In float32, as the scheduler has it, 1 - alphas_cumprod is off by 4e-3 where the cosine begins.
            betas = scheduler.betas.double()
            betas = rescale_zero_terminal_snr(betas) if zero else betas
            scheduler.alphas_cumprod = torch.cumprod(1 - betas, 0)
            snr = compute_snr(scheduler, times)
            key = f"{name}_zero" if zero else name
            found[f"{key}_alphas_cumprod"] = scheduler.alphas_cumprod[times]
            found[f"{key}_noised"] = scheduler.add_noise(x0, eps, times).float()
            found[f"{key}_v"] = scheduler.get_velocity(x0, eps, times).float()
            # As the training scripts of diffusers have it; at zero terminal SNR the weight of eps is 0 / 0.
            found[f"{key}_min_snr_eps"] = (snr.clamp(max=GAMMA) / snr).float()
            found[f"{key}_min_snr_v"] = (snr.clamp(max=GAMMA) / (snr + 1)).float()
    np.savez_compressed(pathlib.Path(__file__).parent / "schedules.npz", **{k: v.numpy() for k, v in found.items()})


if __name__ == "__main__":
    main()
