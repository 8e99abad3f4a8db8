"""Communication between the processes of one run, through the key-value store of the first process.

Collectives of the devices would also work, but they time out: on CPUs after half an hour. Processes may have to wait
for days, until all parts of a swarm are trained.
"""

import atexit
import contextlib
import dataclasses
import itertools
import math
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from olmix_jax.proxy import jax_errors
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

T = TypeVar("T")

# Longest wait for one key [seconds], short so that ctrl-C is handled soon.
POLL_SECONDS = 5
# Time between log lines that name the processes waited for [seconds].
LOG_SECONDS = 60
# Broadcast by the first process to make the others train an FSDP model with it.
JOIN = "join"

_gather_numbers = itertools.count()
_FAILED, _HEARTBEAT = "olmix_jax/failed", "olmix_jax/heartbeat"
# Whether processes run in lockstep. If one fails then, the others may wait for it in a device collective, where Python
# cannot interrupt them.
_in_lockstep = False


class PeerFailed(UserError):
    """Another process failed, so this one stops."""


def key_value_store() -> Any:
    """Return the client of the key-value store that the first process hosts, or None if there is only one process.

    JAX has no public name for it: `jax.distributed` only starts and stops it, and `multihost_utils` uses collectives of
    the devices. Neither has Orbax 0.12: its client is in `orbax.checkpoint._src` and reads the same private name.
    """
    try:
        from jax._src import distributed

        return distributed.global_state.client
    except (ImportError, AttributeError) as e:
        raise UserError(
            f"JAX {jax.__version__} does not offer the key-value store that several processes need ({e}). Install the "
            "version of JAX in requirements.txt"
        ) from e


def all_gather(value: str) -> list[str]:
    """Return the value of every process, in process order. Wait for all processes, without a time limit.

    Raises:
      PeerFailed: another process failed.
      UserError: the first process is unreachable.
    """
    if jax.process_count() == 1:
        return [value]
    number = next(_gather_numbers)
    with _connection() as store:
        values = _gather(store, f"olmix_jax/gather/{number}", value, stop_on_failure=True)
        # All processes have reached this gather, so all have read the previous one.
        if jax.process_index() == 0 and number:
            store.key_value_delete(f"olmix_jax/gather/{number - 1}")
    return [values[process] for process in range(jax.process_count())]


@dataclasses.dataclass(frozen=True)
class ProcessGroup:
    """The processes that train the same members in lockstep, with shared files.

    With ``distributed`` False the group is this process alone, and no method waits. Methods raise what
    :func:`all_gather` and the given functions raise.
    """

    distributed: bool

    @property
    def is_writer(self) -> bool:
        """Whether this process writes the files. The first process does."""
        return not self.distributed or jax.process_index() == 0

    def then_barrier(self, work: Callable[[], T]) -> T:
        """Run ``work`` on every process, wait until all have finished, and return this process's result."""
        result = work()
        self._all_gather("")
        return result

    def on_writer(self, work: Callable[[], T]) -> T | None:
        """Run ``work`` on the writer only; all processes wait. Return its result on the writer, None on the others."""
        return self.then_barrier(lambda: work() if self.is_writer else None)

    def broadcast(self, value: str) -> str:
        """Return the value of the writer."""
        return self._all_gather(value)[0]

    def any(self, value: bool) -> bool:
        """Return whether the value is true on any process."""
        return any(self._all_gather("true" if value else ""))

    def all_equal(self, value: str) -> bool:
        """Return whether the value is the same on all processes."""
        return len(set(self._all_gather(value))) == 1

    @contextlib.contextmanager
    def lockstep(self) -> Iterator[None]:
        """Mark the time in which devices of several processes compute together.

        A process that fails in this time does not wait long for the others (:func:`report_failure`).
        """
        global _in_lockstep
        _in_lockstep = self.distributed
        yield
        # Not reset after an error, because `report_failure` reads it.
        _in_lockstep = False

    def _all_gather(self, value: str) -> list[str]:
        return all_gather(value) if self.distributed else [value]


def report_failure(error: BaseException) -> None:
    """Tell the other processes that this one ends with ``error``, and wait until all others have ended too.

    In lockstep it waits for a minute at most: the others may hang in a device collective until this process exits.

    Raises:
      UserError: the first process is unreachable.
    """
    if jax.process_count() == 1:
        return
    with _connection() as store:
        cause = "peer" if isinstance(error, PeerFailed) else "own"
        _gather(store, _FAILED, cause, stop_on_failure=False, timeout=LOG_SECONDS if _in_lockstep else math.inf)


