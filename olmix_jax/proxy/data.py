"""The order in which members read sequences: exact counts per domain, from one shuffled stream per domain."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import grain
import numpy as np

from olmix_jax.swarm import apportion
from olmix_jax.swarm.expansion import sequences
from olmix_jax.utils import rng
from olmix_jax.utils.errors import UserError


@dataclasses.dataclass(frozen=True)
class Runs:
    """What differs between the members of a swarm.

    Attributes:
      names: K run names.
      counts_KM: int, sequences that each member reads from each domain. Every row sums to steps · batch, or for the
        branches of a trunk to the steps after it.
      init_seed_K: seeds of the initial weights.
      data_seed_K: seeds of the document order. Members with the same seed read the same streams.
    """

    names: tuple[str, ...]
    counts_KM: np.ndarray
    init_seed_K: np.ndarray
    data_seed_K: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def subset(self, indices: np.ndarray) -> "Runs":
        """Return the runs with these indices."""
        arrays = (x[indices] for x in (self.counts_KM, self.init_seed_K, self.data_seed_K))
        return Runs(tuple(self.names[k] for k in indices), *arrays)


class Start(NamedTuple):
    """Where runs begin: at step 0, or where the trunk ended that they continue.

    Attributes:
      step: steps that were taken before.
      read_M: int, sequences that were read from each domain before. A run continues the domain's stream there.
    """

    step: int
    read_M: np.ndarray


class _Sequences:
    """A domain's pool of sequences, as a source for `grain`.

    Sequence n of a token store holds tokens n·L … n·L + L. The pool is the first `size` sequences in the random order
    of `seed`, or all of them.
    """

    def __init__(self, store, length: int, size: int, seed: int):
        self.store, self.length, self.size = store, length, size
        self.order = grain.MapDataset.range(store.sequences(length)).shuffle(seed=seed)

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, i: int) -> np.ndarray:
        n = self.order[int(i)] if self.size < len(self.order) else i
        return self.store.sequence(int(n), self.length)


def stream(store, length: int, seed: int, share: float = 1.0) -> grain.MapDataset:
    """Return one domain's endless stream: every sequence once per epoch, each epoch in a new order.

    With `share` below 1, the domain's pool is a random share of its sequences, at least one. Pool and order are
    computed on access, so a stream takes no memory, however large the store.
    """
    size = max(1, round(share * store.sequences(length)))
    pool = _Sequences(store, length, size, rng.derive(seed, "pool"))
    return grain.MapDataset.source(pool).shuffle(seed=seed).repeat()


def chunk_ends(first_step: int, steps: int, stops: Sequence[int]) -> list[int]:
    """Return the step at which each chunk ends: `steps` steps after it starts, or earlier at the next of the stops.

    Args:
      first_step: the step at which the first chunk starts.
      steps: most steps of a chunk.
      stops: steps at which a chunk has to end, in any order. The last chunk ends at the largest.
    """
    ends, step = [], first_step
    for stop in sorted(stops):
        while step < stop:
            step = min(step + steps, stop)
            ends.append(step)
    return ends


class _Chunks:
    """Chunk c holds every member's tokens for `steps` steps, int32 [K, steps, B, L + 1]; zeros after its end."""

    def __init__(
        self,
        runs: Runs,
        streams: dict,
        length: int,
        batch: int,
        steps: int,
        first_step: int,
        stops: Sequence[int],
        start: Start,
    ):
        self.runs, self.streams, self.length, self.batch, self.steps = runs, streams, length, batch, steps
        self.start = start
        ends = chunk_ends(first_step, steps, stops)
        self.spans = list(zip([first_step, *ends], ends))
        self.orders = [apportion.interleaving(counts_M) for counts_M in runs.counts_KM]

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, c: int) -> np.ndarray:
        size, (start, end) = self.steps * self.batch, self.spans[c]
        positions_S = np.arange(start * self.batch, end * self.batch) - self.start.step * self.batch
        tokens_KSL1 = np.zeros((len(self.runs), size, self.length + 1), np.int32)
        # Members share streams: a sequence that several members read in this chunk is fetched once.
        fetched = {}
        for k, (seed, order) in enumerate(zip(self.runs.data_seed_K, self.orders)):
            domain_S, nth_S = apportion.read_at(order, positions_S)
            for s, place in enumerate(zip(domain_S, nth_S + self.start.read_M[domain_S])):
                key = (int(seed), *map(int, place))
                if key not in fetched:
                    fetched[key] = self.streams[key[:2]][key[2]]
                tokens_KSL1[k, s] = fetched[key]
        return tokens_KSL1.reshape(len(self.runs), self.steps, self.batch, self.length + 1)


