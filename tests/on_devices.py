"""Train a toy swarm of 24 members on a given number of CPU devices.

    python -m tests.on_devices DEVICES FOLDER OUT [STEP [PER_DEVICE]]

The script writes checkpoints to FOLDER and the results to the file OUT. A nonzero STEP sends SIGTERM to the process
itself at that step, as a preemption does. PER_DEVICE limits the members that are trained on a device at once. It is a
script because the number of devices of a process is fixed once JAX has started.
"""

import os
import pathlib
import signal
import sys

import jax
import numpy as np

from olmix_jax.proxy import train, waves
from tests import toy


class Preempted(train.Tracker):
    def write(self, step, *more):
        super().write(step, *more)
        if step == int(sys.argv[4]):
            os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    devices, folder, out = int(sys.argv[1]), pathlib.Path(sys.argv[2]), sys.argv[3]
    per_device = int(sys.argv[5]) if len(sys.argv) > 5 else None
    jax.config.update("jax_num_cpu_devices", devices)
    if len(sys.argv) > 4 and int(sys.argv[4]):
        train.Tracker = Preempted
    swarm = toy.make_swarm(members=24, steps=6, seeds=range(24), mapping="shard")
    assert jax.device_count() == devices
    done = waves.train_in_waves(swarm, toy.make_tasks(), folder, "toy", per_device)
    np.savez(out, bpb_KN=done.bpb_KN, loss_KT=done.loss_KT)


if __name__ == "__main__":
    main()
