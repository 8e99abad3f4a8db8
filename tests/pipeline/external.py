"""An external swarm whose runs follow a known law without noise, and scores of further runs by that law."""

import csv
import pathlib

import numpy as np

from olmix_jax import config
from olmix_jax.laws import evaluate, log_linear
from olmix_jax.swarm import table
from tests.propose.cases import PARAMS, TASKS

DOMAINS = ("a", "b", "c")


def bpb(ratios_KM) -> np.ndarray:
    return np.asarray(evaluate(log_linear.LAW, PARAMS, np.asarray(ratios_KM)))


def write(path: pathlib.Path, ids, columns, rows) -> pathlib.Path:
    with open(path, "w", newline="") as f:
        writer = csv.writer(f)
        writer.writerow(["run", *columns])
        writer.writerows([run, *row] for run, row in zip(ids, rows))
    return path


def settings(folder: pathlib.Path, **rounds) -> config.Config:
    """Write a swarm of 12 runs, and return a config that fits it."""
    ratios_KM, ids = np.random.default_rng(0).dirichlet(np.ones(3), size=12), [f"r{k}" for k in range(12)]
    swarm = {
        "ratios": str(write(folder / "ratios.csv", ids, DOMAINS, ratios_KM.tolist())),
        "metrics": str(write(folder / "metrics.csv", ids, TASKS, bpb(ratios_KM).tolist())),
        "meta": '{"relative_sizes": {"a": 0.1, "b": 0.3, "c": 0.6}}',
    }
    fit = {"law": "log_linear", "resamples": 12, "folds": 3}
    return config.from_dict({"swarm": swarm, "fit": fit, "propose": {"explore": False}, "rounds": rounds})


def train(next_runs: pathlib.Path, scores: pathlib.Path, runs=slice(None)) -> list[str]:
    """Write the scores of runs of a ``next.csv``, and return their ids."""
    mixtures = table.read_ratios(next_runs)
    write(scores, mixtures.runs[runs], TASKS, bpb(mixtures.ratios_KM)[runs].tolist())
    return list(mixtures.runs[runs])
