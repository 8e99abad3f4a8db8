"""rendezvous.py: how processes wait for each other; the processes themselves are in tests/test_hosts.py."""

import re
import time

import jax
import pytest

from olmix_jax import config
from olmix_jax.pipeline import processes
from olmix_jax.proxy import coordination
from olmix_jax.utils.errors import UserError


class Store:
    """Words as the first process keeps them; ``arrivals`` are what others say: (second, process, word)."""

    def __init__(self, arrivals, clock, lost_at):
        self.words, self.arrivals, self.clock, self.lost_at = {}, list(arrivals), clock, lost_at

    def key_value_set(self, key, word, allow_overwrite=False):
        assert allow_overwrite or key not in self.words
        self.words[key] = word

    def key_value_dir_get(self, place):
        return [(key, word) for key, word in self.words.items() if key.startswith(place + "/")]

    def key_value_delete(self, place):
        self.words = {key: word for key, word in self.words.items() if not key.startswith(place + "/")}

    def blocking_key_value_get(self, key, milliseconds):
        self.clock[0] += milliseconds / 1000
        if self.lost_at is not None and self.clock[0] >= self.lost_at:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: failed to connect\nmore")
        if self.arrivals and self.arrivals[0][0] <= self.clock[0]:
            _, process, word = self.arrivals.pop(0)
            self.words[f"{key.rpartition('/')[0]}/{process}"] = word
        if key not in self.words:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: timed out")
        return self.words[key]


