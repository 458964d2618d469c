"""What people call an option elsewhere, and what it is called in an experiment of jaxgen."""

import difflib
from collections.abc import Mapping, Sequence

# words -> ends of the fields' names that they stand for, the best first, and what to write there
FIELDS: dict[str, tuple[str, ...]] = {
    "lr learning-rate lr0 base-lr max-lr init-lr peak-lr g-lr d-lr alr": (
        "learning-rate.peak", "learning-rate.first", "learning-rate.value",
    ),
    "min-lr final-lr lrf": ("learning-rate.end-factor", "learning-rate.last"),
    "warmup warmup-steps warmup-epochs warmup-iters warmup-ratio": ("learning-rate.warmup",),
    "weight-decay wd decay": ("optimizer.weight-decay",),
    "momentum beta1 b1 adam-beta1 betas": ("optimizer.method.momentum", "optimizer.method.b1"),
    "beta2 b2 adam-beta2": ("optimizer.method.b2", "optimizer.method.b2.first"),
    "eps adam-epsilon": ("optimizer.method.eps",),
    "clip clip-grad grad-clip max-grad-norm gradient-clip-val clip-norm": ("optimizer.clip",),
    "grad-accum accum gradient-accumulation-steps accumulate accumulate-grad-batches accum-steps": (
        "objective.microbatches",
    ),
    "ema ema-decay ema-rate ema-kimg use-ema": ("ema.0.steps", "ema.0.decay", "ema.0.width"),
    "batch b bs batchsize train-batch-size batch-gpu per-device-train-batch-size mini-batch minibatch": ("batch-size",),
    "eval-batch-size val-batch-size test-batch per-device-eval-batch-size val-batch": ("test-batch-size",),
    "max-steps iterations iters iter num-steps max-iter max-iters n-iter niter train-steps max-train-steps total-steps "
    "num-iterations train-iters kimg duration": ("steps",),
    "workers num-workers j dataloader-num-workers n-workers num-proc threads": ("train.workers", "test.workers"),
    "img-size image-size imgsz imgsize size resolution res input-size img crop-size crop": (
        "transforms.0.height", "transforms.0.width", "transforms.0.size", "transforms.1.height", "transforms.1.width",
        "source.height", "source.width",
    ),
    "data data-dir dataset data-path data-root dataset-path root root-dir train-dir datadir dataroot input": (
        "source.path", "source.root", "source.name", "source.images",
    ),
    "split": ("source.split",),
    "num-classes nc classes nb-classes n-classes number-of-classes": ("module.classes",),
    "fp16 amp bf16 dtype precision mixed-precision half float16 bfloat16 tf32 autocast": ("module.dtype bfloat16",),
    "dropout drop drop-rate": ("module.dropout",),
    "width channels dim hidden-size base-channels": ("module.widths", "module.width", "module.model-channels"),
    "depth layers num-layers": ("module.depth", "module.depths", "module.blocks"),
    "latent z-dim zdim nz latent-dim": ("generator.module.latent",),
    "gamma r1 r1-gamma": ("penalties.0.gamma", "penalties.0.gamma.first", "penalties.0.gamma.value"),
    "label-smoothing smoothing": ("objective.smoothing", "loss.smoothing"),
    "class-weights class-weight weights-per-class": ("loss.class-weights",),
    "guidance cfg-scale guidance-scale": ("guidance.scale",),
    "sampling-steps num-inference-steps nfe sample-steps": ("sampling.schedule.steps",),
    "remat gradient-checkpointing grad-checkpointing checkpoint-activations": ("module.remat",),
    "save-every save-freq save-steps save-interval save-period ckpt-every checkpoint-interval ckpt-interval "
    "checkpointing-steps snap snapshot-interval": ("checkpoint-every",),
    "keep-checkpoints save-total-limit max-to-keep keep-last checkpoints-total-limit": ("keep",),
    "log-interval log-freq log-every-n-steps print-freq print-every logging-steps display-freq": ("log-every",),
    "val val-interval eval-interval eval-every eval-steps eval-freq validation-steps val-check-interval val-every "
    "test-every check-val-every-n-epoch": ("evaluate-every",),
    "sample-every sample-interval preview sample-freq image-every vis-freq": ("preview-every",),
    "random-seed manual-seed rng-seed random-state": ("seed",),
    "fsdp shard zero": ("mesh.fsdp",),
    "pretrained weights finetune init init-from checkpoint-init pretrained-model": ("net.weights", "generator.weights"),
}  # fmt: skip

