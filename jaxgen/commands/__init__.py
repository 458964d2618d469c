"""What can be asked, one file a command."""

# What each command is for, and its file in jaxgen/commands; a file is imported when its command is asked for.
COMMANDS = {
    "train": ("train", "train a config: what train.py does"),
    "list": ("listing", "every config, with its result and what that costs"),
    "data": ("data", "what a config reads: examples, sizes, classes, class weights, duplicates"),
    "prepare": ("prepare", "let a config's frozen nets see each example once, and keep what they make of it"),
    "eval": ("evaluate", "evaluate a checkpoint exactly"),
    "sample": ("sample", "draw samples; sample i depends on the seed and on i only"),
    "interpolate": ("interpolate", "go from sample to sample, as rows of images or an animated GIF"),
    "predict": ("predict", "classify, segment or map images of any size"),
    "restore": ("restore", "restore pictures by a diffusion model that never saw the damage"),
    "report": ("report", "one self-contained page on a run, or on several beside each other"),
    "inspect": ("inspect", "step, parameter counts, shardings, digest of the training state"),
    "plan": ("plan", "compile the train step for devices that are not here: memory, speed"),
    "completion": ("completion", "the shell's completion of commands, options, configs and runs"),
    "doctor": ("doctor", "versions, devices, cache, extras; what is missing and how to get it"),
}
