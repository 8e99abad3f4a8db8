"""A stand-in for the key-value store of several processes, with a clock that advances only when a process waits."""

import jax

from olmix_jax.proxy import coordination


class FakeStore:
    """The key-value store as process 0 of four sees it.

    ``arrivals`` are the values of other processes as (second, process, value). They appear in the folder that process 0
    waits for at that time. From second ``lost_at`` on the connection is lost.
    """

    def __init__(self, arrivals, clock, lost_at):
        self.values, self.arrivals, self.clock, self.lost_at = {}, list(arrivals), clock, lost_at

    def key_value_set(self, key, value, allow_overwrite=False):
        assert allow_overwrite or key not in self.values
        self.values[key] = value

    def key_value_dir_get(self, folder):
        return [(key, value) for key, value in self.values.items() if key.startswith(folder + "/")]

    def key_value_delete(self, folder):
        self.values = {key: value for key, value in self.values.items() if not key.startswith(folder + "/")}

    def blocking_key_value_get(self, key, milliseconds):
        self.clock[0] += milliseconds / 1000
        if self.lost_at is not None and self.clock[0] >= self.lost_at:
            raise jax.errors.JaxRuntimeError("UNAVAILABLE: failed to connect\nmore")
        if self.arrivals and self.arrivals[0][0] <= self.clock[0]:
            _, process, value = self.arrivals.pop(0)
            self.values[f"{key.rpartition('/')[0]}/{process}"] = value
        if key not in self.values:
            raise jax.errors.JaxRuntimeError("DEADLINE_EXCEEDED: timed out")
        return self.values[key]


def install(monkeypatch):
    """Make this process the first of four. Return a function (arrivals, lost_at) → FakeStore."""
    clock = [0.0]
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    monkeypatch.setattr(jax, "process_index", lambda: 0)
    monkeypatch.setattr(coordination.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(coordination.log, "propagate", True)

    def make(arrivals=(), lost_at=None):
        store = FakeStore(arrivals, clock, lost_at)
        monkeypatch.setattr(coordination, "key_value_store", lambda: store)
        return store

    return make
