"""The content of ``validate/validation.json``: BPB of fresh models on each mixture, over several seeds."""

import dataclasses
import os

from olmix_jax.utils import records


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """BPB of one task over seeds: mean, standard deviation and each seed's."""

    mean: float
    std: float
    per_seed: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class MixtureScore:
    """BPB of the models trained on one mixture.

    Attributes:
      weights: the realised mixture by domain.
      bpb_mean, bpb_std: over seeds, of the mean over tasks [BPB].
      per_seed: the mean over tasks of each seed [BPB].
      tasks: each task's.
    """

    weights: dict[str, float]
    bpb_mean: float
    bpb_std: float
    per_seed: tuple[float, ...]
    tasks: dict[str, TaskScore]

    def check(self) -> None:
        if any(len(task.per_seed) != len(self.per_seed) for task in self.tasks.values()):
            raise ValueError("every task must have a score for each seed")


@dataclasses.dataclass(frozen=True)
class Validation:
    """Fresh models on natural, uniform and proposed mixtures.

    Attributes:
      mixtures: scores by name of the mixture.
      proposal: the proposed weights that were validated.
      seeds: models per mixture.
      steps, tokens: training steps and tokens of a model.
      parameters: parameters of a model.
      preset: its preset.
    """

    SCHEMA = 1

    mixtures: dict[str, MixtureScore]
    proposal: dict[str, float]
    seeds: int
    steps: int
    tokens: int
    parameters: int
    preset: str

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Validation":
        """Reads ``validation.json``.

        Raises:
          UserError: the file is not a validation; the message names the field.
        """
        return records.read(path, cls, "validate")

    def write(self, path: str | os.PathLike) -> None:
        """Writes ``validation.json``, whole or not at all."""
        records.write(path, self)
