#!/usr/bin/env bash
# A run on every host of a Cloud TPU slice; the same command goes on where the last one was stopped.
#
#   NAME=swarm ZONE=us-east5-b TYPE=v5litepod-256 launch/cloud_tpu.sh create     # asks for the slice, when it is free
#   NAME=swarm ZONE=us-east5-b launch/cloud_tpu.sh setup                         # this checkout and its requirements
#   NAME=swarm ZONE=us-east5-b launch/cloud_tpu.sh run --config=configs/paper.py --workdir=/mnt/shared/runs/paper
#   NAME=swarm ZONE=us-east5-b launch/cloud_tpu.sh delete
#
# --workdir is on a disk that all hosts mount (Filestore, Cloud Storage FUSE). SPOT=1 asks for spare capacity.
# RUNTIME is the hosts' image, of v5e unless it says otherwise: v2-alpha-tpuv5 of v5p, v2-alpha-tpuv6e of v6e.
set -euo pipefail

case "${1:-}" in
  create|setup|run|delete) ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
: "${NAME:?the name of the slice}" "${ZONE:?its zone}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}"
everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }

case "$1" in
  create)
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
      --accelerator-type="${TYPE:?as v5litepod-256}" --runtime-version="$RUNTIME" ${SPOT:+--spot} ;;
  setup)
    git archive --format=tar.gz --output=/tmp/olmix_jax.tar.gz HEAD
    gcloud compute tpus tpu-vm scp /tmp/olmix_jax.tar.gz "$NAME": --zone="$ZONE" --worker=all
    # The hosts' own Python is too old.
    everywhere "mkdir -p olmix_jax && tar -xzf olmix_jax.tar.gz -C olmix_jax && cd olmix_jax \
      && python3 -m pip install -q --user uv && python3 -m uv venv -q --clear --python 3.12 .venv \
      && python3 -m uv pip install -q --python .venv -r requirements.txt -r requirements-tpu.txt" ;;
  run)
    shift
    everywhere "cd olmix_jax && OLMIX_DISTRIBUTED=auto .venv/bin/python run.py $(printf '%q ' "$@")" ;;
  delete)
    gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force ;;
esac