# words -> how it is said here
TEXTS: dict[str, str] = {
    "gpus gpu device devices cuda num-gpus n-gpu n-gpus ngpu accelerator tpu cpu gpu-id gpu-ids": (
        "every device that JAX sees is used: CUDA_VISIBLE_DEVICES=0,1 chooses GPUs, JAX_PLATFORMS=cpu takes the CPU"
    ),
    "nproc world-size rank local-rank nproc-per-node nnodes num-nodes master-addr master-port dist-url distributed "
    "ddp strategy num-processes": "the launcher tells the processes of each other; see examples/launch",
    "resume r resume-from restart continue ckpt checkpoint load auto-resume resume-from-checkpoint load-from "
    "ckpt-path continue-train last": (
        "the same command goes on by itself from the last checkpoint in its run folder; --run-dir says in which"
    ),
    "config cfg c config-file conf yaml": "the config comes first, without a name: CONFIG --field VALUE",
    "output-dir output out o outdir logdir save-dir work-dir log-dir results-dir result-dir exp experiment name "
    "run-name exp-name experiment-name tag project workdir output-path save-path checkpoint-dir ckpt-dir "
    "default-root-dir dir folder run": "--run-dir DIR says where the run is kept; by default runs/NAME-OF-THE-CONFIG",
    "wandb use-wandb wandb-project wandb-name report-to logger log-wandb with-tracking tracker entity": (
        "--log 'WandB(project=\"NAME\")' adds Weights & Biases"
    ),
    "tensorboard tb log-tensorboard": "TensorBoard's events are written into every run folder",
    "augment augmentation transforms aug auto-augment mirror flip xflip hflip": (
        "transforms are objects in the config file, in `train`"
    ),
    "verbose v debug quiet q": "--log-every N says how often a line comes",
    "evaluate eval test eval-only test-only val-only validate": "`jaxgen eval RUN` measures a run",
    "sample generate": "`jaxgen sample RUN` draws samples of a run",
    "predict infer": "`jaxgen predict RUN IMAGE…` maps pictures",
    "compile jit torch-compile": "every step is compiled",
    "help h ? /help /? /h": "--help lists the options",
    "epochs epoch num-epochs max-epochs num-train-epochs n-epochs nepochs": "--epochs N trains, with train.py alone",
    "overwrite force f exist-ok": "give the run a folder of its own with --run-dir, or remove the old one",
    "version": "`jaxgen doctor` tells versions",
}

# words -> what is an object in the config file, and the end of its name
OBJECTS: dict[str, tuple[str, str]] = {
    "model arch net backbone network m architecture model-name": ("the net", "module"),
    "optimizer optim opt": ("the optimizer's rule", "optimizer.method"),
    "scheduler lr-scheduler sched lr-schedule": ("the schedule", "learning-rate"),
    "loss criterion": ("the loss", "objective.loss"),
    "solver sampler": ("the solver", "sampling.solver"),
}

_FIELDS = {word: ends for words, ends in FIELDS.items() for word in words.split()}
_OBJECTS = {word: what for words, what in OBJECTS.items() for word in words.split()}
_TEXTS = {word: text for words, text in TEXTS.items() for word in words.split()}


def unknown(option: str, fields: Mapping[str, str]) -> str:
    """Return what to say to an option that there is not, in one line.

    `fields` are the experiment's by their names on the command line, with the value of each, or the class of an object.
    """
    word = option.partition("=")[0]
    bare = word.lstrip("-").replace("_", "-").lower()
    leaves = [name for name in fields if not any(other.startswith(f"{name}.") for other in fields)]
    if bare in fields:
        inner = [name for name in leaves if name.startswith(f"{bare}.")]
        more = f"; its fields here: {_list(inner[:3])}" if inner else ""
        if not fields[bare].isidentifier():
            return f"--{bare} is {fields[bare]}, in an object that the config file makes; change it there"
        return f"--{bare} holds an object, {fields[bare]}, which the config file changes{more}"
    if bare in _FIELDS:
        ends = [end.split() for end in _FIELDS[bare]]
        known = [" ".join([name, *text]) for end, *text in ends for name in leaves if _ends(name, end)]
        if known:
            return f"unknown option {word}; perhaps you meant {_list(known[:3])}"
        return f"unknown option {word}; this experiment has no {_FIELDS[bare][0]}: see its config file, or --help"
    if bare in _OBJECTS:
        what, end = _OBJECTS[bare]
        here = list(dict.fromkeys(text for name, text in fields.items() if _ends(name, end) and text.isidentifier()))
        return f"unknown option {word}; {what} is an object in the config file{', here ' if here else ''}{_and(here)}"
    if bare in _TEXTS:
        return f"unknown option {word}; {_TEXTS[bare]}"
    near = _nearest(f"--{bare}", leaves)
    return f"unknown option {word}; {f'perhaps you meant {_list(near)}' if near else '--help lists the names'}"


def _ends(name: str, end: str) -> bool:
    """Whether a field's name ends so; a field of the experiment itself is named whole."""
    top = end in ("steps", "batch-size", "seed", "keep")
    return name == end or (not top and name.endswith(f".{end}"))


def _and(names: Sequence[str]) -> str:
    return " and ".join(names)


def _nearest(word: str, fields: Sequence[str]) -> list[str]:
    def likeness(name: str) -> float:
        parts = [f"--{part}" for part in name.split(".")]
        return max(difflib.SequenceMatcher(None, word, text).ratio() for text in (f"--{name}", *parts))

    ordered = sorted(fields, key=lambda name: (-likeness(name), name.count(".")))
    return [name for name in ordered[:2] if likeness(name) > 0.7]


def _list(fields: Sequence[str]) -> str:
    return " or ".join(f"--{name}" for name in fields)
