"""Training a swarm: one program for all members, fed, checkpointed, resumed, scored."""

import contextlib
import dataclasses
import functools
import pathlib
import signal
import threading
import time

import jax
import numpy as np

from olmix_jax.config.schema import Track, Train
from olmix_jax.corpus import tasks as corpus_tasks
from olmix_jax.proxy import coordination, data, model, sharding, state
from olmix_jax.proxy.checkpoint import Checkpoints
from olmix_jax.proxy.tracking import Silent, Tracker
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import Progress, counted, log

# Most of a dispatch, which is finished before a signal to stop is heeded: tokens on the host [bytes], steps, and a
# member's operations. A single step of a model that fills several devices takes seconds.
CHUNK_BYTES, CHUNK_STEPS, CHUNK_FLOPS = 64 << 20, 20, 2e15
# Logits of one block of examples on one device, of all members that it computes together, bytes.
SCORE_BYTES = 64 << 20


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of a swarm.

    Attributes:
      bpb_KN: bits per byte per task, float64; NaN for a member that diverged.
      loss_KT: training loss in nats per token at every step, float32; NaN from the step where a member diverged.
      died_K: the step where a member's loss or gradient was no longer finite; -1 for none.
      info: mapping, devices, sizes and speeds, for people.
    """

    bpb_KN: np.ndarray
    loss_KT: np.ndarray
    died_K: np.ndarray
    info: dict


@dataclasses.dataclass(frozen=True)
class Swarm:
    """A swarm ready to run: one member's code, the members' differences, and the data.

    Attributes:
      stores: token store per domain, in the column order of `runs.counts_KM`.
      share: part of every domain's text that there is for the members.
      width: members that a program is made for, the last repeated; so many waves can share one.
    """

    shape: model.Shape
    vocabulary: int
    length: int
    dtype: str
    train: Train
    runs: data.Runs
    stores: dict
    share: float = 1.0
    width: int = 0
    track: Track = Track()

    @property
    def member(self) -> state.Member:
        return state.member(self.shape, self.vocabulary, self.train, self.dtype)

    @property
    def size(self) -> int:
        """Members, with those that only fill up a program."""
        return max(self.width, len(self.runs))

    @property
    def chunk_steps(self) -> int:
        """Steps in one dispatch; a function of the config alone, so that a resumed run repeats the same program."""
        per_step = self.size * self.train.batch * (self.length + 1) * 4
        in_time = int(CHUNK_FLOPS // (6 * self.member.parameters * self.train.batch * self.length))
        most = min(CHUNK_STEPS, CHUNK_BYTES // per_step, in_time, self.train.checkpoint_every, self.train.steps)
        return max(1, most)

    @property
    def identity(self) -> str:
        """A name for all that decides the members' weights, so that no other swarm's checkpoint is gone on from."""
        sizes = {name: store.sequences(self.length) for name, store in self.stores.items()}
        # How members are computed, and in what pieces, is free to change: sums are in another order, no more.
        trainer = dataclasses.replace(self.train, mapping=None, map_batch=0, micro_batch=None, remat=False)
        # A position in the data counts dispatches.
        how = self.dtype, trainer, self.chunk_steps
        return files.digest([self.shape, self.vocabulary, self.length, *how, self.runs, sizes, self.share])

    def taken(self, k: np.ndarray, width: int = 0) -> "Swarm":
        """The members with indices ``k``, as a swarm of their own."""
        return dataclasses.replace(self, runs=self.runs.taken(k), width=width)

    def chunks(self):
        t = self.train
        return data.chunks(self.runs, self.stores, self.length, t.batch, self.chunk_steps, t.steps, self.share)

    def on_host(self, states):
        """The members' states as NumPy arrays [K, …], without padding."""
        return jax.tree.map(lambda x: sharding.fetched(x)[: len(self.runs)], states)

    def shapes(self, states):
        """Arrays of :meth:`on_host`'s shapes and types that take no memory."""
        return jax.tree.map(lambda x: np.broadcast_to(np.zeros((), x.dtype), (len(self.runs), *x.shape[1:])), states)

    def on_devices(self, states, mapping: str):
        """The inverse of :meth:`on_host`: padded and placed as `mapping` wants them."""
        size = sharding.padded(self.size, mapping)
        return sharding.place(jax.tree.map(lambda x: sharding.pad(np.asarray(x), size), states), mapping)

    def start(self, mapping: str):
        """The members' initial states, placed."""
        size = sharding.padded(self.size, mapping)
        seeds_K = sharding.pad(self.runs.init_seed_K.astype(np.int32), size)
        init = _mapped(_beginning(self.member), mapping, self.train.map_batch)
        return init(None, sharding.place(seeds_K, mapping), None)

    def steps(self, mapping: str):
        """(states_K, tokens of a chunk, n) → (states_K, loss_KT), compiled for all members."""
        mapped = _mapped(self.member.steps, mapping, self.train.map_batch, donate=True)

        def run(states, tokens_KTBL1, n: int):
            size = sharding.padded(self.size, mapping)
            tokens = sharding.place(sharding.pad(tokens_KTBL1, size), mapping)
            return mapped(states, tokens, np.int32(n))

        return run


