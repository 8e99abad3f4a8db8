#!/usr/bin/env bash
# One run on all nodes of a Slurm job, a process for each; Slurm says to JAX where the others are.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/paper.py --workdir=/shared/runs/paper
#
# A job that is preempted is queued again, and one that is near its time limit checkpoints first (--signal).
#SBATCH --job-name=olmix_jax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
exec srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" run.py "$@"
