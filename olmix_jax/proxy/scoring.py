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

# Size of the logits of all tokens of one block of examples on one device, for all members that it computes together
# [bytes]. On a CPU, blocks that stay in a core's cache are scored faster (docs/log.md).
SCORE_BYTES, CPU_SCORE_BYTES = 64 << 20, 2 << 20
# Most parts of the examples, after each of which progress is reported.
_PARTS = 50


def score(swarm: ProxySwarm, params, tasks: TaskSet, mapping: str, alive_K: np.ndarray) -> np.ndarray:
    """Return bits per byte, float64 [K, N], with NaN for members that are not alive. One program scores all members."""
    examples, length = tasks.answer_EL.shape
    members = sharding.concurrent_members(swarm.size, mapping, swarm.train.map_batch)
    budget = min(SCORE_BYTES, CPU_SCORE_BYTES) if jax.default_backend() == "cpu" else SCORE_BYTES
    block = int(np.clip(budget // (length * swarm.vocabulary * 4 * members), 1, examples))
    blocks = -(-examples // block)
    blocks_per_part = -(-blocks // _PARTS)
    shape = -(-blocks // blocks_per_part), blocks_per_part, block
    order_S = _balanced(tasks.answer_EL.sum(axis=1), math.prod(shape[:2]), block)
    tokens = tasks.tokens_EL[order_S].reshape(*shape, length + 1)
    answers = tasks.answer_EL[order_S].reshape(*shape, length)
    most = int(answers.sum(axis=(2, 3)).max())
    mapped = map_members(_score_blocks(swarm.member, most), mapping, swarm.train.map_batch)
    parts = []
    for part in tracked(list(zip(tokens, answers)), f"score {len(swarm.runs)} models on {examples} examples", "parts"):
        nats = sharding.to_host(mapped(params, None, part))
        parts.append(nats.reshape(len(nats), -1))
    nats_KE = np.empty((len(swarm.runs), examples))
    nats_KE[:, order_S] = np.concatenate(parts, axis=1)[: len(swarm.runs)]
    bpb_KN = np.full((len(swarm.runs), len(tasks.names)), np.nan)
    for k in np.flatnonzero(alive_K & np.isfinite(nats_KE).all(axis=1)):
        bpb_KN[k] = bits_per_byte_N(nats_KE[k], tasks)
    return bpb_KN


def _balanced(answers_E: np.ndarray, blocks: int, block: int) -> np.ndarray:
    """Return the examples of one block after the other, such that blocks have similar numbers of answer tokens.

    Examples are dealt to the blocks, longest answers first, back and forth. The shortest is repeated as padding.
    """
    order_S = sharding.pad(np.argsort(-answers_E, kind="stable"), blocks * block).reshape(block, blocks)
    order_S[1::2] = order_S[1::2, ::-1]
    return order_S.T.reshape(-1)


@functools.lru_cache(maxsize=8)
def _score_blocks(member: state.Member, answers: int) -> Callable:
    def score_blocks(params, _, blocks):
        return jax.lax.map(lambda block: member.score(params, *block, answers), blocks)

    return score_blocks
