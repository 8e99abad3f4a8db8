"""Synthetic swarms shared by the tests of laws."""

import numpy as np

from olmix_jax import laws
from olmix_jax.laws import log_linear
from olmix_jax.swarm.table import SwarmTable


def noisy_swarm(runs=36, domains=3, tasks=2, noise=0.02):
    """Return (ratios_KM, bpb_KN) of a log-linear law with measurement noise [BPB]."""
    rng = np.random.default_rng(0)
    ratios_KM = rng.dirichlet(np.ones(domains), size=runs)
    params = log_linear.Params(np.log(np.full(tasks, 0.5)), rng.normal(size=(tasks, domains)))
    return ratios_KM, laws.evaluate(log_linear.LAW, params, ratios_KM) + noise * rng.normal(size=(runs, tasks))


def table(runs=24, tasks=("x", "y"), seed=0):
    """Return a SwarmTable over three domains, where task i falls as domain i grows."""
    rng = np.random.default_rng(seed)
    ratios_KM = rng.dirichlet(np.full(3, 0.5), size=runs)
    bpb_KN = np.exp(-0.3 * np.sqrt(ratios_KM[:, : len(tasks)])) + 0.01 * rng.normal(size=(runs, len(tasks)))
    ids = tuple(f"r{k}" for k in range(runs))
    return SwarmTable(ids, ("a", "b", "c"), tasks, ratios_KM, bpb_KN, np.array([0.5, 0.3, 0.2]), None, ids)
