"""The file formats of trainers, and the shares that each trainer realises from the weights in its file.

One function per format returns the content of its file; another returns the shares that the trainer realises. Their
docstrings name the library and the version that was read; the tests run the library itself (docs/handover.md). Domains
of weight 0 are left out: grain and Megatron reject them, OLMo-core and Streaming may still give them samples, and
``interleave_datasets`` may wait for them endlessly.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from olmix_jax.propose.export import Mixture, TrainerFile, compare, normalised
from olmix_jax.swarm import apportion, rounding
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.optional import reason_of

# Levanter's block sizes [sequences], from its default to the largest power of two that it accepts.
BLOCKS = (2048, 4096, 8192, 16384, 32768)
# Streaming's default seed, which also draws the streams that get the remaining samples.
STREAMING_SEED = 9176
# Up to this many samples, Megatron's order is simulated sample by sample.
SIMULATED_SAMPLES = 20_000


@dataclasses.dataclass(frozen=True)
class Format:
    """A trainer's file format.

    Attributes:
      file: name of the file; its suffix says how the content is written.
      content: mixture → the file's content.
      realised: mixture → the trainer's shares of the tokens.
    """

    file: str
    content: Callable[[Mixture], Any]
    realised: Callable[[Mixture], dict[str, float]]


def trainer_files(mixture: Mixture) -> dict[str, TrainerFile]:
    """Return the file of every format, {format: file}."""
    files = {}
    for name, trainer in FORMATS.items():
        try:
            content = trainer.content(mixture)
            files[name] = TrainerFile(trainer.file, content, compare(mixture, trainer.realised(mixture)))
        except Exception as e:  # a format that fails must not take the others with it
            files[name] = TrainerFile(trainer.file, not_written=reason_of(e))
    return files


def maxtext(mixture: Mixture) -> Any:
    """MaxText's ``grain_train_mixture_config_path``: {name: {path, weight}}. Weights are shares of records."""
    return {d: {"path": mixture.path(d), "weight": w} for d, w in mixture.records.items()}


def maxtext_realised(mixture: Mixture) -> dict[str, float]:
    """grain 0.2.18, ``MapDataset.mix`` and ``IterDataset.mix``: scaled to a smallest weight of 100, rounded down."""
    scale = 100 / min(mixture.records.values())
    return mixture.tokens({d: int(w * scale) for d, w in mixture.records.items()})


def olmo_core(mixture: Mixture) -> Any:
    """OLMo-core's ``SourceMixtureList``. Ratios are shares of tokens; repetition is capped too."""
    sources = [{"source_name": d, "target_ratio": w, "paths": [mixture.path(d)]} for d, w in mixture.shares.items()]
    if mixture.max_repeats is not None:
        # k is raised by four units of rounding, because OLMo-core rounds k·N down and stops if that is one token short.
        k = mixture.max_repeats * (1 + 2**-50)
        sources = [s | {"max_repetition_ratio": max(1.0, k), "max_source_fraction": min(1.0, k)} for s in sources]
    return {"sources": sources}


