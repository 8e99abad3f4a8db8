# Sourced by the Slurm scripts: until_done COMMAND runs a step of the job and requeues the job if it is not done.
#
# Near the time limit Slurm sends SIGTERM to the tasks of the step, but not to this script or to srun (srun would kill the
# tasks). The tasks checkpoint and exit with 130, or with 143 if there is nothing to save. The job is then requeued.
#
# After any other exit code the job is not requeued. If this script also gets SIGTERM, the job is not requeued either:
# it was cancelled, or it was preempted, and Slurm itself requeues preempted jobs.

until_done() {
  local code=0 terminated=""
  trap 'terminated=1' TERM
  "$@" || code=$?
  if [[ ($code -eq 130 || $code -eq 143) && -z $terminated ]]; then
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}
