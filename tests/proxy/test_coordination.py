"""proxy/coordination.py: how processes wait for each other. Real processes: tests/pipeline/test_processes.py."""

import pytest

from olmix_jax.proxy import coordination
from olmix_jax.utils.errors import UserError
from tests import fake_store


@pytest.fixture
def make_store(monkeypatch):
    return fake_store.install(monkeypatch)


def test_wait_for_a_slow_process_names_it_and_has_no_time_limit(make_store, caplog):
    """The wait takes two hours, longer than a device collective would wait."""
    make_store([(1, 1, "b"), (1, 2, "c"), (7200, 3, "d")])
    with caplog.at_level("INFO", logger="olmix_jax"):
        assert coordination.all_gather("a") == ["a", "b", "c", "d"]
    lines = [record.getMessage() for record in caplog.records]
    assert lines[0] == "waiting for process 3, 1 minute so far"
    assert "waiting for process 3, 5 minutes so far" in lines and len(lines) == pytest.approx(120, abs=2)


def test_values_of_consecutive_gathers_are_kept_apart(make_store):
    make_store([(1, p, "x") for p in (1, 2, 3)] + [(100, p, "y") for p in (1, 2, 3)])
    assert coordination.all_gather("x") == ["x"] * 4 and coordination.all_gather("y") == ["y"] * 4


def test_values_are_deleted_once_all_processes_have_read_them(make_store):
    store = make_store([(1, p, str(n)) for n in range(5) for p in (1, 2, 3)])
    for n in range(5):
        assert coordination.all_gather("0") == ["0", *[str(n)] * 3]
    assert len({key.rpartition("/")[0] for key in store.values}) == 1


def test_lost_connection_to_the_first_process_raises_an_error(make_store):
    make_store(lost_at=20)
    with pytest.raises(UserError, match=r"first process is unreachable \(UNAVAILABLE: failed to connect\)"):
        coordination.all_gather("a")


def test_failure_of_another_process_stops_the_wait(make_store):
    """Process 3 stopped because of process 2, so the error names only process 2."""
    store = make_store()
    store.values |= {"olmix_jax/failed/2": "own", "olmix_jax/failed/3": "peer"}
    with pytest.raises(coordination.PeerFailed, match="^stopped because process 2 failed"):
        coordination.all_gather("a")


def test_group_of_several_processes(make_store):
    make_store([(1, p, value) for value in ("", "", "b", "x", "true") for p in (1, 2, 3)])
    group = coordination.ProcessGroup(distributed=True)
    assert group.is_writer
    assert group.on_writer(lambda: "result") == "result"
    assert group.then_barrier(lambda: 7) == 7
    assert group.broadcast("a") == "a"
    assert not group.all_equal("a")
    assert group.any(False)


def test_group_of_one_process_never_waits():
    group = coordination.ProcessGroup(distributed=False)
    assert group.is_writer and group.on_writer(lambda: 1) == 1 and group.then_barrier(lambda: 7) == 7
    assert group.broadcast("a") == "a" and group.all_equal("a") and not group.any(False) and group.any(True)


def test_silent_process_is_named_once(make_store, caplog):
    store, heartbeat = make_store(), coordination.Heartbeat(60)
    with caplog.at_level("INFO", logger="olmix_jax"):
        for now in range(0, 60, 10):
            store.values["olmix_jax/heartbeat/1"] = str(now)
            store.values["olmix_jax/heartbeat/2"] = str(min(now, 20))
            heartbeat.beat(store, float(now))
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith("process 2 has sent no heartbeat for 20 s; after 60 s all processes end")


@pytest.mark.parametrize(
    ("in_lockstep", "end"),
    [(False, "this one ends after its current work"), (True, "all processes end within two minutes")],
)
def test_failed_process_is_named_once(make_store, caplog, in_lockstep, end):
    store, heartbeat = make_store(), coordination.Heartbeat(60)
    with caplog.at_level("INFO", logger="olmix_jax"), coordination.ProcessGroup(in_lockstep).lockstep():
        for now in range(3):
            heartbeat.beat(store, float(now))
            store.values |= {"olmix_jax/failed/2": "own", "olmix_jax/failed/3": "peer"}
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == f"process 2 failed, see its output; {end}. Run the same command again to resume"
