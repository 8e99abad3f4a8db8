"""The content of ``validate/validation.json``: bits per byte (BPB) of new models on each mixture, over seeds."""

import dataclasses
import os

from olmix_jax.utils import records


@dataclasses.dataclass(frozen=True)
class TaskScore:
    """Scores on one task: mean and standard deviation over seeds, and each seed's score [BPB]."""

    mean: float
    std: float
    per_seed: tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class MixtureScore:
    """Scores of the models trained on one mixture.

    Attributes:
      weights: weight of each domain, after rounding to whole sequences.
      bpb_mean, bpb_std: mean and standard deviation of ``per_seed`` [BPB].
      per_seed: mean over tasks for each seed, with the ``task_weights`` of the validation [BPB].
      tasks: scores by task.
    """

    weights: dict[str, float]
    bpb_mean: float
    bpb_std: float
    per_seed: tuple[float, ...]
    tasks: dict[str, TaskScore]

    def check(self) -> None:
        """Check that every task has a score for each seed."""
        if any(len(task.per_seed) != len(self.per_seed) for task in self.tasks.values()):
            raise ValueError("every task must have a score for each seed")


@dataclasses.dataclass(frozen=True)
class Validation:
    """Scores of new models trained on the natural, uniform and proposed mixtures.

    Attributes:
      mixtures: scores by name of the mixture.
      proposal: the proposed weights by domain, before rounding.
      seeds: number of models per mixture.
      steps, tokens: training steps and tokens of one model.
      parameters: parameters of one model, without the input embedding.
      preset: name of the model's preset.
      task_weights: the proposal's weights of these tasks; empty for equal weights.
    """

    SCHEMA = 1

    mixtures: dict[str, MixtureScore]
    proposal: dict[str, float]
    seeds: int
    steps: int
    tokens: int
    parameters: int
    preset: str
    task_weights: dict[str, float] = dataclasses.field(default_factory=dict)

    def check(self) -> None:
        """Check that all mixtures are scored on the same tasks."""
        tasks = {frozenset(score.tasks) for score in self.mixtures.values()}
        if len(tasks) > 1:
            raise ValueError("all mixtures must be scored on the same tasks")

    @classmethod
    def read(cls, path: str | os.PathLike) -> "Validation":
        """Read ``validation.json``.

        Raises:
          UserError: a field is missing or invalid; the message names it.
        """
        return records.read(path, cls, "validate")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``validation.json`` atomically."""
        records.write(path, self)
