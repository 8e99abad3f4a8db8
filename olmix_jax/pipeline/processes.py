"""Run the stages on several processes: the hosts of a TPU pod, the tasks of a Slurm job, or any that share an address.

Members are independent, so each process trains its part of the swarm on its local devices, without communication. The
first process does everything else and writes all shared files. A model that is sharded over all devices is trained by
all processes together. After each stage all processes agree that it succeeded. They must share the workdir.
"""

import contextlib
import dataclasses
import functools
import os
import pathlib
import threading
import traceback
import uuid
from collections.abc import Callable, Mapping

import jax

from olmix_jax.config import part
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import launchers, lock, runner
from olmix_jax.pipeline.stage import Stage
from olmix_jax.proxy import coordination
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log, warnings_only

# Seconds without a heartbeat after which a process counts as lost, and the run ends. OLMIX_HEARTBEAT overrides it.
HEARTBEAT = 60
# File that shows whether all processes see the same workdir.
SIGN = "hosts.json"


def start() -> None:
    """Join the other processes, if there are any. Call it before JAX looks for devices.

    Raises:
      UserError: the other processes do not answer, or OLMIX_HEARTBEAT is not a number of seconds.
    """
    arguments = launchers.initialize_arguments()
    if arguments is None:
        return
    timeout = heartbeat_timeout()
    # JAX waits silently for five minutes, then ends the process with a long trace.
    message = "still waiting for the other processes; check that all of them run and can reach the first one"
    warning = threading.Timer(coordination.LOG_SECONDS, log.warning, (message,))
    warning.daemon = True
    warning.start()
    try:
        # At the end all processes wait for each other. The wait is short, because one that hangs in a device collective
        # never arrives.
        jax.distributed.initialize(
            **arguments, heartbeat_timeout_seconds=timeout, shutdown_timeout_seconds=max(timeout, HEARTBEAT)
        )
    except (RuntimeError, ValueError) as e:
        raise UserError(
            f"cannot join the other processes ({(str(e).splitlines() or ['no answer'])[0]}); check that all of them "
            "run and can reach the first one's address"
        ) from e
    finally:
        warning.cancel()
    coordination.Heartbeat(timeout).start()


def heartbeat_timeout(environment: Mapping[str, str] = os.environ) -> int:
    """Seconds without a heartbeat after which a process counts as lost."""
    text = environment.get("OLMIX_HEARTBEAT") or str(HEARTBEAT)
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"environment: OLMIX_HEARTBEAT must be a number of seconds such as {HEARTBEAT}, not {text!r}")
    return int(text)


def process_index() -> int:
    """Index of this process, from 0."""
    return jax.process_index()


def run(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """Run the stages on all processes, as :func:`olmix_jax.pipeline.runner.run` does on one.

    A single process resumes the parts of a workdir that several processes started.

    Raises:
      UserError: a stage failed on any process, another run uses the workdir, or the processes do not share it.
    """
    with contextlib.ExitStack() as locks:
        run_on_all(lambda: locks.enter_context(lock.locked(config, workdir)) if process_index() == 0 else None)
        _run_locked(config, workdir, names)


def _run_locked(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    if jax.process_count() == 1 and (config.swarm.part or not (workdir / SIGN).is_file()):
        runner.run(config, workdir, names)
        return
    if config.swarm.part and jax.process_count() > 1:
        raise UserError("config field `swarm.part` is for independent jobs; processes divide the swarm themselves")
    check_shared(config, workdir, names)
    for stage in runner.steps(config, workdir, names):
        if stage.count_models is not None:
            run_on_all(functools.partial(_run_parts, config, workdir, stage))
        run_on_all(functools.partial(_run_stage, config, workdir, stage))


def _run_parts(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Train this process's parts of a stage's models.

    New models are divided into one part per process. A run that resumes keeps its parts.
    """
    assert stage.count_models is not None
    models = stage.count_models(config, workdir)
    # All processes must decide the same, so they decide before any of them writes.
    todo = models and not runner.is_finished(config, workdir, stage)
    if not all(coordination.all_gather("yes" if todo else "")):
        return
    parts = part.count_parts(workdir / stage.name) or min(jax.process_count(), models)
    for k in range(process_index(), parts, jax.process_count()):
        swarm = dataclasses.replace(config.swarm, part=str(part.Part(k + 1, parts)))
        runner.run_stage(dataclasses.replace(config, swarm=swarm), workdir, stage)


def _run_stage(config: Config, workdir: pathlib.Path, stage: Stage) -> None:
    """Run a stage on the first process. The others join in when a model is sharded over all processes."""
    if process_index() == 0:
        runner.run_stage(config, workdir, stage)
        coordination.all_gather("")
        return
    while coordination.all_gather("")[0] == coordination.JOIN and stage.join is not None:
        with warnings_only():
            stage.join(config, workdir)


def run_on_all(work: Callable[[], None]) -> None:
    """Do ``work`` and wait for all processes. A failure of one process is reported to all and stops them."""
    try:
        work()
        coordination.all_gather("")
    # Any error must reach the other processes, or they would wait forever.
    except (Exception, KeyboardInterrupt) as e:
        _log_failure(e)
        with contextlib.suppress(UserError):
            coordination.report_failure(e)
        raise


def _log_failure(error: BaseException) -> None:
    """Log why this process failed. Otherwise the reason would appear only after it has waited for the others."""
    if jax.process_count() > 1 and not isinstance(error, KeyboardInterrupt | coordination.PeerFailed):
        text = str(error) if isinstance(error, UserError) else "".join(traceback.format_exception(error))
        log.error("process %d: %s", process_index(), text)


def check_shared(config: Config, workdir: pathlib.Path, names: tuple[str, ...]) -> None:
    """Raise an error if processes have different workdirs, stages or settings."""
    if len(set(coordination.all_gather(files.digest([config, names])))) > 1:
        raise UserError("processes have different stages or settings; start all of them with the same command")
    sign, path = uuid.uuid4().hex, workdir / SIGN
    if process_index() == 0:
        files.write_json(path, {"sign": sign, "processes": jax.process_count()})
    sign = coordination.all_gather(sign)[0]
    seen = path.is_file() and files.read_json(path).get("sign") == sign
    unshared = [
        str(process) for process, answer in enumerate(coordination.all_gather("seen" if seen else "")) if not answer
    ]
    if unshared:
        raise UserError(
            f"--workdir={workdir}: process {', '.join(unshared)} does not see files of process 0; give a shared folder"
        )
    log.info("hosts: %d processes, %d devices", jax.process_count(), jax.device_count())
