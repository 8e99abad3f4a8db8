"""Bits per byte of every member on every task."""

import functools
import math
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.corpus.task_set import TaskSet, bits_per_byte_N
from olmix_jax.proxy import sharding, state
from olmix_jax.proxy.proxy_swarm import ProxySwarm, map_members
from olmix_jax.utils.progress import tracked

# Size of the logits of one block of examples on one device, for all members that it computes together [bytes].
SCORE_BYTES = 64 << 20
# Most parts of the examples, after each of which progress is reported.
_PARTS = 50


def score(swarm: ProxySwarm, params, tasks: TaskSet, mapping: str, alive_K: np.ndarray) -> np.ndarray:
    """Return bits per byte, float64 [K, N], with NaN for members that are not alive. One program scores all members."""
    examples, length = tasks.answer_EL.shape
    members = sharding.concurrent_members(swarm.size, mapping, swarm.train.map_batch)
    block = int(np.clip(SCORE_BYTES // (length * swarm.vocabulary * 4 * members), 1, examples))
    blocks = -(-examples // block)
    blocks_per_part = -(-blocks // _PARTS)
    shape = -(-blocks // blocks_per_part), blocks_per_part, block
    tokens = sharding.pad(tasks.tokens_EL, math.prod(shape)).reshape(*shape, length + 1)
    answers = sharding.pad(tasks.answer_EL, math.prod(shape)).reshape(*shape, length)
    mapped = map_members(_score_blocks(swarm.member), mapping, swarm.train.map_batch)
    parts = []
    for part in tracked(list(zip(tokens, answers)), f"score {len(swarm.runs)} models on {examples} examples", "parts"):
        nats = sharding.to_host(mapped(params, None, part))
        parts.append(nats.reshape(len(nats), -1))
    nats_KE = np.concatenate(parts, axis=1)[: len(swarm.runs), :examples].astype(np.float64)
    bpb_KN = np.full((len(swarm.runs), len(tasks.names)), np.nan)
    for k in np.flatnonzero(alive_K & np.isfinite(nats_KE).all(axis=1)):
        bpb_KN[k] = bits_per_byte_N(nats_KE[k], tasks)
    return bpb_KN


@functools.lru_cache(maxsize=8)
def _score_blocks(member: state.Member) -> Callable:
    def score_blocks(params, _, blocks):
        return jax.lax.map(lambda block: member.score(params, *block), blocks)

    return score_blocks
