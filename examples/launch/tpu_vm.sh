#!/usr/bin/env bash
# Train on every worker of a Cloud TPU VM or pod slice, from your own machine:
#
#   examples/launch/tpu_vm.sh NAME ZONE configs/diffusion/imagenet256_dit_xl2.py --run-dir /mnt/bucket/runs/dit
#
# Each worker needs uv, this repository in ~/jaxgen, and the same mounted bucket (or NFS) for the run folder and the
# data. What the workers print comes back through this connection, so start it where it can stay, such as in tmux.
set -euo pipefail

if (($# < 5)) || [[ $4 != --run-dir ]]; then
    echo "error: usage: $0 NAME ZONE CONFIG --run-dir DIR [--FIELD VALUE …] (DIR: a folder that all workers share)" >&2
    exit 2
fi
name=$1 zone=$2
shift 2

# ssh's shell does not read the profile that puts uv on the path. Python itself, not `uv run`: a VM that is taken away
# signals every process, uv would pass its own on, and the second signal stops a run without saving.
# shellcheck disable=SC2016  # $HOME and $PATH are the worker's
setup='cd jaxgen && PATH=$HOME/.local/bin:$PATH uv sync --quiet --inexact --extra tpu'
exec gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all \
    --command "$setup && exec .venv/bin/python train.py $(printf '%q ' "$@")"
