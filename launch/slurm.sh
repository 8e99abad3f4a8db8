#!/usr/bin/env bash
# One run on all nodes of a Slurm job, with one process per node. JAX reads the other nodes' addresses from Slurm.
#
#   sbatch --nodes=4 launch/slurm.sh --config=configs/paper.py --workdir=/shared/runs/paper
#
# On preemption, and two minutes before its time limit, the job checkpoints and is requeued, until it is done.
#SBATCH --job-name=olmix_jax
#SBATCH --ntasks-per-node=1
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
source launch/requeue.sh
until_done srun --kill-on-bad-exit=1 "${PYTHON:-.venv/bin/python}" run.py "$@"
