"""Bits per byte of every member on every task."""

import functools
from collections.abc import Callable

import jax
import numpy as np

from olmix_jax.corpus.task_set import TaskSet, bits_per_byte_N
from olmix_jax.proxy import sharding, state
from olmix_jax.proxy.proxy_swarm import ProxySwarm, map_members

# Size of the logits of one block of examples on one device, for all members that it computes together [bytes].
SCORE_BYTES = 64 << 20


def score(swarm: ProxySwarm, params, tasks: TaskSet, mapping: str, alive_K: np.ndarray) -> np.ndarray:
    """Return bits per byte, float64 [K, N], with NaN for members that are not alive. One program scores all members."""
    examples, length = tasks.answer_EL.shape
    members = sharding.concurrent_members(swarm.size, mapping, swarm.train.map_batch)
    block = int(np.clip(SCORE_BYTES // (length * swarm.vocabulary * 4 * members), 1, examples))
    blocks = -(-examples // block)
    tokens = sharding.pad(tasks.tokens_EL, blocks * block).reshape(blocks, block, length + 1)
    answers = sharding.pad(tasks.answer_EL, blocks * block).reshape(blocks, block, length)
    mapped = map_members(_score_blocks(swarm.member), mapping, swarm.train.map_batch)
    nats_KE = sharding.to_host(mapped(params, None, (tokens, answers)))
    nats_KE = nats_KE.reshape(len(nats_KE), -1)[: len(swarm.runs), :examples].astype(np.float64)
    bpb_KN = np.full((len(swarm.runs), len(tasks.names)), np.nan)
    for k in np.flatnonzero(alive_K & np.isfinite(nats_KE).all(axis=1)):
        bpb_KN[k] = bits_per_byte_N(nats_KE[k], tasks)
    return bpb_KN


@functools.lru_cache(maxsize=8)
def _score_blocks(member: state.Member) -> Callable:
    def score_blocks(params, _, blocks):
        return jax.lax.map(lambda block: member.score(params, *block), blocks)

    return score_blocks
