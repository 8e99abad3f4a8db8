"""A swarm and tasks small enough to train in a test: two domains of random tokens, 8 token ids, a one-layer decoder."""

import numpy as np

from olmix_jax.config.schema import Train
from olmix_jax.corpus.tasks import TaskSet
from olmix_jax.proxy.data import Runs
from olmix_jax.proxy.model import Shape
from olmix_jax.proxy.train import Swarm


class ArrayStore:
    """A token store in memory."""

    def __init__(self, tokens):
        self.tokens = tokens

    def sequences(self, length):
        return (len(self.tokens) - 1) // length

    def sequence(self, i, length):
        return self.tokens[i * length : (i + 1) * length + 1].astype(np.int32)


def make_swarm(members=3, steps=6, batch=4, length=8, seeds=None, **train):
    """Make a swarm whose mixtures go from all of domain b to all of domain a in equal steps.

    Args:
      seeds: of initialisation and data order, one per member; default 0 for all.
      train: other settings of ``config.train``.
    """
    random = np.random.default_rng(0)
    stores = {name: ArrayStore(random.integers(1, 8, 400)) for name in ("a", "b")}
    count_a_K = np.linspace(0, steps * batch, members).astype(int)
    seed_K = np.zeros(members, int) if seeds is None else np.asarray(seeds)
    counts_KM = np.stack([count_a_K, steps * batch - count_a_K], 1)
    runs = Runs(tuple(f"run-{k}" for k in range(members)), counts_KM, seed_K, seed_K)
    settings = {"lr": 0.01, "checkpoint_every": 2} | train
    return Swarm(Shape(8, 1, 2, 16), 8, length, "float32", Train(steps=steps, batch=batch, **settings), runs, stores)


def make_tasks():
    """Make two tasks of two examples each, with token ids 1 to 7 and one byte per token."""
    tokens_EL1 = np.random.default_rng(1).integers(1, 8, (4, 9)).astype(np.int32)
    answer_EL = np.zeros((4, 8), bool)
    answer_EL[:, 5:] = True
    return TaskSet(("t", "u"), tokens_EL1, answer_EL, np.full(4, 3), np.array([0, 0, 1, 1], np.int32))
