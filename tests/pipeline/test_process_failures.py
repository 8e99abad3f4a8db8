"""pipeline/processes.py: failures of one of several processes. The others are simulated."""

import re
import time

import jax
import pytest

from olmix_jax import config
from olmix_jax.pipeline import launchers, processes
from olmix_jax.proxy import coordination
from olmix_jax.utils.errors import UserError
from tests import fake_store


@pytest.fixture
def make_store(monkeypatch):
    return fake_store.install(monkeypatch)


def test_failure_of_one_process_stops_the_others(make_store):
    store = make_store([(10, 1, "peer"), (10, 3, "peer")])
    store.values |= {"olmix_jax/failed/2": "own", "olmix_jax/failed/3": "peer"}
    with pytest.raises(UserError, match="^stopped because process 2 failed"):
        processes.run_on_all(lambda: None)
    causes = {key[-1]: cause for key, cause in store.values.items() if "failed" in key}
    assert causes == {"0": "peer", "1": "peer", "2": "own", "3": "peer"}


def test_error_is_raised_even_if_it_cannot_be_reported_to_the_others(make_store):
    make_store(lost_at=0)
    with pytest.raises(ZeroDivisionError):
        processes.run_on_all(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("error", "line"),
    [(UserError("x.csv: is bad"), "^process 0: x.csv: is bad$"), (ZeroDivisionError(), "^process 0: Traceback")],
)
def test_failed_process_logs_its_error_before_it_waits(make_store, caplog, error, line):
    def work():
        raise error

    make_store([(130, p, "peer") for p in (1, 2, 3)])
    with caplog.at_level("INFO", logger="olmix_jax"), pytest.raises(type(error)):
        processes.run_on_all(work)
    first, second = [record.getMessage() for record in caplog.records][:2]
    assert re.search(line, first) and "waiting for" in second


def test_process_that_failed_in_lockstep_waits_for_the_others_for_a_minute_only(make_store, monkeypatch):
    """The others may hang in a device collective until this process exits."""
    store, group = make_store(), coordination.ProcessGroup(distributed=True)
    with group.lockstep():
        pass
    with pytest.raises(ZeroDivisionError), group.lockstep():
        processes.run_on_all(lambda: 1 / 0)
    assert 60 <= store.clock[0] <= 70 and store.values == {"olmix_jax/failed/0": "own"}
    with group.lockstep():  # resets the lockstep state, which an error leaves set
        pass


def test_processes_with_different_settings_raise_an_error(make_store, tmp_path):
    make_store([(1, p, "another command's") for p in (1, 2, 3)])
    with pytest.raises(UserError, match="different stages or settings; start all of them with the same"):
        processes.check_shared(config.Config(), tmp_path, ("train",))


def test_long_wait_for_other_processes_to_start_is_logged(monkeypatch, caplog):
    monkeypatch.setattr(launchers, "initialize_arguments", lambda: {})
    monkeypatch.setattr(coordination, "LOG_SECONDS", 0.3)
    monkeypatch.setattr(coordination.log, "propagate", True)

    def initialize(**_):
        deadline = time.monotonic() + 10
        while not caplog.records and time.monotonic() < deadline:
            time.sleep(0.01)
        raise RuntimeError("gone\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(UserError, match=r"cannot join the other processes \(gone\)"):
        processes.start()
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("still waiting for the other processes; check that all")


def test_heartbeat_timeout_must_be_a_number_of_seconds():
    assert processes.heartbeat_timeout({}) == processes.HEARTBEAT
    assert processes.heartbeat_timeout({"OLMIX_HEARTBEAT": "10"}) == 10
    for text in ("abc", "0", "-5", "1.5"):
        with pytest.raises(UserError, match=f"OLMIX_HEARTBEAT must be a number of seconds such as 60, not '{text}'"):
            processes.heartbeat_timeout({"OLMIX_HEARTBEAT": text})
