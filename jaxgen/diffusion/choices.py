"""The solvers, sampling schedules and guidances that can be chosen by name on the command line."""

from jaxgen.diffusion.adaptive import Adaptive
from jaxgen.diffusion.apg import Apg
from jaxgen.diffusion.cads import Cads
from jaxgen.diffusion.consistency import Multistep
from jaxgen.diffusion.flow import FlowHeun, FlowMidpoint
from jaxgen.diffusion.guidance import Autoguidance, ClassifierFree, Unguided
from jaxgen.diffusion.multistep import Dpm2M, Dpm2MSde, Dpm3M, UniPc
from jaxgen.diffusion.sampling_schedules import Exponential, Given, Leading, Linspace, Rho, Trailing, UniformTime
from jaxgen.diffusion.solvers import Euler, Heun
from jaxgen.diffusion.stochastic import Ancestral, Ddim, EulerMaruyama

SOLVERS: dict[str, type] = {
    "Adaptive": Adaptive,
    "Ancestral": Ancestral,
    "Ddim": Ddim,
    "Dpm2M": Dpm2M,
    "Dpm2MSde": Dpm2MSde,
    "Dpm3M": Dpm3M,
    "Euler": Euler,
    "EulerMaruyama": EulerMaruyama,
    "FlowHeun": FlowHeun,
    "FlowMidpoint": FlowMidpoint,
    "Heun": Heun,
    "Multistep": Multistep,
    "UniPc": UniPc,
}
SCHEDULES: dict[str, type] = {
    "Exponential": Exponential,
    "Given": Given,
    "Leading": Leading,
    "Linspace": Linspace,
    "Rho": Rho,
    "Trailing": Trailing,
    "UniformTime": UniformTime,
}
GUIDANCE: dict[str, type] = {
    "Apg": Apg,
    "Autoguidance": Autoguidance,
    "Cads": Cads,
    "ClassifierFree": ClassifierFree,
    "Unguided": Unguided,
}
