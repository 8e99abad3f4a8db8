"""Training metrics for people and tools: JSON lines always, TensorBoard and Weights & Biases on request."""

import importlib
import json
import pathlib
import uuid
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np

from olmix_jax.config.schema import Track
from olmix_jax.utils import files, os_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import reason_of
from olmix_jax.utils.progress import log


class _Sink(Protocol):
    """A further destination of the metrics, such as TensorBoard."""

    def write(self, step: int, row: dict) -> None: ...

    def close(self) -> None: ...


class Tracker:
    """Writes ``metrics.jsonl`` in ``folder``, one line per dispatch. A resumed run keeps the lines up to its step.

    Every line has ``step``, ``tokens`` (of one member), ``loss`` [nats per token, mean over the members alive],
    ``loss_low`` and ``loss_high`` (extremes over members), ``members`` (number alive) and ``tokens_per_second`` (of all
    members).
    """

    def __init__(self, folder: pathlib.Path, track: Track, label: str, step: int):
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(
            self.path, "".join(line for line in self._complete_lines() if json.loads(line)["step"] <= step)
        )
        self.sinks: list[_Sink] = []
        if track.tensorboard:
            library = _import("tensorboardX", "track.tensorboard")
            # TensorBoard then hides the points of an interrupted run from this step on.
            writer = library.SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)
            self.sinks.append(_TensorBoard(writer))
        if track.wandb:
            wandb = _import("wandb", "track.wandb")
            run = wandb.init(project=track.wandb, name=label, dir=str(folder), id=self._wandb_id(), resume="allow")
            self.sinks.append(_Wandb(run))

    def _wandb_id(self) -> str:
        """Return the run's id at W&B. It is stored in the folder, so that a resumed run continues there."""
        path = self.path.with_name("wandb.json")
        if not path.is_file():
            files.write_json(path, {"id": uuid.uuid4().hex})
        return files.read_json(path)["id"]

    def _complete_lines(self) -> Iterator[str]:
        """Yield the lines of an earlier run, without a last line that is cut off."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("}\n"):
                yield line

    def write(self, step: int, tokens: int, loss_K: np.ndarray, tokens_per_second: float) -> None:
        """Write the metrics of a dispatch that ended with ``step``."""
        alive_K = loss_K[np.isfinite(loss_K)]
        row = {
            "step": step,
            "tokens": tokens,
            "members": len(alive_K),
            "tokens_per_second": round(tokens_per_second, 1),
        }
        if len(alive_K):
            columns = {"loss": alive_K.mean(), "loss_low": alive_K.min(), "loss_high": alive_K.max()}
            row |= {name: round(float(value), 6) for name, value in columns.items()}
        try:
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as e:
            raise UserError(f"cannot write {self.path}: {os_errors.writing(e, self.path)}") from e
        self._to_sinks(lambda sink: sink.write(step, row))

    def close(self) -> None:
        """Flush TensorBoard and W&B."""
        self._to_sinks(lambda sink: sink.close())

    def _to_sinks(self, send: Callable[[_Sink], None]) -> None:
        """Send to every sink. One that fails, for example because the network does, gets no more metrics."""
        for sink in list(self.sinks):
            try:
                send(sink)
            except Exception as e:  # training continues without the optional sink
                self.sinks.remove(sink)
                name = type(sink).__name__.strip("_")
                log.warning("train: %s gets no more metrics: %s; %s has them all", name, reason_of(e), self.path)


class NullTracker:
    """Writes nothing: the tracker of a process that does not write files."""

    def write(self, step: int, tokens: int, loss_K: np.ndarray, tokens_per_second: float) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class _TensorBoard:
    def __init__(self, writer):
        self.writer = writer

    def write(self, step: int, row: dict) -> None:
        for name, value in row.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class _Wandb:
    def __init__(self, run):
        self.run = run

    def write(self, step: int, row: dict) -> None:
        self.run.log(row, step=step)

    def close(self) -> None:
        self.run.finish()


def check_libraries(track: Track) -> None:
    """Raise an error if a tool that progress is sent to is not installed, before text is read."""
    if track.tensorboard:
        _import("tensorboardX", "track.tensorboard")
    if track.wandb:
        _import("wandb", "track.wandb")


def _import(name: str, field: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise UserError(f"config field `{field}` needs {name}: pip install -r requirements-track.txt") from e
