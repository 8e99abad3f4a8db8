"""The training loop of a swarm: one program trains all members, with checkpoints, resuming and scoring."""

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.corpus.task_set import TaskSet
from olmix_jax.proxy import coordination, sharding
from olmix_jax.proxy.checkpoint import Checkpoints, Restored
from olmix_jax.proxy.proxy_swarm import ProxySwarm
from olmix_jax.proxy.scoring import score
from olmix_jax.proxy.signals import stop_on_signal
from olmix_jax.proxy.state import State
from olmix_jax.proxy.tracking import NullTracker, Tracker
from olmix_jax.proxy.train_result import TrainInfo, TrainResult
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, counted, log, warnings_only

# After a termination signal, a new checkpoint is written if the one before took less than this [seconds]. Otherwise it
# might not be complete when the process is killed.
GRACE_SECONDS = 60


def train(swarm: ProxySwarm, tasks: TaskSet, folder: pathlib.Path, label: str) -> TrainResult:
    """Train all members to their last step and score them. Resumes from the checkpoints in ``folder``, if any.

    If a member is sharded over several processes, all of them call this with the same swarm and folder. Only the first
    one writes files.

    Args:
      swarm: the members; its mapping must not be `auto`.
      tasks: what the members are scored on.
      folder: receives checkpoints and ``metrics.jsonl``.
      label: names the swarm in log lines.

    Raises:
      KeyboardInterrupt: on ctrl-C or a termination signal, after saving a checkpoint.
      UserError: the folder is not writable, a domain is smaller than a sequence, or another process failed.
    """
    mapping = swarm.train.mapping or sharding.default_mapping()
    # Processes that share a member run in lockstep: all read the data, the first writes.
    group = coordination.ProcessGroup(sharding.spans_processes(mapping))
    with group.lockstep():
        return _train(swarm, tasks, folder, label, mapping, group)


def _train(
    swarm: ProxySwarm,
    tasks: TaskSet,
    folder: pathlib.Path,
    label: str,
    mapping: str,
    group: coordination.ProcessGroup,
) -> TrainResult:
    start, total_steps = time.monotonic(), swarm.train.steps
    if not group.all_equal(swarm.identity):
        raise UserError(
            f"{label}: processes have different data or settings; start all of them with the same command and files"
        )
    train_steps = swarm.steps(mapping)
    run, compile_s = _compile(swarm, tasks, train_steps, mapping, label)
    checkpoints = _open_checkpoints(folder / "checkpoints", swarm.identity, group)
    _resume(run, checkpoints, swarm, mapping, label, group)
    batches, saved_step = swarm.chunks(run.step), run.step

    with stop_on_signal() as stop, _Meter(swarm, folder, label, run.step, group.is_writer) as meter:
        for end in swarm.dispatch_ends(run.step):
            _score_along(swarm, run, tasks, mapping, label)
            n = end - run.step
            # After the barrier, no process can fail to read data while the others wait for it in a device collective.
            tokens_KTBL1 = group.then_barrier(lambda: next(batches))
            run.states, chunk_loss_KT = train_steps(run.states, tokens_KTBL1, n)
            run.add_losses(sharding.to_host(chunk_loss_KT)[: len(swarm.runs), :n])
            meter.write(run)

            stopping = group.any(stop.is_set())
            # A checkpoint that is due while the one before is being written follows later; training continues.
            due = run.step - saved_step >= swarm.train.checkpoint_every and not group.any(checkpoints.busy)
            last = stopping and not group.any(checkpoints.write_seconds > GRACE_SECONDS)
            if due or last or run.step == total_steps:
                arrays = {"states": swarm.on_host(run.states), **{name: x.copy() for name, x in run.metrics.items()}}
                group.on_writer(functools.partial(checkpoints.save, run.step, arrays))
                saved_step = run.step
                del arrays  # as large as the states
            if stopping:
                group.on_writer(checkpoints.close)
                log.info(
                    "%s: stopped at step %d of %d; the same command resumes here", *(label, saved_step, total_steps)
                )
                raise KeyboardInterrupt
        tokens_per_second = meter.tokens_per_second()
    checkpoints.close()

    bpb_KN, died_K = _score(swarm, run, tasks, mapping, label)
    info = TrainInfo(
        mapping=mapping,
        devices=f"{sharding.compute_devices(mapping)} × {jax.local_devices()[0].device_kind}",
        members=len(swarm.runs),
        parameters=swarm.member.parameters,
        tokens_per_member=total_steps * swarm.train.batch * swarm.length,
        trunk_tokens=swarm.first_step * swarm.train.batch * swarm.length,
        tokens_per_second=tokens_per_second,
        compile_s=compile_s,
        wall_s=time.monotonic() - start,
    )
    return TrainResult(bpb_KN, run.loss_KT, died_K, info, run.metrics.get("bpb_KPN"))


