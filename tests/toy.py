"""A swarm small enough to train in a test: two domains of random tokens, a vocabulary of eight, a one-layer decoder.

Tests that train should use the default sizes, so that they share compiled programs.
"""

import numpy as np

from olmix_jax.config.schema import Train
from olmix_jax.corpus.task_set import TaskSet
from olmix_jax.proxy.data import Runs
from olmix_jax.proxy.model import Shape
from olmix_jax.proxy.proxy_swarm import ProxySwarm


class ArrayStore:
    """A token store in memory."""

    def __init__(self, tokens):
        self.tokens = tokens

    def sequences(self, length):
        return (len(self.tokens) - 1) // length

    def sequence(self, i, length):
        return self.tokens[i * length : (i + 1) * length + 1].astype(np.int32)


def make_swarm(members=5, steps=7, batch=4, length=8, seeds=None, **train):
    """Return members whose weight of domain a rises evenly from 0 to 1.

    A dispatch has two steps, so that the last of the seven steps is a partial dispatch. `seeds` are the members' seeds
    of weights and data, by default 0 for all.
    """
    random = np.random.default_rng(0)
    stores = {name: ArrayStore(random.integers(1, 8, 400)) for name in ("a", "b")}
    count_K = np.linspace(0, steps * batch, members).astype(int)
    counts_KM = np.stack([count_K, steps * batch - count_K], 1)
    seed_K = np.zeros(members, int) if seeds is None else np.asarray(seeds)
    runs = Runs(tuple(f"run-{k}" for k in range(members)), counts_KM, seed_K, seed_K)
    settings = {"lr": 0.01, "checkpoint_every": 2} | train
    trainer = Train(steps=steps, batch=batch, **settings)
    return ProxySwarm(Shape(8, 1, 2, 16), 8, length, "float32", trainer, runs, stores)


def make_tasks():
    """Return two tasks of two examples each, with three answer tokens. The second one's BPB is a mean over examples."""
    tokens_EL1 = np.random.default_rng(1).integers(1, 8, (4, 9)).astype(np.int32)
    answer_EL = np.zeros((4, 8), bool)
    answer_EL[:, 5:] = True
    task_E, document_N = np.array([0, 0, 1, 1], np.int32), np.array([False, True])
    return TaskSet(("t", "u"), tokens_EL1, answer_EL, np.array([3, 6, 3, 6]), task_E, document_N)
