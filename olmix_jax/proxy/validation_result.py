"""The content of ``validate/validation.json``: bits per byte (BPB) of new models on each mixture, over seeds."""

import dataclasses
import os

from olmix_jax.proxy.equivalent_compute import EquivalentCompute
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
      curves: ``per_seed`` along the run: for each seed, a value at each of the validation's ``scored_tokens`` [BPB].
    """

    weights: dict[str, float]
    bpb_mean: float
    bpb_std: float
    per_seed: tuple[float, ...]
    tasks: dict[str, TaskScore]
    curves: tuple[tuple[float, ...], ...] = ()

    def check(self) -> None:
        """Check that every task has a score for each seed."""
        if any(len(task.per_seed) != len(self.per_seed) for task in self.tasks.values()):
            raise ValueError("every task must have a score for each seed")
        if self.curves and len(self.curves) != len(self.per_seed):
            raise ValueError("curves must have a row for each seed")


@dataclasses.dataclass(frozen=True)
class Validation:
    """Scores of new models trained on the natural, uniform and proposed mixtures.

    Attributes:
      mixtures: scores by name of the mixture.
      proposal: the proposed weights by domain, before rounding.
      seeds: number of models per mixture; that of uniform may be smaller.
      steps, tokens: training steps and tokens of one model.
      parameters: parameters of one model, without the input embedding.
      preset: name of the model's preset.
      task_weights: the proposal's weights of these tasks; empty for equal weights.
      scored_tokens: tokens of one model after which all models were scored; the last of them are all tokens.
      equivalent_compute: how many times fewer tokens the proposal needs for natural's final BPB; None without both
        mixtures, or in files of earlier versions.
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
    scored_tokens: tuple[int, ...] = ()
    equivalent_compute: EquivalentCompute | None = None

    def check(self) -> None:
        """Check that all mixtures are scored on the same tasks, and after the same numbers of tokens."""
        tasks = {frozenset(score.tasks) for score in self.mixtures.values()}
        if len(tasks) > 1:
            raise ValueError("all mixtures must be scored on the same tasks")
        points = len(self.scored_tokens)
        if any(len(curve) != points for score in self.mixtures.values() for curve in score.curves):
            raise ValueError("curves must have a value for each of scored_tokens")

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
