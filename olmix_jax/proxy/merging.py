"""A swarm trained in parts, by jobs that know nothing of each other, and put together again (``swarm.part``).

Members are independent, so a part is a swarm of its own: every n-th member. What came of it is one file, and the files
of all parts are the swarm.
"""

import json
import pathlib

import numpy as np

from olmix_jax.config.part import FOLDER, Part, divided, path_of
from olmix_jax.proxy.train import Swarm, Trained
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError


def members(swarm: Swarm, part: Part) -> Swarm:
    """The part's members.

    Raises:
      UserError: it has none.
    """
    chosen = np.arange(part.number - 1, len(swarm.runs), part.of)
    if not len(chosen):
        raise UserError(f"config field `swarm.part`: {len(swarm.runs)} members make no {part.of} parts; ask for fewer")
    return swarm.taken(chosen)


def write(workdir: pathlib.Path, part: Part, swarm: Swarm, tasks, done: Trained, data: str = "") -> None:
    """Writes what came of a part, with what it was trained from; ``data`` is a digest of text and tasks."""
    arrays = {"bpb_KN": done.bpb_KN, "loss_KT": done.loss_KT, "died_K": done.died_K}
    about = {"identity": swarm.identity, "tasks": np.array(tasks, str), "data": data, "info": files.to_json(done.info)}
    with files.atomic_write(path_of(workdir, part), "wb") as f:
        np.savez_compressed(f, **arrays, **{name: np.asarray(value) for name, value in about.items()})


def merged(workdir: pathlib.Path, swarm: Swarm, tasks: tuple[str, ...], data: str = "") -> Trained | None:
    """What came of the whole swarm, from its parts; None where there are none.

    Raises:
      UserError: a part is missing, or one of them is of another swarm.
    """
    of = divided(workdir)
    if of is None:
        return None
    all_parts = [Part(i + 1, of) for i in range(of)]
    lost = [str(part) for part in all_parts if not path_of(workdir, part).is_file()]
    if lost:
        raise UserError(
            f"{workdir / FOLDER}: {len(lost)} of {of} parts are not there yet: {', '.join(lost)}; run them, as "
            f"--stages=train --config.swarm.part={lost[0]}, or delete the parts, there and in train/, to train all here"
        )
    k, bpb_KN, loss_KT, died_K, told = len(swarm.runs), None, None, None, []
    for part in all_parts:
        mine, arrays = (
            slice(part.number - 1, None, of),
            _read(path_of(workdir, part), members(swarm, part), tasks, data),
        )
        if bpb_KN is None:
            bpb_KN, loss_KT = np.empty((k, len(tasks))), np.empty((k, arrays["loss_KT"].shape[1]), np.float32)
            died_K = np.empty(k, int)
        bpb_KN[mine], loss_KT[mine], died_K[mine] = (arrays[name] for name in ("bpb_KN", "loss_KT", "died_K"))
        told.append(json.loads(str(arrays["info"])))
    info = told[0] | {"members": k, "parts": told, "wall_s": max(info["wall_s"] for info in told)}
    info["tokens_per_second"] = sum(info["tokens_per_second"] for info in told)
    return Trained(bpb_KN, loss_KT, died_K, info)


def _read(path: pathlib.Path, swarm: Swarm, tasks: tuple[str, ...], data: str) -> dict:
    """The arrays of a part's file."""
    try:
        with np.load(path, allow_pickle=False) as found:
            arrays = dict(found)
    except (OSError, ValueError, EOFError) as e:
        raise UserError(f"{path}: cannot be read ({e}); delete it and train that part again") from e
    of = str(arrays["identity"]), str(arrays["data"]), tuple(arrays["tasks"].tolist())
    if of != (swarm.identity, data, tasks):
        raise UserError(f"{path}: of another swarm, or scored on other tasks; delete it and train that part again")
    return arrays