def olmo_core_realised(mixture: Mixture) -> dict[str, float]:
    """ai2-olmo-core 3.0.0, ``SourceMixtureDatasetConfig.build`` with one file per domain and a run of whole batches.

    Each pass over a file is rounded down to whole sequences. Without R or N, returns the weights.
    """
    length, run = mixture.sequence_length, int(mixture.target)
    if mixture.unique_tokens is None or not run:
        return mixture.shares
    count: dict[str, int] = {}
    free = []
    for place, (domain, share) in enumerate(mixture.shares.items()):
        unique = int(mixture.unique_tokens[domain])
        passes, part = divmod(int(run * share) / unique, 1.0)
        wanted, room = math.ceil(unique * part), unique // length
        count[domain] = int(passes) * room + wanted // length
        if wanted // length < room and (part > 0 or passes == 0):
            free.append((wanted % length, place, domain, room - wanted // length))
    # Missing sequences go in equal numbers to all files with room; the rest by remainder, later files first in ties.
    total = math.ceil(run / length)
    each = max(total - sum(count.values()), 0) // max(len(free), 1)
    for _, _, domain, room in free:
        count[domain] += min(each, room)
    missing = max(total - sum(count.values()), 0)
    for _, _, domain, _ in sorted((f for f in free if f[3] > each), reverse=True)[:missing]:
        count[domain] += 1
    return normalised(count)


def _block(mixture: Mixture) -> tuple[int, dict[str, int]]:
    """Return Levanter's block size, and the sequences of each domain in a block."""
    # Large for precision, but at most a sixteenth of the run: the last block may be cut short, and its order is random.
    most = (mixture.target or math.inf) / mixture.sequence_length / 16
    block = max((b for b in BLOCKS if b <= most), default=BLOCKS[0])
    share_M, cap_M = np.array([(w, mixture.caps.get(d, 1.0)) for d, w in mixture.shares.items()]).T
    try:
        count_M = rounding.counts(share_M, block, np.zeros(len(share_M)), cap_M)
    except UserError:
        # The caps leave no room for whole sequences in a block.
        count_M = apportion.snap(share_M, block)
    return block, dict(zip(mixture.shares, count_M.tolist()))


def levanter(mixture: Mixture) -> Any:
    """Levanter's ``data`` section. Weights are shares of sequences, already rounded to whole sequences of a block."""
    block, counts = _block(mixture)
    weights = {d: n / block for d, n in counts.items()}
    components = {d: {"source": {"type": "url", "train_urls": [mixture.path(d)]}} for d in counts}
    return {"data": {"mixture_block_size": block, "train_weights": weights, "components": components}}


def levanter_realised(mixture: Mixture) -> dict[str, float]:
    """marin-levanter 0.2.20, ``MixtureDataset``: rounded down per block. Multiples of 1/block stay as they are."""
    return normalised(_block(mixture)[1])


def megatron(mixture: Mixture) -> Any:
    """Megatron-LM's ``--per-split-data-args-path``: {split: [weight, prefix, …]}. Weights are shares of sequences."""
    train = [text for d, w in mixture.shares.items() for text in (repr(w), mixture.path(d))]
    return {"train": train, "valid": None, "test": None}


def megatron_args(mixture: Mixture) -> str:
    """Megatron-LM's ``--data-args-path``, or the arguments of ``--data-path``.

    Raises:
      UserError: a path contains white space.
    """
    if spaced := [path for path in map(mixture.path, mixture.shares) if len(path.split()) != 1]:
        raise UserError(
            f"{spaced[0]!r} contains white space, at which --data-args-path splits; use {FORMATS['megatron'].file}"
        )
    return "".join(f"{w!r} {mixture.path(d)}\n" for d, w in mixture.shares.items())


def megatron_realised(mixture: Mixture) -> dict[str, float]:
    """megatron-core 0.16.1, ``build_blending_indices``: each sample goes to the domain that is furthest behind.

    In long runs that changes a few samples only, so this returns the weights.
    """
    samples = int(mixture.target // mixture.sequence_length)
    if not 1 <= samples <= SIMULATED_SAMPLES:
        return mixture.shares
    share_M = np.array(list(mixture.shares.values()))
    count_M = np.zeros(len(share_M))
    for sample in range(samples):
        count_M[np.argmax(share_M * max(sample, 1.0) - count_M)] += 1
    return normalised(dict(zip(mixture.shares, count_M.tolist())))


def _epoch(mixture: Mixture) -> int:
    """Return the records of the run; 0 if R is unknown."""
    return int(mixture.target // sum(w * mixture.record(d) for d, w in mixture.records.items()))


def streaming(mixture: Mixture) -> Any:
    """MosaicML Streaming's streams, for LLM Foundry's ``dataset`` section. Proportions are shares of records."""
    place = "remote" if "://" in mixture.paths else "local"
    streams = {d: {place: mixture.path(d), "proportion": w} for d, w in mixture.records.items()}
    return {**({"epoch_size": _epoch(mixture)} if _epoch(mixture) else {}), "streams": streams}


def streaming_realised(mixture: Mixture) -> dict[str, float]:
    """mosaicml-streaming 0.13.0, ``Stream.apply_weights``: rounded down; random streams get one more sample each."""
    size, share_M = _epoch(mixture), np.array(list(mixture.records.values()))
    if not size:
        return mixture.shares
    count_M = (size * (share_M / share_M.sum())).astype(np.int64)
    left = np.random.default_rng(STREAMING_SEED).choice(len(count_M), size - count_M.sum(), False)
    count_M[left] += 1
    return mixture.tokens(dict(zip(mixture.shares, count_M.tolist())))


def hf_datasets(mixture: Mixture) -> Any:
    """Arguments of ``datasets.interleave_datasets``. Every record is drawn at random, with these probabilities."""
    names, chances = list(mixture.records), list(mixture.records.values())
    content: dict[str, Any] = {"names": names, "paths": [mixture.path(d) for d in names], "probabilities": chances}
    return content | {"seed": 0, "stopping_strategy": "first_exhausted"}


FORMATS = {
    "maxtext": Format("maxtext_mixture.json", maxtext, maxtext_realised),
    "olmo_core": Format("olmo_core_sources.yaml", olmo_core, olmo_core_realised),
    "levanter": Format("levanter_data.yaml", levanter, levanter_realised),
    "megatron": Format("megatron_blend.json", megatron, megatron_realised),
    "megatron_args": Format("megatron_blend.txt", megatron_args, megatron_realised),
    "streaming": Format("streaming_streams.yaml", streaming, streaming_realised),
    "datasets": Format("hf_datasets.json", hf_datasets, lambda mixture: mixture.shares),
}