def _gather(store, folder: str, value: str, stop_on_failure: bool, timeout: float = math.inf) -> dict[int, str]:
    """Publish this process's value under ``folder`` and return the values by process.

    Args:
      stop_on_failure: whether to raise :class:`PeerFailed` once another process has reported a failure.
      timeout: seconds after which the values gathered so far are returned.
    """
    start = last_log = time.monotonic()
    store.key_value_set(f"{folder}/{jax.process_index()}", value)
    while missing := sorted(set(range(jax.process_count())) - set(values := _read_folder(store, folder))):
        if stop_on_failure and (failed := ", ".join(map(str, _failed_processes(store)))):
            raise PeerFailed(
                f"stopped because process {failed} failed; see the output of that process. Run the same command again "
                "to resume"
            )
        now = time.monotonic()
        if now - start >= timeout:
            break
        if now - last_log >= LOG_SECONDS:
            last_log = now
            minutes = counted(round((now - start) / 60), "minute")
            log.info("waiting for process %s, %s so far", ", ".join(map(str, missing)), minutes)
        _poll(store, f"{folder}/{missing[0]}")
    return values


@contextlib.contextmanager
def _connection() -> Iterator[Any]:
    """Yield the key-value store, and turn the loss of the connection into a UserError."""
    try:
        yield key_value_store()
    except jax.errors.JaxRuntimeError as e:
        reason = jax_errors.first_line(e)
        raise UserError(f"the first process is unreachable ({reason}). Run the same command again to resume") from e


def _failed_processes(store) -> list[int]:
    """Return the processes that failed by themselves, not because another one did."""
    return [process for process, cause in sorted(_read_folder(store, _FAILED).items()) if cause == "own"]


def _read_folder(store, folder: str) -> dict[int, str]:
    """Return the values published under a folder so far, by process."""
    return {int(key.rpartition("/")[2]): value for key, value in store.key_value_dir_get(folder)}


def _poll(store, key: str) -> None:
    """Wait for a key, for POLL_SECONDS at most."""
    try:
        store.blocking_key_value_get(key, 1000 * POLL_SECONDS)
    except jax.errors.JaxRuntimeError as e:
        if not jax_errors.is_timeout(e):
            raise


class Heartbeat:
    """Publishes a heartbeat of this process, and logs a warning about others that are silent or failed.

    JAX itself terminates all processes if one gives no heartbeat for ``timeout`` seconds, with a long and unspecific
    message. This class names the silent process earlier, after a quarter of that time: JAX sends its own heartbeats
    every half ``timeout``, so it can terminate as early as ``timeout`` / 2 after a process died. They do not depend on
    Python, so a process that is merely busy may cause a warning here but is not terminated.
    """

    def __init__(self, timeout: float):
        self.timeout = timeout
        self.count = 0
        # By process: its last heartbeat, and when that first appeared [seconds].
        self.last_seen: dict[int, tuple[str, float]] = {}
        self.warned_silent: set[int] = set()
        self.warned_failed: set[int] = set()

    def start(self) -> None:
        """Publish heartbeats on a thread until the process ends."""
        stop = threading.Event()
        thread = threading.Thread(target=self._run, args=(key_value_store(), stop), daemon=True)
        thread.start()

        def finish():
            stop.set()
            thread.join(1)

        # Registered after JAX's own handler, so it runs before JAX closes the connection that the thread uses.
        atexit.register(finish)

    def _run(self, store, stop: threading.Event) -> None:
        while not stop.wait(self.timeout / 12):
            try:
                self.beat(store, time.monotonic())
            except jax.errors.JaxRuntimeError:
                return

    def beat(self, store, now: float) -> None:
        """Publish one heartbeat and check the other processes at time ``now`` [seconds]."""
        self.count += 1
        store.key_value_set(f"{_HEARTBEAT}/{jax.process_index()}", str(self.count), allow_overwrite=True)
        self._warn_failed(store)
        for process, heartbeat in _read_folder(store, _HEARTBEAT).items():
            if self.last_seen.get(process, ("", 0.0))[0] != heartbeat:
                self.last_seen[process] = heartbeat, now
                self.warned_silent.discard(process)
            silent = now - self.last_seen[process][1]
            if silent >= self.timeout / 4 and process not in self.warned_silent:
                self.warned_silent.add(process)
                log.warning(
                    "process %d has sent no heartbeat for %.0f s; after %.0f s all processes end. Run the same command "
                    "again to resume",
                    *(process, silent, self.timeout),
                )

    def _warn_failed(self, store) -> None:
        for process in set(_failed_processes(store)) - self.warned_failed - {jax.process_index()}:
            self.warned_failed.add(process)
            end = "all processes end within two minutes" if _in_lockstep else "this one ends after its current work"
            log.warning("process %d failed, see its output; %s. Run the same command again to resume", process, end)