def last_params(swarm: ProxySwarm, folder: pathlib.Path):
    """Return the parameters [K, …] of trained members as NumPy arrays, from the checkpoint of their last step.

    Raises:
      UserError: there is no such checkpoint, it is damaged, or it belongs to another swarm.
    """
    shapes = jax.eval_shape(swarm.member.init, jax.random.key(0)).params
    template = jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), (len(swarm.runs), *x.shape)), shapes)
    checkpoints = Checkpoints(folder / "checkpoints", swarm.identity)
    try:
        return checkpoints.read(swarm.train.steps, {"states": {"params": template}})["states"]["params"]
    finally:
        checkpoints.close()


@dataclasses.dataclass
class _RunState:
    """Progress of a run.

    Attributes:
      step: number of steps taken.
      states: the members' states on the devices.
      metrics: what was measured so far: ``loss_KT``, and ``bpb_KPN`` if members are scored along the run.
    """

    step: int
    states: State
    metrics: dict[str, np.ndarray]

    @property
    def loss_KT(self) -> np.ndarray:
        """Losses of all steps."""
        return self.metrics["loss_KT"]

    def add_losses(self, chunk_loss_KT: np.ndarray) -> None:
        """Append the losses of a dispatch, and count its steps."""
        n = chunk_loss_KT.shape[1]
        self.loss_KT[:, self.step : self.step + n] = chunk_loss_KT
        self.step += n

    @property
    def last_loss_K(self) -> np.ndarray:
        """Losses of the latest step."""
        return self.loss_KT[:, self.step - 1]


class _Meter:
    """Reports a run's progress and speed, on the terminal and, if this process writes, in ``metrics.jsonl``."""

    def __init__(self, swarm: ProxySwarm, folder: pathlib.Path, label: str, step: int, is_writer: bool):
        self.tokens_per_step, self.step = swarm.train.batch * swarm.length, step
        self.members, self.start = len(swarm.runs), time.monotonic()
        self.tracker = Tracker(folder, swarm.track, label, step) if is_writer else NullTracker()
        tokens, first = self.members * self.tokens_per_step, swarm.first_step
        self.progress = Progress(label, (swarm.train.steps - first) * tokens, "tokens", (step - first) * tokens)

    def __enter__(self) -> "_Meter":
        self.progress.__enter__()
        return self

    def __exit__(self, *exc) -> None:
        self.tracker.close()
        self.progress.__exit__(*exc)

    def write(self, run: _RunState) -> None:
        """Report the latest dispatch."""
        loss_K = run.last_loss_K
        alive_K = loss_K[np.isfinite(loss_K)]
        note = f"loss {alive_K.mean():.3f}" if len(alive_K) else "no member left"
        self.progress.advance((run.step - self.step) * self.members * self.tokens_per_step, note)
        self.step = run.step
        self.tracker.write(self.step, self.step * self.tokens_per_step, loss_K, self.tokens_per_second())

    def tokens_per_second(self) -> float:
        """Return the tokens of all members per second since this process started training."""
        return (self.progress.done - self.progress.done_at_start) / max(time.monotonic() - self.start, 1e-9)