@pytest.fixture
def several(monkeypatch):
    """Process 0 of four, with a clock that only looking moves."""
    clock = [0.0]
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(coordination.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(coordination.log, "propagate", True)

    def with_store(arrivals=(), lost_at=None):
        store = Store(arrivals, clock, lost_at)
        monkeypatch.setattr(coordination, "_service", lambda: store)
        return store

    return with_store


def test_a_slow_process_is_waited_for_and_named(several, caplog):
    """Two hours, which is longer than a collective's patience; who it is, and since when."""
    several([(1, 1, "b"), (1, 2, "c"), (7200, 3, "d")])
    with caplog.at_level("INFO", logger="olmix_jax"):
        assert coordination.everyones("a") == ["a", "b", "c", "d"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "waiting for process 3, 1 minute" and "waiting for process 3, 5 minutes" in lines
    assert len(lines) == pytest.approx(120, abs=2)


def test_words_of_one_wait_are_not_those_of_the_next(several):
    several([(1, p, "x") for p in (1, 2, 3)] + [(100, p, "y") for p in (1, 2, 3)])
    assert coordination.everyones("x") == ["x"] * 4 and coordination.everyones("y") == ["y"] * 4


def test_a_first_process_that_is_gone_is_no_endless_wait(several):
    several(lost_at=20)
    with pytest.raises(UserError, match=r"first process cannot be reached any more \(UNAVAILABLE: failed"):
        coordination.everyones("a")


def test_one_that_failed_is_one_too_many_for_all(several):
    """Wherever the others wait for it, and not those that failed because it did."""
    store = several([(10, 1, "heard"), (10, 3, "heard")])
    store.words |= {"olmix_jax/failed/2": "own", "olmix_jax/failed/3": "heard"}
    with pytest.raises(UserError, match="^stopped, as process 2 did; its output says why"):
        processes.together(lambda: None)
    assert {key[-1]: word for key, word in store.words.items() if "failed" in key} == dict(
        zip("0123", ("heard", "heard", "own", "heard"))
    )
    # Its own reason is not lost, not even where the others cannot be told.
    several(lost_at=0)
    with pytest.raises(ZeroDivisionError):
        processes.together(lambda: 1 / 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [(UserError("x.csv: is bad"), "^process 0: x.csv: is bad$"), (ZeroDivisionError(), "^process 0: Traceback")],
)
def test_one_that_fails_says_why_before_it_waits(several, caplog, error, said):
    def work():
        raise error

    several([(130, p, "heard") for p in (1, 2, 3)])
    with caplog.at_level("INFO", logger="olmix_jax"), pytest.raises(type(error)):
        processes.together(work)
    first, second = [record.getMessage() for record in caplog.records][:2]
    assert re.search(said, first) and "waiting for" in second


def test_one_that_failed_in_step_waits_a_minute(several, monkeypatch):
    """The others may be waiting for it on their devices, and never come."""
    monkeypatch.setattr(coordination, "_in_step", False)
    store, company = several(), coordination.Company(True)
    with company.in_step():
        pass
    with pytest.raises(ZeroDivisionError), company.in_step():
        processes.together(lambda: 1 / 0)
    assert 60 <= store.clock[0] <= 70 and store.words == {"olmix_jax/failed/0": "own"}


def test_processes_that_were_given_different_things(several, tmp_path):
    several([(1, p, "another command's") for p in (1, 2, 3)])
    with pytest.raises(UserError, match="different stages or settings; start all of them with the same"):
        processes.check_shared(config.Config(), tmp_path, ("train",))


def test_what_all_have_read_is_not_kept(several):
    store = several([(1, p, str(n)) for n in range(5) for p in (1, 2, 3)])
    for n in range(5):
        assert coordination.everyones("0") == ["0", *[str(n)] * 3]
    assert len({key.rpartition("/")[0] for key in store.words}) == 1


def test_processes_in_step(several):
    done = []
    several([(1, p, word) for word in ("", "", "b", "x", "true") for p in (1, 2, 3)])
    company = coordination.Company(True)
    assert company.writes and company.led(lambda: "mine") == "mine" and company.together(lambda: 7) == 7
    assert company.told("a") == "a" and not company.agrees("a") and company.anyone(False)
    # On its own, it waits for none.
    alone = coordination.Company(False)
    assert alone.writes and alone.led(lambda: done.append(1)) is None and done == [1]
    assert alone.told("a") == "a" and alone.agrees("a") and not alone.anyone(False)


def test_a_process_without_signs_is_named_once(several, caplog):
    store, signs = several(), coordination.Signs(60)
    with caplog.at_level("INFO", logger="olmix_jax"):
        for now in range(0, 60, 10):
            store.words["olmix_jax/alive/1"] = str(now)
            store.words["olmix_jax/alive/2"] = str(min(now, 20))
            signs.give(store, float(now))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("process 2 has given no sign of life for 20 s; if it is lost, all end after 60 s")


def test_a_process_that_failed_is_named_before_it_is_waited_for(several, caplog, monkeypatch):
    monkeypatch.setattr(coordination, "_in_step", False)
    store, signs = several(), coordination.Signs(60)
    with caplog.at_level("INFO", logger="olmix_jax"):
        for now in range(3):
            signs.give(store, float(now))
            store.words |= {"olmix_jax/failed/2": "own", "olmix_jax/failed/3": "heard"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("process 2 has failed, its output says why; this one ends after")
    # One that goes in step with it may wait on its devices, and is ended.
    monkeypatch.setattr(coordination, "_in_step", True)
    with caplog.at_level("INFO", logger="olmix_jax"):
        coordination.Signs(60).give(store, 3.0)
    assert "says why; all end within two minutes, and the same command" in caplog.records[-1].getMessage()


def test_processes_that_never_come_are_not_waited_for_in_silence(monkeypatch, caplog):
    monkeypatch.setattr(processes, "initialize_arguments", lambda: {})
    monkeypatch.setattr(coordination, "SAY", 0.01)
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


def test_a_heartbeat_that_is_no_number_is_named():
    assert (
        processes.heartbeat_timeout({}) == processes.HEARTBEAT
        and processes.heartbeat_timeout({"OLMIX_HEARTBEAT": "10"}) == 10
    )
    for text in ("abc", "0", "-5", "1.5"):
        with pytest.raises(UserError, match=f"OLMIX_HEARTBEAT must be a number of seconds such as 60, not '{text}'"):
            processes.heartbeat_timeout({"OLMIX_HEARTBEAT": text})
