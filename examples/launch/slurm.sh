#!/usr/bin/env bash
# Train on the GPUs of several nodes under Slurm. From the repository's folder, which all nodes must see, as the run
# folder and the data:
#
#   sbatch examples/launch/slurm.sh configs/diffusion/imagenet256_dit_xl2.py --run-dir /shared/runs/dit
#
# Options before the script's name replace those below: sbatch --nodes=4 --time=8:00:00 examples/launch/slurm.sh …
# To save and stop for good: scancel --signal=INT JOB. A plain scancel may leave the last checkpoint only.

#SBATCH --job-name=jaxgen
#SBATCH --nodes=2
# One task for each GPU of a node. Not --gpus-per-task: it hides the other GPUs from a task, and JAX, which takes the
# one of the task's rank on the node, would look for it in vain.
#SBATCH --ntasks-per-node=8
#SBATCH --gres=gpu:8
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
# Two minutes to save before time is up. The signal goes to the tasks, not to this script.
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append

set -euo pipefail

if (($# == 0)); then
    echo "error: no config; usage: sbatch [OPTION …] examples/launch/slurm.sh CONFIG [--run-dir DIR] [--FIELD VALUE …]" >&2
    exit 2
fi

# Once, for all tasks to find it done.
uv sync --quiet --inexact --extra cuda

# Python itself, not `uv run`: Slurm signals every process of a task, uv would pass its own on, and the second signal
# stops a run without saving. A task that ends first must not take the others down while they save.
status=0
srun --cpus-per-task="${SLURM_CPUS_PER_TASK:-1}" --kill-on-bad-exit=0 .venv/bin/python train.py "$@" || status=$?

# 128 + SIGTERM: saved, and not done. Slurm itself requeues only what it preempts or what a node took down with it.
if ((status == 143)); then
    scontrol requeue "$SLURM_JOB_ID" || echo "not requeued; the same sbatch command goes on from the checkpoint" >&2
fi
exit "$status"