# One member's functions, and mapped ones, are kept, so that a wave runs the program that the one before compiled.
_mapped = functools.lru_cache(maxsize=8)(sharding.map_members)


@functools.lru_cache(maxsize=8)
def _beginning(member: state.Member):
    return lambda _, seed, __: member.init(jax.random.key(seed))


@functools.lru_cache(maxsize=8)
def _scoring(member: state.Member):
    def score_blocks(params, _, blocks):
        return jax.lax.map(lambda block: member.score(params, *block), blocks)

    return score_blocks


def train(swarm: Swarm, tasks: corpus_tasks.TaskSet, folder: pathlib.Path, what: str) -> Trained:
    """Trains all members to their last step, going on from `folder` where an earlier run of the same swarm stopped.
    Its mapping is one of its own, not `auto`.

    Where a member lies over several processes all call this, of the same swarm and folder, and the first writes.

    Raises:
      KeyboardInterrupt: after a checkpoint, on ctrl-C or a termination signal.
      UserError: the folder cannot be written, a domain is smaller than a sequence, or another process failed.
    """
    mapping = swarm.train.mapping or sharding.default_mapping()
    # Processes that hold a member together go in step: all read, and the first writes.
    company = coordination.Company(sharding.spread(mapping))
    with company.in_step():
        return _train(swarm, tasks, folder, what, mapping, company)


def _train(
    swarm: Swarm, tasks, folder: pathlib.Path, what: str, mapping: str, company: coordination.Company
) -> Trained:
    begun, identity = time.monotonic(), swarm.identity
    if not company.agrees(identity):
        raise UserError(f"{what}: processes have other data or settings; give all the same command, and shared files")
    batches, run, width, total = swarm.chunks(), swarm.steps(mapping), swarm.chunk_steps, swarm.train.steps
    # No step at all compiles the program, and says what that costs.
    none = np.zeros((len(swarm.runs), width, swarm.train.batch, swarm.length + 1), np.int32)
    states, _ = jax.block_until_ready(run(swarm.start(mapping), none, 0))
    compiled = time.monotonic() - begun
    log.info("%s: %s mapped by %s, compiled in %.1f s", what, counted(len(swarm.runs), "member"), mapping, compiled)
    loss_KT = np.zeros((len(swarm.runs), total), np.float32)
    # It begins by clearing away what a kill left half done, which is for one to do.
    begin = functools.partial(Checkpoints, folder / "checkpoints", identity)
    checkpoints = company.led(begin) or begin()
    # Members alone, without those that pad the devices: a run goes on with any number of devices.
    like = {"states": swarm.shapes(states), "loss_KT": loss_KT}
    done, arrays = _restored(checkpoints, company, like, batches)
    if done:
        states = None  # devices may hold them once only
        states, loss_KT = swarm.on_devices(arrays["states"], mapping), np.array(arrays["loss_KT"])
        log.info("%s: going on from step %d of %d", what, done, total)
    del arrays  # as large as the states
    per_step = len(swarm.runs) * swarm.train.batch * swarm.length
    saved, trained = done, time.monotonic()
    tracker = Tracker(folder, swarm.track, what, done) if company.writes else Silent()
    with _heard() as stop, Progress(what, total * per_step, "tokens", done * per_step) as progress:
        while done < total:
            n = min(width, total - done)
            # None may fail when the others wait for it on their devices.
            states, chunk_KT = run(states, company.together(lambda: next(batches)), n)
            loss_KT[:, done : done + n] = sharding.fetched(chunk_KT)[: len(swarm.runs), :n]
            done += n
            progress.advance(n * per_step, _note(loss_KT[:, done - 1]))
            speed = (progress.done - progress.done_at_start) / max(time.monotonic() - trained, 1e-9)
            tracker.write(done, done * swarm.train.batch * swarm.length, loss_KT[:, done - 1], speed)
            stopping = company.anyone(stop.is_set())
            if done - saved >= swarm.train.checkpoint_every or done == total or stopping:
                whole = {"states": swarm.on_host(states), "loss_KT": loss_KT}
                company.led(functools.partial(checkpoints.save, done, whole, batches))
                saved, whole = done, None
            if stopping:
                tracker.close()
                log.info("%s: stopped at step %d of %d; the same command goes on from here", what, done, total)
                raise KeyboardInterrupt
    speed = (progress.done - progress.done_at_start) / max(time.monotonic() - trained, 1e-9)
    tracker.close()
    checkpoints.close()
    bpb_KN, died_K = _outcome(swarm, states.params, loss_KT, tasks, what, mapping)
    info = {
        "mapping": mapping,
        "devices": f"{sharding.at_work(mapping)} × {jax.local_devices()[0].device_kind}",
        "members": len(swarm.runs),
        "parameters": swarm.member.parameters,
        "tokens_per_member": total * swarm.train.batch * swarm.length,
        "tokens_per_second": speed,
        "compile_s": compiled,
        "wall_s": time.monotonic() - begun,
    }
    return Trained(bpb_KN, loss_KT, died_K, info)


