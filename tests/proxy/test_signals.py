"""proxy/signals.py: what ctrl-C and termination signals do to a training loop."""

import os
import signal
import threading

import pytest

from olmix_jax.proxy.signals import stop_on_signal


def test_second_ctrl_c_stops_at_once_and_second_termination_signal_does_not():
    handler = signal.getsignal(signal.SIGINT)
    with stop_on_signal() as stop:
        assert not stop.is_set()
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_set()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler


def test_outside_the_main_thread_handlers_stay_unchanged():
    handler, handlers = signal.getsignal(signal.SIGINT), []

    def work():
        with stop_on_signal() as stop:
            handlers.append((signal.getsignal(signal.SIGINT), stop.is_set()))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert handlers == [(handler, False)]
