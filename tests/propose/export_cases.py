"""Mixtures to export, and the content of trainers' files, for the tests of export and of its formats."""

import json

import numpy as np
import yaml

from olmix_jax.pipeline import handover
from olmix_jax.propose.export import Mixture, TrainerFile
from olmix_jax.propose.trainer_formats import FORMATS
from olmix_jax.swarm import rounding


def drawn(seed, domains=8, **kwargs):
    """A mixture of random weights, some small, one zero."""
    draw = np.random.default_rng(seed)
    w_M = draw.dirichlet(np.full(domains, 0.5)) + 1e-4
    w_M[draw.integers(domains)] = 0
    return Mixture(dict(zip((f"d:{j}" for j in range(domains)), (w_M / w_M.sum()).tolist())), **kwargs)


def capped(seed, domains=6, run=40_000, k=4.0, **kwargs):
    """The same with tokens and repetition caps, some of which bind exactly."""
    draw = np.random.default_rng(seed)
    names = [f"d:{j}" for j in range(domains)]
    unique_M = draw.integers(500, run // 8, domains)
    unique_M[-1] = 2 * run
    cap_M = np.minimum(1, k * unique_M / run)
    w_M = np.minimum(draw.dirichlet(np.ones(domains)), cap_M)
    w_M[-1] = 1 - w_M[:-1].sum()
    counts = dict(zip(names, rounding.counts(w_M, run, np.zeros(domains), cap_M).tolist()))
    weights, unique = dict(zip(names, w_M.tolist())), dict(zip(names, unique_M.tolist()))
    return Mixture(weights, counts=counts, unique_tokens=unique, max_repeats=k, **kwargs)


def text(mixture, name):
    """The text of a trainer's file."""
    trainer = FORMATS[name]
    return handover.text(TrainerFile(trainer.file, trainer.content(mixture)))


def read(mixture, name):
    """The file's content, read back from its text."""
    parse = json.loads if FORMATS[name].file.endswith("json") else yaml.safe_load
    return parse(text(mixture, name))


def realised(mixture, name):
    return FORMATS[name].realised(mixture)


def shares(parts):
    return {d: n / sum(parts.values()) for d, n in parts.items()}
