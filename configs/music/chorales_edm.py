"""Two bars of four-part chorale by diffusion: the same rolls that a GAN learns from, by Bayes' rule and a transformer.

Result: chords 0.67 (independent voices 0.24, test 0.89), pitch classes 0.03 from the training data's (0.12, 0.02),
voices cross at 0.016 of the steps (0.080, 0.008), 0.9 % of its two-beat stretches are Bach's; too many short notes
(distance of lengths 0.33, test 0.04) and parallels (0.61 a bar, 0.34, 0.02), of 128 samples, after 24.4 min on 2 CPU
cores of which it had one (uv run --extra music train.py configs/music/chorales_edm.py); guided by a run of 400 steps
(docs/music.md) chords 0.84, pitch classes 0.04, crossings 0.003, copied 0.09, lengths 0.13, parallels 0.66

Needs the package music21, of the extra `music`.
"""

from configs.music.chorales_gan import chorales
from jaxgen.diffusion.noise_distributions import LogNormal, LowDiscrepancy
from jaxgen.diffusion.path import Edm
from jaxgen.diffusion.predictions import Direct
from jaxgen.diffusion.quantities import X0
from jaxgen.diffusion.sampling import Sampling
from jaxgen.diffusion.sampling_schedules import Rho
from jaxgen.diffusion.stochastic import Ancestral
from jaxgen.experiment import Experiment
from jaxgen.learner import Learner
from jaxgen.models.dit import AXES, DiT
from jaxgen.models.roll_denoiser import RollDenoiser
from jaxgen.nn.positions import Rope
from jaxgen.nn.transformer import RmsNorm
from jaxgen.objectives.diffusion import Diffusion
from jaxgen.optim.ema import HalfLifeEma
from jaxgen.optim.muon import Muon
from jaxgen.optim.optimizer import Adam, Optimizer
from jaxgen.optim.schedules import Cosine


def config() -> Experiment:
    # A token is all that sounds at one step.
    dit = DiT(width=128, depth=6, heads=4, patch=(1, 48), qk_norm=RmsNorm(), rope=Rope(), unroll=6)
    edm = Diffusion(
        net=Learner(
            module=RollDenoiser(backbone=dit),
            optimizer=Optimizer(learning_rate=Cosine(peak=4e-3), method=Muon(axes=AXES, adam=Adam(b2=0.99)), clip=1.0),
            ema=(HalfLifeEma(steps=200.0),),
        ),
        path=Edm(),
        prediction=Direct(quantity=X0()),
        # A note lasts for steps and stands in a chord: it can be made out where the noise is larger than the symbols.
        noise_distribution=LowDiscrepancy(distribution=LogNormal(mean=0.4, std=0.9)),
        # Fresh noise mends what was decided too soon, as symbols are; below 0.3 nothing is left to decide.
        sampling=Sampling(solver=Ancestral(), schedule=Rho(steps=100, sigma_min=0.3, sigma_max=20.0, rho=3.0)),
        side=3,
    )
    return chorales(edm, steps=3000, batch_size=32)
