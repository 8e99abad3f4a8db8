"""Results of a swarm that is trained in parts by independent jobs (``swarm.part``): written per part, then merged.

Members are independent, so a part is itself a swarm: every n-th member. Each part's results are one file.
"""

import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from olmix_jax.config.part import RESULTS, Part, count_parts, result_path
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.proxy.train_result import TrainInfo, TrainResult, combine
from olmix_jax.utils import files, records
from olmix_jax.utils.errors import UserError


def select(swarm: ProxySwarm, part: Part) -> ProxySwarm:
    """Return the members of a part.

    Raises:
      UserError: the part has no members.
    """
    indices = np.arange(part.number - 1, len(swarm.runs), part.count)
    if not len(indices):
        raise UserError(
            f"config field `swarm.part`: {len(swarm.runs)} members cannot be divided into {part.count} parts; use fewer"
        )
    return swarm.subset(indices)


def write(
    folder: pathlib.Path, part: Part, swarm: ProxySwarm, tasks: tuple[str, ...], result: TrainResult, data: str = ""
) -> None:
    """Write a part's results, together with the identity of what they were trained on.

    Args:
      folder: the folder of the stage, ``train`` or ``validate``.
      part: which part.
      swarm: the part's members.
      tasks: names of the tasks.
      result: what training returned.
      data: digest of domains and tasks.
    """
    along: dict[str, Any] = {} if result.bpb_KPN is None else {"bpb_KPN": result.bpb_KPN}
    with files.atomic_write(result_path(folder, part), "wb") as f:
        np.savez_compressed(
            f,
            bpb_KN=result.bpb_KN,
            loss_KT=result.loss_KT,
            died_K=result.died_K,
            **along,
            identity=np.asarray(swarm.identity),
            tasks=np.array(tasks, str),
            data=np.asarray(data),
            info=np.asarray(files.to_json(records.plain(result.info))),
        )


def merge(folder: pathlib.Path, swarm: ProxySwarm, tasks: tuple[str, ...], data: str = "") -> TrainResult | None:
    """Return the results of the whole swarm from its parts, or None if it was not trained in parts.

    Raises:
      UserError: a part is missing, cannot be read, or belongs to another swarm.
    """
    count = count_parts(folder)
    if count is None:
        return None
    parts = [Part(i + 1, count) for i in range(count)]
    _check_complete(folder, parts)
    members = [np.arange(part.number - 1, len(swarm.runs), count) for part in parts]
    results = [_read(result_path(folder, part), select(swarm, part), tasks, data) for part in parts]
    info = dataclasses.replace(
        results[0].info,
        members=len(swarm.runs),
        tokens_per_second=sum(result.info.tokens_per_second for result in results),
        wall_s=max(result.info.wall_s for result in results),
        parts=tuple(result.info for result in results),
    )
    return combine(results, members, info)


def _check_complete(folder: pathlib.Path, parts: list[Part]) -> None:
    missing = [str(part) for part in parts if not result_path(folder, part).is_file()]
    if missing:
        raise UserError(
            f"{folder / RESULTS}: {len(missing)} of {len(parts)} parts are missing: {', '.join(missing)}. Train them, "
            f"for example with --stages={folder.name} --config.swarm.part={missing[0]}. Or delete {folder} to train "
            "all models in one job"
        )


def _read(path: pathlib.Path, swarm: ProxySwarm, tasks: tuple[str, ...], data: str) -> TrainResult:
    """Read a part's results; ``swarm`` holds the part's members."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
    except (OSError, ValueError, EOFError) as e:
        raise UserError(f"{path}: cannot be read ({e}). Delete it and train that part again") from e
    if (str(arrays["identity"]), str(arrays["data"]), tuple(arrays["tasks"].tolist())) != (swarm.identity, data, tasks):
        raise UserError(
            f"{path}: belongs to another swarm, or was scored on other tasks. Delete it and train that part again"
        )
    info = records.from_plain(TrainInfo, json.loads(str(arrays["info"])))
    return TrainResult(arrays["bpb_KN"], arrays["loss_KT"], arrays["died_K"], info, arrays.get("bpb_KPN"))
