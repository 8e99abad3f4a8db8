#!/usr/bin/env bash
# One run on all nodes of a Slurm job, a process for each; Slurm says to JAX where the others are.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/paper.py --workdir=/shared/runs/paper
#
# A job that is preempted, or two minutes from its time limit, checkpoints and is queued again, until it is done.
#SBATCH --job-name=olmix_jax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source launch/requeue.sh
until_done srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" run.py "$@"
