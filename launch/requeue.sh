# For the Slurm scripts: runs a step of the job. Near the time limit Slurm tells the step's tasks, and not this script or
# srun (which, told, would kill them); they checkpoint and end with 130, or 143 where there is nothing to keep, and the job
# is queued again. What ends otherwise is not, nor a job that is ended as a whole, of which this script is told too: what
# it preempts Slurm itself queues again.

until_done() {
  local code=0 ended=""
  trap 'ended=1' TERM
  "$@" || code=$?
  if [[ ($code -eq 130 || $code -eq 143) && -z $ended ]]; then
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}
