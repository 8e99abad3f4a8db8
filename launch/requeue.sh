# For the Slurm scripts: runs a command; near the job's time limit, of which Slurm tells by USR1, has it checkpoint and the
# job queued again. What ends for another reason is not.

until_done() {
  local process="" near="" code
  trap 'near=1; [[ -z $process ]] || kill -TERM "$process"' USR1
  "$@" &
  process=$!
  [[ -z $near ]] || kill -TERM "$process"
  # A signal ends a wait, and not what is waited for.
  while wait "$process" && code=0 || code=$?; kill -0 "$process" 2>/dev/null; do :; done
  if [[ -n $near && $code -ne 0 ]]; then
    exec scontrol requeue "$SLURM_JOB_ID"
  fi
  exit "$code"
}
