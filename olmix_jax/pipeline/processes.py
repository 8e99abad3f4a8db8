"""One run on several processes: the hosts of a pod, the tasks of a Slurm job, or any with an address in common.

Members are independent, so every process trains parts of the swarm on its own devices (olmix_jax/config/part.py) and
nothing
goes between them meanwhile. The first process does all else, and is the only one that writes what is not a part's; a
model that lies over all devices it trains with all others. After each stage all agree that it went well. The workdir is
one that all of them see.
"""

import contextlib
import dataclasses
import os
import pathlib
import threading
import traceback
import uuid

import jax

from olmix_jax.config import part
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import runner
from olmix_jax.proxy import coordination
from olmix_jax.swarm import table
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log, quiet

PLAIN = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
# Seconds without a sign of life after which a process is given up, and the others with it; OLMIX_HEARTBEAT changes it.
HEARTBEAT = 60
SIGN = "hosts.json"


def expected(environment=os.environ) -> dict | None:
    """What ``jax.distributed.initialize`` is to be given, from the environment; None for a run on its own.

    Several processes are those of JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID; of a Slurm step with
    several tasks; of a Cloud TPU slice with several hosts; or whatever there is, where OLMIX_DISTRIBUTED is "auto". JAX
    finds the addresses of all but the first itself.

    Raises:
      UserError: of the first three some are given, and not all, or they are no numbers.
    """
    given = [name for name in PLAIN if environment.get(name)]
    if given and len(given) < len(PLAIN):
        missing = [name for name in PLAIN if name not in given]
        raise UserError(f"environment: {given[0]} is set, and {', '.join(missing)} not; set all three or none")
    if given:
        address, number, own = (environment[name] for name in PLAIN)
        if not (number.isdecimal() and own.isdecimal() and int(own) < int(number)):
            raise UserError(f"environment: JAX_PROCESS_ID must be less than JAX_NUM_PROCESSES={number}, not {own}")
        return {"coordinator_address": address, "num_processes": int(number), "process_id": int(own)}
    slurm = environment.get("SLURM_STEP_NUM_TASKS", "1")
    hosts = [name for name in environment.get("TPU_WORKER_HOSTNAMES", "").split(",") if name]
    asked = environment.get("OLMIX_DISTRIBUTED") == "auto"
    return {} if asked or (slurm.isdecimal() and int(slurm) > 1) or len(hosts) > 1 else None


def start() -> None:
    """Joins the other processes, if there are any; before JAX looks for devices.

    Raises:
      UserError: they do not answer, or OLMIX_HEARTBEAT is no number of seconds.
    """
    given = expected()
    if given is None:
        return
    patience = _patience()
    # JAX waits five minutes, in silence, and then ends the process in many words.
    said = "still waiting for the other processes; see that all run, and can reach the first one"
    late = threading.Timer(coordination.SAY, log.warning, (said,))
    late.daemon = True
    late.start()
    try:
        # Processes end together; one that cannot, as a device of its waits for one that failed, is not waited for long.
        jax.distributed.initialize(
            **given, heartbeat_timeout_seconds=patience, shutdown_timeout_seconds=max(patience, HEARTBEAT)
        )
    except (RuntimeError, ValueError) as e:
        raise UserError(
            f"cannot join the other processes ({(str(e).splitlines() or ['no answer'])[0]}); see that all of them run, "
            "and that the first one's address can be reached"
        ) from e
    finally:
        late.cancel()
    coordination.Signs(patience).start()


def _patience(environment=os.environ) -> int:
    """Seconds without a sign of life after which a process is given up."""
    text = environment.get("OLMIX_HEARTBEAT") or str(HEARTBEAT)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"environment: OLMIX_HEARTBEAT must be a number of seconds, as {HEARTBEAT}, not {text!r}")
    return int(text)


def number() -> int:
    """This process's, from 0."""
    return jax.process_index()


def run(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """:func:`olmix_jax.pipeline.runner.run` on all processes together; on one alone it is that, but in a workdir that
    several began, whose parts it goes on with.

    Raises:
      UserError: a stage failed, here or elsewhere, or processes see different workdirs.
    """
    if jax.process_count() == 1 and (config.swarm.part or not (workdir / SIGN).is_file()):
        runner.run(config, workdir, names)
        return
    if config.swarm.part and jax.process_count() > 1:
        raise UserError("config field `swarm.part` is for jobs on their own; processes divide the swarm among them")
    _check_shared(config, workdir, names)
    for name in runner.in_order(config, names):
        if name == "train":
            _together(lambda: _own_parts(config, workdir))
        _together(lambda name=name: _stage(config, workdir, name))


def _own_parts(config: Config, workdir: pathlib.Path) -> None:
    """This process's parts: one, or those of a division that an earlier run with other processes made. Of members that
    lie over all devices there are none."""
    mixtures = workdir / "swarm/ratios.csv"
    # An update may need no runs; without mixtures for another reason, the first process says what is missing.
    if not mixtures.is_file() or runner.training("is_large")(config, workdir):
        return
    runs = len(table.read_ratios(mixtures)[0])
    of = part.divided(workdir) or min(jax.process_count(), runs)
    for k in range(number(), of, jax.process_count()):
        own = dataclasses.replace(config.swarm, part=str(part.Part(k + 1, of)))
        mine = dataclasses.replace(config, swarm=own)
        runner.run_stage(mine, workdir, "train")


def _stage(config: Config, workdir: pathlib.Path, name: str) -> None:
    """A stage, which is the first process's; the others join in where it calls them."""
    if number() == 0:
        runner.run_stage(config, workdir, name)
        coordination.everyones("")
        return
    while coordination.everyones("")[0] == coordination.JOIN:
        with quiet():
            runner.training("join")(config, workdir, name)


def _together(work) -> None:
    """Does ``work``, and waits until all have; one that failed is one too many for all."""
    try:
        work()
        coordination.everyones("")
    # Whatever it is, the others must hear of it, or they would wait.
    except (Exception, KeyboardInterrupt) as e:
        _say(e)
        with contextlib.suppress(UserError):
            coordination.fail(e)
        raise


def _say(error: BaseException) -> None:
    """Why this process ends, in its log and before it waits for the others: its screen may not be looked at."""
    if jax.process_count() > 1 and not isinstance(error, KeyboardInterrupt | coordination.Stopped):
        told = isinstance(error, UserError)
        log.error("process %d: %s", number(), error if told else "".join(traceback.format_exception(error)))


def _check_shared(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """Refuses processes that have a workdir each, or that are to do different things."""
    if len(set(coordination.everyones(files.digest([config, names])))) > 1:
        raise UserError("processes were given different stages or settings; start all by the same command")
    sign, path = uuid.uuid4().hex, workdir / SIGN
    if number() == 0:
        files.write_json(path, {"sign": sign, "processes": jax.process_count()})
    sign = coordination.everyones(sign)[0]
    seen = path.is_file() and files.read_json(path).get("sign") == sign
    blind = [str(process) for process, word in enumerate(coordination.everyones("seen" if seen else "")) if not word]
    if blind:
        raise UserError(
            f"--workdir={workdir}: process {', '.join(blind)} does not see what process 0 writes; give a shared folder"
        )
    log.info("hosts: %d processes, %d devices", jax.process_count(), jax.device_count())
