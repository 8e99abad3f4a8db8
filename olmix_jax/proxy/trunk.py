"""The trunk of a branched swarm: steps that all members share. It is trained once, and every member continues from it.

A trunk is itself a swarm of one member with a constant learning rate after the warm-up. Its last checkpoint holds the
weights, the moments of the optimiser and the losses. Members, called branches, start from copies of that state and
continue every domain's stream where the trunk stopped.
"""

import dataclasses
import pathlib
from typing import Any

import jax
import numpy as np

from olmix_jax.proxy import state
from olmix_jax.proxy.checkpoint import Checkpoints
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Trunk:
    """Where the members of a branched swarm start.

    Attributes:
      folder: folder of the checkpoints.
      identity: identity that the checkpoints belong to.
      steps: steps of the trunk.
      read_M: sequences that it read, in the order of the swarm's domains.
      seed: seed of the document order, which members must have to continue its streams.
    """

    folder: pathlib.Path
    identity: str
    steps: int
    read_M: np.ndarray
    seed: int

    def state(self, member: state.Member) -> state.State:
        """Return the last state as NumPy arrays."""
        shapes = jax.eval_shape(member.init, jax.random.key(0))
        template = jax.tree.map(lambda x: _placeholder((1, *x.shape), x.dtype), shapes)
        return jax.tree.map(lambda x: x[0], self._read({"states": template})["states"])

    def loss_T(self) -> np.ndarray:
        """Return the training loss at every step [nats per token]."""
        return self._read({"loss_KT": _placeholder((1, self.steps), np.dtype(np.float32))})["loss_KT"][0]

    def _read(self, template: dict[str, Any]) -> dict[str, Any]:
        """Read a part of the checkpoint of the last step.

        Raises:
          UserError: there is no such checkpoint, it is damaged, or it belongs to another swarm.
        """
        checkpoints = Checkpoints(self.folder, self.identity)
        try:
            return checkpoints.read(self.steps, template)
        except UserError as e:
            raise UserError(
                f"the trunk's last state in {self.folder} cannot be read: {e}. Or delete {self.folder.parent} and run "
                "--stages=trunk"
            ) from e
        finally:
            checkpoints.close()


def _placeholder(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return an array of this shape and type that takes no memory."""
    return np.broadcast_to(np.zeros((), dtype), shape)
