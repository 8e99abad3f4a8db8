# For the Slurm scripts: runs a command; near the job's time limit, of which Slurm tells by USR1, has it checkpoint and the
# job queued again. What ends for another reason is not; a termination signal is passed on, and Slurm itself queues again
# what it preempts.

until_done() {
  local process="" near="" code
  local told=""
  trap 'near=1 told=1; [[ -z $process ]] || kill -TERM "$process"' USR1
  trap 'told=1; [[ -z $process ]] || kill -TERM "$process"' TERM
  "$@" &
  process=$!
  [[ -z $told ]] || kill -TERM "$process"
  # A signal ends a wait, and not what is waited for.
  while wait "$process" && code=0 || code=$?; kill -0 "$process" 2>/dev/null; do :; done
  if [[ -n $near && $code -ne 0 ]]; then
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}