def _compile(
    swarm: ProxySwarm, tasks: TaskSet, train_steps: Callable, mapping: str, label: str
) -> tuple[_RunState, float]:
    """Compile the training step by taking zero steps. Return the initial states and the compile time [seconds]."""
    start = time.monotonic()
    no_tokens = np.zeros((len(swarm.runs), swarm.chunk_steps, swarm.train.batch, swarm.length + 1), np.int32)
    states, _ = jax.block_until_ready(train_steps(swarm.start(mapping), no_tokens, 0))
    seconds = time.monotonic() - start
    log.info("%s: %s, mapping %s, compiled in %.1f s", label, counted(len(swarm.runs), "member"), mapping, seconds)
    members, points = len(swarm.runs), len(swarm.score_steps)
    metrics = {"loss_KT": np.zeros((members, swarm.train.steps), np.float32)}
    if swarm.trunk is not None:
        metrics["loss_KT"][:, : swarm.first_step] = swarm.trunk.loss_T()
    if points:
        metrics["bpb_KPN"] = np.full((members, points, len(tasks.names)), np.nan)
    return _RunState(swarm.first_step, states, metrics), seconds


def _open_checkpoints(folder: pathlib.Path, identity: str, group: coordination.ProcessGroup) -> Checkpoints:
    """Open the checkpoints, the writer first: opening deletes what a killed process left incomplete."""
    opened = group.on_writer(lambda: Checkpoints(folder, identity))
    return opened if opened is not None else Checkpoints(folder, identity)


def _resume(
    run: _RunState,
    checkpoints: Checkpoints,
    swarm: ProxySwarm,
    mapping: str,
    label: str,
    group: coordination.ProcessGroup,
) -> None:
    """Set ``run`` to the newest intact checkpoint, if there is one."""
    # Checkpoints hold the members without padding, so that a run resumes on any number of devices.
    template = {"states": swarm.host_template(run.states), **run.metrics}
    restored = group.on_writer(lambda: checkpoints.restore(template))
    # The writer chooses the step, and the other processes read the same checkpoint.
    step = int(group.broadcast(str(restored.step if restored else 0)))
    if step == 0:
        return
    if restored is None:
        restored = Restored(step, checkpoints.read(step, template))
    del run.states  # the devices may have room for one copy only
    run.states = swarm.on_devices(restored.arrays["states"], mapping)
    run.step, run.metrics = step, {name: np.array(restored.arrays[name]) for name in run.metrics}
    log.info("%s: resuming from step %d of %d", label, step, swarm.train.steps)


def _score_along(swarm: ProxySwarm, run: _RunState, tasks: TaskSet, mapping: str, label: str) -> None:
    """Score the members if that is due at the present step.

    A checkpoint of this step was saved before, so a run that resumes from it scores here again.
    """
    if run.step not in swarm.score_steps:
        return
    start, alive_K = time.monotonic(), np.isfinite(run.loss_KT[:, : run.step]).all(axis=1)
    with warnings_only():
        bpb_KN = score(swarm, run.states.params, tasks, mapping, alive_K)
    run.metrics["bpb_KPN"][:, swarm.score_steps.index(run.step)] = bpb_KN
    seconds = time.monotonic() - start
    log.info("%s: scored at step %d of %d in %.1f s", label, run.step, swarm.train.steps, seconds)


def _score(
    swarm: ProxySwarm, run: _RunState, tasks: TaskSet, mapping: str, label: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return (bpb_KN, died_K): the members' scores, and the step at which each one diverged or -1."""
    loss_KT = run.loss_KT
    died_K = np.where(np.isnan(loss_KT).any(axis=1), np.isnan(loss_KT).argmax(axis=1), -1)
    bpb_KN = score(swarm, run.states.params, tasks, mapping, died_K < 0)
    # The last update can break a member whose losses were all finite.
    died_K = np.where((died_K < 0) & np.isnan(bpb_KN).any(axis=1), loss_KT.shape[1] - 1, died_K)
    for k in np.flatnonzero(died_K >= 0):
        log.warning("%s: %s diverged at step %d and is left out of the fit", label, swarm.runs.names[k], died_K[k])
    return bpb_KN, died_K
