"""Tasks as arrays: encoded examples, and their bits per byte (BPB).

A task's BPB is computed in one of two ways (METHOD §1, ``tasks.aggregate``), with nats −ln P(answer | prompt):
  - "pooled": Σ_examples nats / (ln 2 · Σ_examples bytes). Long answers count more.
  - "document": the mean over examples of nats / (ln 2 · bytes), as OLMES computes the paper's columns.
"""

import dataclasses
import logging
from collections.abc import Collection

import numpy as np

from olmix_jax.corpus.examples import Example
from olmix_jax.corpus.tokenizer import Tokenizer
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# The log warns if more than this share of prompts or answers is cut.
MUCH_CUT = 0.05
POOLED, DOCUMENT = "pooled", "document"


@dataclasses.dataclass(frozen=True)
class TaskSet:
    """The E examples of all tasks as token sequences of equal length, padded with the end token.

    Attributes:
      names: the N tasks.
      tokens_EL: int32 [E, L + 1]: end token, prompt, answer, padding. Inputs are ``[:, :-1]``, targets ``[:, 1:]``.
      answer_EL: bool [E, L], whether the target belongs to the answer. Only these targets are scored.
      bytes_E: int64, UTF-8 bytes of the scored answer.
      task_E: int32, the index of the example's task in ``names``.
      document_N: bool, whether a task's BPB is the mean over its examples ("document") rather than "pooled".
    """

    names: tuple[str, ...]
    tokens_EL: np.ndarray
    answer_EL: np.ndarray
    bytes_E: np.ndarray
    task_E: np.ndarray
    document_N: np.ndarray


def pack(
    tasks: dict[str, list[Example]], tokenizer: Tokenizer, length: int, by_document: Collection[str] = ()
) -> TaskSet:
    """Encode tasks, in the order given, into windows of ``length`` targets.

    The BPB of the tasks named in ``by_document`` is their mean over examples; that of the others is pooled.

    Prompt and answer are encoded separately, so that the answer's tokens have exactly its bytes. An example that is too
    long is cut between tokens: first the start of its prompt, until the answer has half of the window, then the end of
    its answer. Only the bytes of the remaining answer count.
    """
    if length < 2:
        raise UserError(f"config field `tasks.length` must be 2 or more, not {length}")
    examples = [(i, e) for i, rows in enumerate(tasks.values()) for e in rows]
    prompts = tokenizer.encode_many([e.prompt for _, e in examples])
    answers = tokenizer.encode_many([e.answer for _, e in examples])
    tokens_EL = np.full((len(examples), length + 1), tokenizer.end, np.int32)
    answer_EL = np.zeros((len(examples), length), bool)
    bytes_E = np.zeros(len(examples), np.int64)
    cut = np.zeros(2, int)
    for row, (prompt, answer) in enumerate(zip(prompts, answers)):
        kept_answer = answer[: max(length // 2, length - len(prompt))]
        kept_prompt = prompt[max(0, len(prompt) + len(kept_answer) - length) :]
        start = len(kept_prompt)
        tokens_EL[row, 1 : 1 + start] = kept_prompt
        tokens_EL[row, 1 + start : 1 + start + len(kept_answer)] = kept_answer
        answer_EL[row, start : start + len(kept_answer)] = True
        bytes_E[row] = tokenizer.token_bytes_V[kept_answer].sum(dtype=np.int64)
        cut += start < len(prompt), len(kept_answer) < len(answer)
    if cut.any():
        longest = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers))
        level = logging.WARNING if cut.max() > MUCH_CUT * len(examples) else logging.INFO
        log.log(
            level,
            "tasks: tasks.length=%d cuts the start of %d of %d prompts and the end of %d answers; the longest example "
            "has %d tokens",
            *(length, cut[0], len(examples), cut[1], longest),
        )
    task_E = np.array([i for i, _ in examples], np.int32)
    document_N = np.array([name in by_document for name in tasks])
    return TaskSet(tuple(tasks), tokens_EL, answer_EL, bytes_E, task_E, document_N)


def bits_per_byte_N(nats_E: np.ndarray, taskset: TaskSet) -> np.ndarray:
    """Return the BPB of each task.

    Every example has a weight w_E, 1 if pooled and 1 / bytes by document. The BPB is Σ w·nats / (ln 2 · Σ w·bytes):
    sums over examples, divided once.

    Args:
      nats_E: −ln P(scored answer | prompt) of each example, summed over its tokens.

    Returns:
      float64 [N], bits per byte.

    Raises:
      ValueError: ``nats_E`` has the wrong shape or a value that is not finite, or an example has no answer bytes.
    """
    nats_E = np.asarray(nats_E, np.float64)
    if nats_E.shape != taskset.task_E.shape:
        raise ValueError(f"nats_E has shape {nats_E.shape}, but the task set has {taskset.task_E.shape} examples")
    if not np.isfinite(nats_E).all():
        raise ValueError("nats_E has values that are not finite")
    if not (taskset.bytes_E > 0).all():
        raise ValueError(f"example {int(np.argmin(taskset.bytes_E))} has no answer bytes")
    document_E, size = taskset.document_N[taskset.task_E], len(taskset.names)
    nats_E = np.where(document_E, nats_E / taskset.bytes_E, nats_E)
    bytes_E = np.where(document_E, 1, taskset.bytes_E)
    return np.bincount(taskset.task_E, nats_E, size) / (np.log(2) * np.bincount(taskset.task_E, bytes_E, size))
