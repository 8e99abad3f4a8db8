#!/usr/bin/env bash
# A swarm as an array of independent jobs. Each trains a part of the swarm, on whichever machine is free.
#
#   python run.py --config=configs/paper.py --workdir=DIR --stages=prepare,sample        # with swarm.trunk: …,trunk
#   sbatch --array=1-16 launch/slurm_array.sh --config=configs/paper.py --workdir=DIR
#   python run.py --config=configs/paper.py --workdir=DIR        # merge the parts; fit and propose
#
# DIR must be shared by all jobs. To repeat one failed part: PARTS=16 sbatch --array=3 launch/slurm_array.sh ...
# On preemption, and two minutes before its time limit, a job checkpoints and is requeued, until it is done.
#SBATCH --job-name=olmix_jax
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
array="submit this script with sbatch --array=1-16"
part="${SLURM_ARRAY_TASK_ID:?$array}/${PARTS:-${SLURM_ARRAY_TASK_COUNT:?$array}}"
source launch/requeue.sh
until_done srun --ntasks=1 "${PYTHON:-.venv/bin/python}" run.py "$@" --stages=train --config.swarm.part="$part"
