"""What processes of one run tell each other, and how they wait: words, by way of the first process, and no device.

A collective of devices would do as well, but for its patience: on CPUs it ends after half an hour, and a swarm's part
takes days.
"""

import atexit
import contextlib
import dataclasses
import itertools
import math
import threading
import time

import jax

from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log

# Seconds of one look for another's word, so that ctrl-C is heard soon; and between lines that say who is waited for.
LOOK, SAY = 5, 60

# The word by which the first process has the others train a model with it.
JOIN = "join"

_rounds = itertools.count()
_FAILED = "olmix_jax/failed"
# Whether a company is in step: then the others may wait for this process on their devices, where they hear nothing.
_in_step = False


class Stopped(UserError):
    """Another process failed."""


def _service():
    """The store of words that the first process keeps for all; None for a process on its own.

    JAX has no public name for it: `jax.distributed` starts and ends it, `multihost_utils` has collectives of devices.
    """
    from jax._src import distributed

    return distributed.global_state.client


def everyones(word: str) -> list[str]:
    """Each process's word, in the order of processes; returns when all have said theirs, however long that takes.

    Raises:
      Stopped: one of them failed instead.
      UserError: the first process cannot be reached any more.
    """
    if jax.process_count() == 1:
        return [word]
    number = next(_rounds)
    with _reached() as service:
        found = _gathered(service, f"olmix_jax/word/{number}", word, heed=True)
        # All have said this one, so all have read the one before.
        if jax.process_index() == 0 and number:
            service.key_value_delete(f"olmix_jax/word/{number - 1}")
    return [found[process] for process in range(jax.process_count())]


@dataclasses.dataclass(frozen=True)
class Company:
    """Processes that do the same in step, with files that they share; unless ``several``, this one, which never waits.

    Its methods raise as :func:`everyones`, and what they are given to do raises.
    """

    several: bool

    @property
    def writes(self) -> bool:
        """Whether it is this process that writes."""
        return not self.several or jax.process_index() == 0

    def together(self, work):
        """What ``work()`` gives, when all have theirs."""
        result = work()
        self._words("")
        return result

    def led(self, work):
        """What ``work()`` gives, which the one that writes does alone; None for the others."""
        return self.together(lambda: work() if self.writes else None)

    def told(self, word: str) -> str:
        """The word of the one that writes."""
        return self._words(word)[0]

    def anyone(self, value: bool) -> bool:
        """Whether it is true of one of them."""
        return any(self._words("true" if value else ""))

    def agrees(self, word: str) -> bool:
        """Whether all have the same."""
        return len(set(self._words(word))) == 1

    @contextlib.contextmanager
    def in_step(self):
        """While devices of several work together; a process that fails then does not wait for the others long."""
        global _in_step
        _in_step = self.several
        yield
        # An error leaves it set, for `fail` to see.
        _in_step = False

    def _words(self, word: str) -> list[str]:
        return everyones(word) if self.several else [word]


def fail(error: BaseException) -> None:
    """Tells that this process ends with ``error``, and waits until all others have come to their end too; a minute at
    most where they go in step, as it is then its end that ends them.

    Raises:
      UserError: the first process cannot be reached any more.
    """
    if jax.process_count() == 1:
        return
    with _reached() as service:
        word = "heard" if isinstance(error, Stopped) else "own"
        _gathered(service, _FAILED, word, heed=False, patience=SAY if _in_step else math.inf)


def _gathered(service, place: str, word: str, heed: bool, patience: float = math.inf) -> dict[int, str]:
    """The words that all processes say at a place, by process; to ``heed`` is to go on no more when one has failed."""
    begun = said = time.monotonic()
    service.key_value_set(f"{place}/{jax.process_index()}", word)
    while missing := sorted(set(range(jax.process_count())) - set(found := _words(service, place))):
        if heed and (failed := ", ".join(map(str, _failed(service)))):
            raise Stopped(f"stopped, as process {failed} did; its output says why, and the same command goes on")
        if time.monotonic() - begun >= patience:
            break
        if time.monotonic() - said >= SAY:
            said = time.monotonic()
            since = counted(round((said - begun) / 60), "minute")
            log.info("waiting for process %s, %s", ", ".join(map(str, missing)), since)
        _look(service, f"{place}/{missing[0]}")
    return found


@contextlib.contextmanager
def _reached():
    """The store, whose loss is a sentence."""
    try:
        yield _service()
    except jax.errors.JaxRuntimeError as e:
        why = (str(e).splitlines() or ["no answer"])[0]
        raise UserError(f"the first process cannot be reached any more ({why}); the same command goes on") from e


def _failed(service) -> list[int]:
    """Processes that failed by themselves, not as another did."""
    return [process for process, why in sorted(_words(service, _FAILED).items()) if why == "own"]


def _words(service, place: str) -> dict[int, str]:
    """What is known so far, by process."""
    return {int(key.rpartition("/")[2]): word for key, word in service.key_value_dir_get(place)}


def _look(service, key: str) -> None:
    """Waits for a word, for a while."""
    try:
        service.blocking_key_value_get(key, 1000 * LOOK)
    except jax.errors.JaxRuntimeError as e:
        if "DEADLINE_EXCEEDED" not in str(e):
            raise


class Signs:
    """This process's signs of life, and a warning of another that gives none, or failed.

    It is JAX that ends all after ``patience`` seconds without one, in the middle of whatever they do and in many words;
    so at a quarter of that time a line says which process it is: JAX's own signs come every half, so that its end may
    come half of ``patience`` after a process died. They do not pass through Python, so that a process that is only busy
    is warned of at worst, and not given up.
    """

    def __init__(self, patience: float):
        self.patience, self.count, self.seen, self.warned, self.failed = patience, 0, {}, set(), set()

    def start(self) -> None:
        """Gives signs, on a thread of its own, until the process ends."""
        stop = threading.Event()
        thread = threading.Thread(target=self._give, args=(_service(), stop), daemon=True)
        thread.start()
        # Before JAX closes what the thread speaks through.
        atexit.register(lambda: (stop.set(), thread.join(1)))

    def _give(self, service, stop: threading.Event) -> None:
        while not stop.wait(self.patience / 12):
            try:
                self.give(service, time.monotonic())
            except jax.errors.JaxRuntimeError:
                return

    def give(self, service, now: float) -> None:
        """One sign, and a look at the others' at ``now`` [seconds]."""
        self.count += 1
        service.key_value_set(f"olmix_jax/alive/{jax.process_index()}", str(self.count), allow_overwrite=True)
        for process in set(_failed(service)) - self.failed - {jax.process_index()}:
            then = "all end within two minutes" if _in_step else "this one ends after what it does now"
            log.warning("process %d has failed, its output says why; %s, and the same command goes on", process, then)
            self.failed.add(process)
        for process, sign in _words(service, "olmix_jax/alive").items():
            if self.seen.get(process, ("", 0.0))[0] != sign:
                self.seen[process] = sign, now
                self.warned.discard(process)
            silent = now - self.seen[process][1]
            if silent >= self.patience / 4 and process not in self.warned:
                self.warned.add(process)
                log.warning(
                    "process %d has given no sign of life for %.0f s; if it is lost, all end after %.0f s, and the "
                    "same command goes on",
                    process,
                    silent,
                    self.patience,
                )
