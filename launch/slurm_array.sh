#!/usr/bin/env bash
# A swarm as an array of jobs that know nothing of each other: parts on whatever single machines are free.
#
#   python run.py --config=configs/paper.py --workdir=DIR --stages=prepare,sample
#   sbatch --array=1-16 launch/slurm_array.sh --config=configs/paper.py --workdir=DIR
#   python run.py --config=configs/paper.py --workdir=DIR        # puts the parts together and goes on
#
# A lost part is run again alone: sbatch --array=3 with PARTS=16. DIR is shared by all. A job that is preempted, or two
# minutes from its time limit, checkpoints and is queued again, until it is done.
#SBATCH --job-name=olmix_jax
#SBATCH --requeue
#SBATCH --signal=TERM@120
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"
array="run this with sbatch --array=1-16"
part="${SLURM_ARRAY_TASK_ID:?$array}/${PARTS:-${SLURM_ARRAY_TASK_COUNT:?$array}}"
source launch/requeue.sh
until_done srun --ntasks=1 "${PYTHON:-.venv/bin/python}" run.py "$@" --stages=train --config.swarm.part="$part"
