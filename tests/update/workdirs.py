"""A swarm that was trained elsewhere, its updates, and the truth behind all of their scores."""

import json
import pathlib

import numpy as np

from olmix_jax import config
from olmix_jax.laws import evaluate, log_linear
from olmix_jax.pipeline import runner
from olmix_jax.swarm import table
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import files

OLD, TASKS = ("web", "code", "books", "wiki"), ("math", "chat", "qa")
ADDED = (*OLD, "new")
TOKENS = {"web": 50e9, "code": 20e9, "books": 10e9, "wiki": 4e9, "new": 6e9, "wiki:a": 3e9, "wiki:b": 1e9}
EFFECTS = {
    "web": (0.1, -0.3, -0.2),
    "code": (-1.2, 0.3, 0.1),
    "books": (0.2, -0.9, -0.4),
    "wiki": (0.1, -0.1, -1.0),
    "new": (-1.5, 0.2, 0.0),
    "wiki:a": (0.0, -0.1, -1.2),
    "wiki:b": (0.4, -0.1, -0.4),
}
# Standard deviation of a score [BPB], and tokens of the target run.
NOISE, TARGET = 0.004, 100e9
FILES = {"ratios": "csv", "metrics": "csv", "meta": "json"}


def true_bpb(domains, ratios_KM):
    """Scores of mixtures without noise, bpb_KN."""
    params = log_linear.Params(np.log([0.5, 0.6, 0.7]), np.array([EFFECTS[d] for d in domains]).T)
    return evaluate(log_linear.LAW, params, ratios_KM)


def measure(domains, ratios_KM, seed=0):
    """Scores of mixtures with noise, bpb_KN."""
    noise_KN = np.random.default_rng(seed).normal(size=(len(ratios_KM), len(TASKS)))
    return true_bpb(domains, ratios_KM) + NOISE * noise_KN


def write_swarm(folder, domains, ratios_KM, seed=0, tasks=TASKS):
    """Write a swarm's mixtures and measured scores."""
    runs = tuple(f"r{k}" for k in range(len(ratios_KM)))
    tokens_M = np.array([TOKENS[d] for d in domains])
    bpb_KN = measure(domains, ratios_KM, seed)[:, [TASKS.index(task) for task in tasks]]
    table.write_swarm(folder, runs, runs, domains, tasks, ratios_KM, bpb_KN, tokens_M / tokens_M.sum(), tokens_M, {})


def settings(**changes):
    """A config; ``update_file=…`` sets the field ``update.file``."""
    c = config.default()
    c.fit.resamples, c.propose.explore, c.propose.next_runs = 24, False, 0
    c.propose.target_tokens = TARGET
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


def swarm_of(folder):
    """Settings that name the swarm in a folder."""
    return {f"swarm_{name}": str(folder / f"{name}.{suffix}") for name, suffix in FILES.items()}


def make_parent(folder) -> pathlib.Path:
    """A finished workdir over OLD, from 24 runs. The first three have no weight on wiki."""
    ratios_KM = np.random.default_rng(0).dirichlet(np.ones(4), size=24)
    ratios_KM[:3, 3] = 0.0
    write_swarm(folder / "data", OLD, ratios_KM / ratios_KM.sum(axis=1, keepdims=True))
    runner.run(settings(**swarm_of(folder / "data")), folder / "run", ("fit", "propose"))
    return folder / "run"


def begin_update(parent, folder, steps, domains, **changes) -> tuple[dict, UpdatePlan]:
    """Plan an update in ``folder/run`` and draw its swarm; return its settings and its plan."""
    files.write_json(folder / "update.json", {"updates": steps})
    meta = json.dumps({"token_counts": {d: TOKENS[d] for d in domains}})
    given = {"update_parent": str(parent), "update_file": str(folder / "update.json"), "swarm_meta": meta, **changes}
    runner.run(settings(**given), folder / "run", ("update",))
    return given, UpdatePlan.read(folder / "run/update/plan.json")


def finish_update(folder, given, domains, tasks=TASKS):
    """Measure the swarm of an update, and run the update up to its proposal.

    The columns of the measured table are in another order than those of the update.
    """
    _, _, columns, ratios_KM = table.read_ratios(folder / "run/swarm/ratios.csv")
    assert columns == domains
    write_swarm(folder / "data", domains[::-1], ratios_KM[:, ::-1], seed=1, tasks=tasks)
    runner.run(settings(**given | swarm_of(folder / "data")), folder / "run", ("update", "fit", "propose"))
