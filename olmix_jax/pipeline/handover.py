"""Write the proposed mixture in the formats of trainers, to ``propose/handover``."""

import dataclasses
import json
import pathlib
from typing import Any

from olmix_jax.config import yaml_files
from olmix_jax.propose import trainer_formats
from olmix_jax.propose.export import Mixture, TrainerFile
from olmix_jax.propose.proposal_parts import Export
from olmix_jax.utils import files

FOLDER = "propose/handover"


def write(workdir: pathlib.Path, mixture: Mixture) -> dict[str, Export]:
    """Write one file per format, and ``handover.json``, which compares the mixtures that the trainers realise.

    A format that cannot express the mixture is left out with the reason, and its file for an earlier mixture is
    removed.

    Returns:
      {format: the written file}.
    """
    folder, exports, report = workdir / FOLDER, {}, {}
    for name, trainer in trainer_formats.trainer_files(mixture).items():
        if trainer.comparison is None:
            (folder / trainer.file).unlink(missing_ok=True)
            report[name] = {"not_written": trainer.not_written}
            continue
        files.write_text(folder / trainer.file, text(trainer))
        report[name] = {"file": trainer.file, **dataclasses.asdict(trainer.comparison)}
        exports[name] = Export(
            file=f"{FOLDER}/{trainer.file}",
            realised=trainer.comparison.realised,
            largest_error=abs(trainer.comparison.largest_deviation.by),
        )
    weights = {d: mixture.shares.get(d, 0.0) for d in mixture.weights}
    summary: dict[str, Any] = {"weights": weights, "target_tokens": mixture.target or None, "counts": mixture.counts}
    files.write_json(folder / "handover.json", summary | {"formats": report})
    return exports


def text(trainer: TrainerFile) -> str:
    """Return the text of a trainer's file, JSON or YAML by its suffix."""
    if trainer.file.endswith(".json"):
        return json.dumps(trainer.content, indent=1, ensure_ascii=False, allow_nan=False)
    return yaml_files.dumps(trainer.content) if trainer.file.endswith(".yaml") else trainer.content
