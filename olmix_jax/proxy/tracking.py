"""Training's progress for people and tools: JSON lines always, TensorBoard and Weights & Biases where asked for."""

import json
import pathlib
import uuid

import numpy as np

from olmix_jax.config.schema import Track
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


class Tracker:
    """Writes ``metrics.jsonl`` in ``folder``: a line per dispatch; a run that goes on keeps those up to its step.

    Every line has ``step``, ``tokens`` (of one member), ``loss`` [nats per token, mean over the members that live],
    ``loss_low``, ``loss_high`` (of single members), ``members`` (that live) and ``tokens_per_second`` (of all).
    """

    def __init__(self, folder: pathlib.Path, track: Track, what: str, done: int):
        self.path = folder / "metrics.jsonl"
        folder.mkdir(parents=True, exist_ok=True)
        files.write_text(self.path, "".join(line for line in self._lines() if json.loads(line)["step"] <= done))
        self.also = []
        if track.tensorboard:
            board = _library("tensorboardX", "track.tensorboard").SummaryWriter(str(folder / "tensorboard"))
            self.also.append(_Board(board))
        if track.wandb:
            wandb = _library("wandb", "track.wandb")
            run = wandb.init(project=track.wandb, name=what, dir=str(folder), id=self._id(), resume="allow")
            self.also.append(_Run(run))

    def _id(self) -> str:
        """By which a run that goes on is the same one there; a folder begun again is another."""
        path = self.path.with_name("wandb.json")
        if not path.is_file():
            files.write_json(path, {"id": uuid.uuid4().hex})
        return files.read_json(path)["id"]

    def _lines(self):
        """Whole lines of an earlier run; one that a kill tore is none."""
        if not self.path.is_file():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines(keepends=True):
            if line.endswith("}\n"):
                yield line

    def write(self, step: int, tokens: int, loss_K: np.ndarray, speed: float) -> None:
        """A dispatch that ended with ``step``."""
        alive_K = loss_K[np.isfinite(loss_K)]
        row = {"step": step, "tokens": tokens, "members": len(alive_K), "tokens_per_second": round(speed, 1)}
        if len(alive_K):
            columns = {"loss": alive_K.mean(), "loss_low": alive_K.min(), "loss_high": alive_K.max()}
            row |= {name: round(float(value), 6) for name, value in columns.items()}
        try:
            with open(self.path, "a", encoding="utf-8") as f:
                f.write(json.dumps(row) + "\n")
        except OSError as e:
            raise UserError(
                f"{self.path} cannot be written: {e.strerror}; free space, then run the same command"
            ) from e
        for other in self.also:
            other.write(step, row)

    def close(self) -> None:
        for other in self.also:
            other.close()


class Silent:
    """The tracker of a process for which another writes."""

    def write(self, step: int, tokens: int, loss_K: np.ndarray, speed: float) -> None:
        pass

    def close(self) -> None:
        pass


class _Board:
    def __init__(self, board):
        self.board = board

    def write(self, step: int, row: dict) -> None:
        for name, value in row.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.board.close()


class _Run:
    def __init__(self, run):
        self.run = run

    def write(self, step: int, row: dict) -> None:
        self.run.log(row, step=step)

    def close(self) -> None:
        self.run.finish()


def _library(name: str, field: str):
    try:
        return __import__(name)
    except ImportError as e:
        raise UserError(f"config field `{field}` takes {name}: pip install -r requirements-track.txt") from e
