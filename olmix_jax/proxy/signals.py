"""Stop a training loop on ctrl-C or a termination signal."""

import contextlib
import signal
import threading
from collections.abc import Iterator

from olmix_jax.utils.progress import log


@contextlib.contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """Yield an event that ctrl-C or a termination signal sets.

    A second ctrl-C raises KeyboardInterrupt at once. A second termination signal does nothing, because schedulers send
    it twice. Outside the main thread, which alone can receive signals, the event is never set.
    """
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def handle(number, frame):
        if stop.is_set():
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            return
        stop.set()
        log.warning("stopping after the current dispatch, with a checkpoint; press ctrl-C again to stop at once")

    previous = {s: signal.signal(s, handle) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