def _outcome(swarm: Swarm, params, loss_KT, tasks, what: str, mapping: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores, and the step where a member died."""
    died_K = np.where(np.isnan(loss_KT).any(axis=1), np.isnan(loss_KT).argmax(axis=1), -1)
    bpb_KN = score(swarm, params, tasks, mapping, died_K < 0)
    # The very last step can break a member that all its losses were finite for.
    died_K = np.where((died_K < 0) & np.isnan(bpb_KN).any(axis=1), loss_KT.shape[1] - 1, died_K)
    for k in np.flatnonzero(died_K >= 0):
        log.warning("%s: %s diverged at step %d and is left out of the fit", what, swarm.runs.names[k], died_K[k])
    return bpb_KN, died_K


def _restored(checkpoints: Checkpoints, company: coordination.Company, like, batches):
    """The step that is gone on from, and its arrays; 0 and None for a beginning. Where several read, one chooses."""
    found = company.led(lambda: checkpoints.restore(like, batches))
    step = int(company.told(str(found[0] if found else 0)))
    if step and not company.writes:
        found = step, checkpoints.read(step, like, batches)
    return found or (0, None)


def _note(loss_K: np.ndarray) -> str:
    alive = loss_K[np.isfinite(loss_K)]
    return f"loss {alive.mean():.3f}" if len(alive) else "no member left"


def score(swarm: Swarm, params, tasks: corpus_tasks.TaskSet, mapping: str, alive_K) -> np.ndarray:
    """Bits per byte of every member on every task, float64 [K, N], NaN for the dead; all members in one program."""
    examples, length = tasks.answer_EL.shape
    together = sharding.at_once(swarm.size, mapping, swarm.train.map_batch)
    block = int(np.clip(SCORE_BYTES // (length * swarm.vocabulary * 4 * together), 1, examples))
    blocks = -(-examples // block)
    tokens = sharding.pad(tasks.tokens_EL, blocks * block).reshape(blocks, block, length + 1)
    answers = sharding.pad(tasks.answer_EL, blocks * block).reshape(blocks, block, length)
    scored = _mapped(_scoring(swarm.member), mapping, swarm.train.map_batch)
    nats_KE = sharding.fetched(scored(params, None, (tokens, answers)))
    nats_KE = nats_KE.reshape(len(nats_KE), -1)[: len(swarm.runs), :examples].astype(np.float64)
    bpb_KN = np.full((len(swarm.runs), len(tasks.names)), np.nan)
    for k in np.flatnonzero(alive_K & np.isfinite(nats_KE).all(axis=1)):
        bpb_KN[k] = corpus_tasks.bits_per_byte_N(nats_KE[k], tasks)
    return bpb_KN


@contextlib.contextmanager
def _heard():
    """An event set by ctrl-C or a termination signal. A second ctrl-C stops at once; schedulers send theirs twice."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def hear(number, frame):
        if stop.is_set():
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.set()
        log.warning("stopping after the steps in flight, with a checkpoint; another ctrl-C stops at once")

    before = {s: signal.signal(s, hear) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
