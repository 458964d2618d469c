"""Experiments of earlier versions in today's words: where a class went, and what its fields are called now.

Old names are never given to new things, so a file needs no version number: an old name says that it is old.
"""

from typing import Any

Json = Any

MODULES = {
    "average": "optim.ema",
    "diffusion.grids": "diffusion.sampling_schedules",
    "diffusion.levels": "diffusion.noise_distributions",
    "inference": "supervised.inference",
    "losses": "supervised.losses",
    "measures.distribution": "metrics.distribution",
    "measures.likelihood": "metrics.likelihood",
    "measures.modes": "metrics.modes",
    "objectives.mixing": "supervised.mixing",
    "optim": "optim.optimizer",
}

TYPES = {
    "average:HalfLife": "optim.ema:HalfLifeEma",
    "average:Power": "optim.ema:PowerEma",
    "average:RampedHalfLife": "optim.ema:RampedHalfLifeEma",
    "average:Steady": "optim.ema:ConstantEma",
    "average:Warm": "optim.ema:WarmupEma",
    "diffusion.grids:Uniform": "diffusion.sampling_schedules:UniformTime",
    "diffusion.predictions:Karras": "diffusion.predictions:EdmPreconditioning",
    "diffusion.predictions:Plain": "diffusion.predictions:Direct",
    "diffusion.weighting:Plain": "diffusion.weighting:Unweighted",
    "measures.readback:Readback": "metrics.class_accuracy:ClassAccuracy",
    "measures.triples:Triples": "metrics.stacked_modes:StackedModes",
    "models.cnn:SmallBackbone": "nn.backbones:SmallBackbone",
    "models.dit:Gelu": "nn.transformer:Gelu",
    "models.dit:LayerNorm": "nn.transformer:LayerNorm",
    "models.dit:RmsNorm": "nn.transformer:RmsNorm",
    "models.dit:Rope": "nn.positions:Rope",
    "models.dit:SinCos": "nn.positions:SinCos",
    "models.dit:SwiGlu": "nn.transformer:SwiGlu",
    "models.resnet:BasicBlock": "nn.resnet:BasicBlock",
    "models.resnet:Bottleneck": "nn.resnet:Bottleneck",
    "models.resnet:Stem": "nn.resnet:Stem",
    "models.vgg:VggBackbone": "nn.backbones:VggBackbone",
    "optim:Constant": "optim.schedules:Constant",
    "optim:Cosine": "optim.schedules:Cosine",
    "optim:CosineRamp": "optim.schedules:CosineRamp",
    "optim:InverseSqrt": "optim.schedules:InverseSqrt",
    "optim:Momentum": "optim.optimizer:Sgd",
    "optim:Poly": "optim.schedules:Poly",
}

FIELDS = {  # by today's class: old field -> field
    "diffusion.noise_distributions:LowDiscrepancy": {"levels": "distribution"},
    "diffusion.sampling:Sampling": {"grid": "schedule"},
    "experiment:Experiment": {"measures": "metrics"},
    "objectives.classification:Classification": {"steps": "total_steps"},
    "objectives.diffusion:Diffusion": {
        "steps": "total_steps", "levels": "noise_distribution", "label_dropout": "condition_dropout",
    },
    "objectives.gan:Gan": {"steps": "total_steps"},
    "objectives.segmentation:Segmentation": {"steps": "total_steps"},
    "optim.ema:ConstantEma": {"rate": "decay"},
    "optim.ema:WarmupEma": {"rate": "decay"},
    "optim.optimizer:Optimizer": {
        "rate": "learning_rate", "decay": "weight_decay_mask", "unit": "forced_weight_norm",
        "multipliers": "lr_multipliers",
    },
    "optim.schedules:Constant": {"rate": "value"},
    "optim.schedules:Cosine": {"rate": "peak", "floor": "end_factor"},
    "optim.schedules:InverseSqrt": {"rate": "peak"},
    "optim.schedules:Poly": {"rate": "peak", "floor": "end_factor"},
}  # fmt: skip


def renamed(data: Json) -> Json:
    """Return an encoded experiment, or a part of one, with every old name replaced; data of today stays as it is."""
    if isinstance(data, list):
        return [renamed(item) for item in data]
    if not isinstance(data, dict):
        return data
    fields = {name: renamed(item) for name, item in data.items() if name != "type"}
    package, _, old = data["type"].partition(".")
    if package != "jaxgen":
        return {"type": data["type"], **fields}
    kind = renamed_type(old)
    names = FIELDS.get(kind, {})
    fields = {names.get(name, name): item for name, item in fields.items()}
    return {"type": f"jaxgen.{kind}", **_with_learners(kind, fields)}


def renamed_type(name: str) -> str:
    """Return today's name of a type, both without "jaxgen."."""
    module, _, kind = name.partition(":")
    return TYPES.get(name) or f"{MODULES.get(module, module)}:{kind}"


def _with_learners(kind: str, fields: dict[str, Json]) -> dict[str, Json]:
    """Put nets, optimizers and averages, once fields of their own, into Learners."""
    match kind:
        case "objectives.classification:Classification" | "objectives.segmentation:Segmentation":
            optimizers = {"net": "optimizer"}
        case "objectives.diffusion:Diffusion":
            optimizers = {"net": "optimizer"}
        case "objectives.gan:Gan":
            optimizers = {"generator": "generator_optimizer", "discriminator": "discriminator_optimizer"}
        case _:
            return fields
    averages = fields.pop("averages", [])
    for net, optimizer in optimizers.items():
        if optimizer in fields:
            ema = [] if net == "discriminator" else averages
            learner = {"module": fields.get(net), "optimizer": fields.pop(optimizer), "ema": ema, "weights": None}
            fields[net] = {"type": "jaxgen.learner:Learner", **learner}
    return fields