def _check(runs: Runs, stores: dict, length: int, steps: int, batch: int, start: Start) -> None:
    """Raise an error for a domain without a sequence, or a row of counts that is not those of ``steps``."""
    too_small = [name for name, store in stores.items() if store.sequences(length) < 1]
    if too_small:
        raise UserError(
            f"domain smaller than one sequence of {length} tokens: {', '.join(too_small)}. Add text, merge the domain "
            "with another, or lower `proxy.length`"
        )
    total_K, wanted = runs.counts_KM.sum(axis=1), steps * batch
    for name, total in zip(runs.names, total_K):
        if total != wanted:
            of = f"(train.steps − {start.step} of the trunk)" if start.step else "train.steps"
            raise UserError(
                f"run {name} has {total} sequences, but {of} × train.batch is {wanted}. Run --stages=sample again"
            )


def chunks(
    runs: Runs,
    stores: dict,
    length: int,
    batch: int,
    steps: int,
    total_steps: int,
    share: float = 1.0,
    first_step: int = 0,
    stops: Sequence[int] = (),
    start: Start | None = None,
    expansion: tuple[float, ...] = (),
) -> grain.DatasetIterator:
    """Return the swarm's training data as an iterator over int32 [K, steps, B, L + 1], from any step on.

    The n-th sequence that a member reads from domain j is the n-th of that domain's stream, for every mixture. With
    a common seed, members read the same documents in the same order and differ in their mixture only. Members read
    exactly `counts_KM` sequences, without rounding. With an `expansion`, these are counts of equal numbers of the
    corpus' tokens, and the sequences that are read are those of :func:`olmix_jax.swarm.expansion.sequences`.

    Args:
      runs: the members.
      stores: token store per domain, in the column order of `runs.counts_KM`.
      length: tokens per sequence.
      batch: sequences per step.
      steps: most steps per chunk.
      total_steps: steps of the whole run.
      share: share of every domain that is read; see :func:`stream`.
      first_step: the step that the first chunk starts with, for a run that resumes.
      stops: steps at which a chunk ends early; see :func:`chunk_ends`.
      start: where the runs begin; None for step 0.
      expansion: tokens in a store per token of the corpus' tokenizer, by domain; empty if all are 1.

    Raises:
      UserError: a domain is smaller than one sequence, or a row of counts does not sum to the sequences of its steps.
    """
    start = Start(0, np.zeros(len(stores), np.int64)) if start is None else start
    _check(runs, stores, length, total_steps - start.step, batch, start)
    if expansion:
        counts_KM = np.stack([sequences(counts_M, expansion) for counts_M in runs.counts_KM])
        runs = dataclasses.replace(runs, counts_KM=counts_KM)
    # Seeds are derived from names: epoch e is shuffled with seed + e, so consecutive seeds would share orders.
    streams = {
        (int(seed), j): stream(store, length, rng.derive(int(seed), f"stream/{name}"), share)
        for seed in np.unique(runs.data_seed_K)
        for j, (name, store) in enumerate(stores.items())
    }
    source = _Chunks(runs, streams, length, batch, steps, first_step, (*stops, total_steps), start)
    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    return iter(grain.MapDataset.source(source).to_iter_dataset(options))
