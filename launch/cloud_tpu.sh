#!/usr/bin/env bash
# Run on every host of a Cloud TPU slice. To resume a stopped run, repeat the command `run`.
#
#   NAME=swarm ZONE=us-east5-b TYPE=v5litepod-256 launch/cloud_tpu.sh create     # request a slice
#   NAME=swarm ZONE=us-east5-b launch/cloud_tpu.sh setup                         # copy this checkout, install packages
#   NAME=swarm ZONE=us-east5-b launch/cloud_tpu.sh run --config=configs/paper.py --workdir=/mnt/shared/runs/paper
#   NAME=swarm ZONE=us-east5-b launch/cloud_tpu.sh delete
#
# --workdir must be on a disk that all hosts mount (Filestore, Cloud Storage FUSE). SPOT=1 requests Spot capacity.
# RUNTIME is the image of the hosts. The default is for v5e; set v2-alpha-tpuv5 for v5p, v2-alpha-tpuv6e for v6e.
set -euo pipefail

case "${1:-}" in
  create|setup|run|delete) ;;
  *) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
: "${NAME:?set it to the name of the slice}" "${ZONE:?set it to the zone of the slice}"
RUNTIME="${RUNTIME:-v2-alpha-tpuv5-lite}"
everywhere() { gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$1"; }

case "$1" in
  create)
    gcloud compute tpus queued-resources create "$NAME" --node-id="$NAME" --zone="$ZONE" \
      --accelerator-type="${TYPE:?set it to an accelerator type, such as v5litepod-256}" --runtime-version="$RUNTIME" ${SPOT:+--spot} ;;
  setup)
    git archive --format=tar.gz --output=/tmp/olmix_jax.tar.gz HEAD
    gcloud compute tpus tpu-vm scp /tmp/olmix_jax.tar.gz "$NAME": --zone="$ZONE" --worker=all
    # The Python of the image is too old, so uv installs another.
    everywhere "mkdir -p olmix_jax && tar -xzf olmix_jax.tar.gz -C olmix_jax && cd olmix_jax \
      && python3 -m pip install -q --user uv && python3 -m uv venv -q --clear --python 3.12 .venv \
      && python3 -m uv pip install -q --python .venv -r requirements.txt -r requirements-tpu.txt" ;;
  run)
    shift
    everywhere "cd olmix_jax && OLMIX_DISTRIBUTED=auto .venv/bin/python run.py $(printf '%q ' "$@")" ;;
  delete)
    gcloud compute tpus queued-resources delete "$NAME" --zone="$ZONE" --force ;;
esac
