"""Results of training a swarm, and facts about its trunk."""

import dataclasses
import os
from collections.abc import Sequence

import numpy as np

from olmix_jax.utils import records


@dataclasses.dataclass(frozen=True)
class TrainInfo:
    """Facts about a training run, written to ``train/info.json``.

    Attributes:
      mapping: how members were mapped over devices.
      devices: number and kind of the devices that computed.
      members: number of members.
      parameters: parameters of one member, without the input embedding.
      tokens_per_member: tokens that one member was trained on.
      tokens_per_second: tokens of all members per second.
      compile_s: time to compile the training step [seconds].
      wall_s: wall time [seconds].
      waves: number of waves; None if all members were trained at once.
      parts: facts of each part, if the swarm was trained in parts.
      preset: name of the model in ``PRESETS``.
      trunk_tokens: tokens of ``tokens_per_member`` that all members share, because they continue one trunk.
    """

    mapping: str
    devices: str
    members: int
    parameters: int
    tokens_per_member: int
    tokens_per_second: float
    compile_s: float
    wall_s: float
    waves: int | None = None
    parts: "tuple[TrainInfo, ...]" = ()
    preset: str | None = None
    trunk_tokens: int = 0

    @property
    def own_tokens(self) -> int:
        """Tokens that the members were trained on, without those of the trunk."""
        return self.members * (self.tokens_per_member - self.trunk_tokens)

    @property
    def full_proxies(self) -> float:
        """Cost of the swarm and its trunk, in proxies that are trained from their first step."""
        return (self.own_tokens + self.trunk_tokens) / self.tokens_per_member

    @classmethod
    def read(cls, path: str | os.PathLike) -> "TrainInfo":
        """Read ``train/info.json``.

        Raises:
          UserError: the file does not hold these facts; the message names the field.
        """
        return records.read(path, cls, "train")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``train/info.json`` atomically."""
        records.write(path, self)


@dataclasses.dataclass(frozen=True)
class TrunkInfo:
    """Facts about a trunk, written to ``swarm/trunk/trunk.json``.

    Attributes:
      identity: that of the swarm of one member whose checkpoint holds the state.
      steps: steps of the trunk.
      sequences: sequences that it read, by domain.
      content: hash of each domain's text.
      seed: seed of the document order.
      settings: what runs that continue from it must share with it, as text, by config field.
      bpb: bits per byte after these steps, by task.
      training: how it was trained.
      copied_from: the workdir that it was copied from; empty if it was trained here.
    """

    identity: str
    steps: int
    sequences: dict[str, int]
    content: dict[str, str]
    seed: int
    settings: dict[str, str]
    bpb: dict[str, float]
    training: TrainInfo
    copied_from: str = ""

    @classmethod
    def read(cls, path: str | os.PathLike) -> "TrunkInfo":
        """Read ``trunk.json``.

        Raises:
          UserError: a field is missing or invalid; the message names it.
        """
        return records.read(path, cls, "trunk")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``trunk.json`` atomically."""
        records.write(path, self)


@dataclasses.dataclass(frozen=True)
class TrainResult:
    """The results of training a swarm.

    Attributes:
      bpb_KN: bits per byte per task, float64; NaN for a member that diverged.
      loss_KT: training loss at every step [nats per token], float32; NaN from the step where a member diverged.
      died_K: the step at which a member's loss or gradient was no longer finite, or -1.
      info: mapping, devices, sizes and speed.
      bpb_KPN: bits per byte along the run, at the swarm's ``score_steps``; None if it has none.
    """

    bpb_KN: np.ndarray
    loss_KT: np.ndarray
    died_K: np.ndarray
    info: TrainInfo
    bpb_KPN: np.ndarray | None = None

    @property
    def scores_KPN(self) -> np.ndarray:
        """Bits per byte along the run and, as the last point, at its end."""
        last_K1N = self.bpb_KN[:, None]
        return last_K1N if self.bpb_KPN is None else np.concatenate([self.bpb_KPN, last_K1N], axis=1)


def combine(results: Sequence[TrainResult], members: Sequence[np.ndarray], info: TrainInfo) -> TrainResult:
    """Join the results of groups of members, such as waves or parts, in the order of the whole swarm.

    Args:
      results: one per group.
      members: the group's indices in the swarm, one array per group.
      info: facts about the whole swarm.
    """
    order = np.argsort(np.concatenate(members))
    along = [result.bpb_KPN for result in results if result.bpb_KPN is not None]
    return TrainResult(
        bpb_KN=np.concatenate([result.bpb_KN for result in results])[order],
        loss_KT=np.concatenate([result.loss_KT for result in results])[order],
        died_K=np.concatenate([result.died_K for result in results])[order],
        info=info,
        bpb_KPN=np.concatenate(along)[order] if along else None,
    )
