"""What processes of one run tell each other, and how they wait: words, by way of the first process, and no device.

A collective of devices would do as well, but for its patience: on CPUs it ends after half an hour, and a swarm's part
takes days.
"""

import atexit
import itertools
import threading
import time

import jax

from olmix_jax.errors import UserError
from olmix_jax.progress import log

# Seconds of one look for another's word, so that ctrl-C is heard soon; and between lines that say who is waited for.
LOOK, SAY = 5, 60

_rounds = itertools.count()


def _service():
    """The store of words that the first process keeps for all; None for a process on its own.

    JAX has no public name for it: `jax.distributed` starts and ends it, `multihost_utils` has collectives of devices.
    """
    from jax._src import distributed

    return distributed.global_state.client


def everyones(word: str) -> list[str]:
    """Each process's word, in the order of processes; returns when all have said theirs, however long that takes.

    Raises:
      UserError: the first process cannot be reached any more.
    """
    service, of = _service(), jax.process_count()
    if of == 1:
        return [word]
    place = f"olmix_jax/word/{next(_rounds)}"
    begun = said = time.monotonic()
    try:
        service.key_value_set(f"{place}/{jax.process_index()}", word)
        while missing := sorted(set(range(of)) - set(found := _words(service, place))):
            if time.monotonic() - said >= SAY:
                said = time.monotonic()
                log.info("waiting for process %s, %s", ", ".join(map(str, missing)), _minutes(said - begun))
            _look(service, f"{place}/{missing[0]}")
    except jax.errors.JaxRuntimeError as e:
        why = (str(e).splitlines() or ["no answer"])[0]
        raise UserError(f"the first process cannot be reached any more ({why}); the same command goes on") from e
    return [found[process] for process in range(of)]


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


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return "1 minute" if minutes == 1 else f"{minutes} minutes"


class Signs:
    """This process's signs of life, and a warning of another that gives none.

    It is JAX that ends all after ``patience`` seconds without one, in the middle of whatever they do and in many words;
    so at a quarter of that time a line says which process it is: JAX's own signs come every half, so that its end may
    come half of ``patience`` after a process died. They do not pass through Python, so that a process that is only busy
    is warned of at worst, and not given up.
    """

    def __init__(self, patience: float):
        self.patience, self.count, self.seen, self.warned = patience, 0, {}, set()

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
