"""The proposed mixture in the forms that trainers read, and what each of them makes of it.

One function per format turns a :class:`Mixture` into the text of a file, another says what the trainer does with the
weights in it: most of them round. Docstrings name the library and the version that was read for it; the tests run its
own reader (docs/handover.md). Domains of weight 0 are left out: grain and Megatron refuse them, OLMo-core and Streaming
may give them samples all the same, and ``interleave_datasets`` may wait for them for ever.
"""

import dataclasses
import functools
import json
import math
import pathlib
import re
import urllib.parse
from collections.abc import Mapping

import numpy as np
import yaml

from olmix_jax.swarm import apportion, rounding
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

# Levanter's blocks [sequences], from its default to the largest power of two that it takes.
BLOCKS = (2048, 4096, 8192, 16384, 32768)
# Streaming's default seed, which also draws the streams that get the samples left over.
STREAMING_SEED = 9176
# Samples up to which Megatron's order is followed one by one.
FOLLOWED = 20_000
# A repetition cap counts as broken from this share above it: a sample more or less is not news.
OVER = 1e-3

as_json = functools.partial(json.dumps, indent=1, ensure_ascii=False, allow_nan=False)
as_yaml = functools.partial(yaml.safe_dump, sort_keys=False, allow_unicode=True, width=1000)


@dataclasses.dataclass(frozen=True)
class Mixture:
    """What is handed over; domains come in this order in every file.

    Attributes:
      weights: share of the run's tokens per domain, at least 0; normalised where used.
      counts: tokens of the run per domain (:func:`olmix_jax.swarm.rounding.counts`); if given, they are the weights.
      target_tokens: R, tokens of the run; the sum of ``counts`` where there are any.
      unique_tokens: N, unique tokens per domain.
      max_repeats: k, epochs over a domain at most.
      sequence_length: tokens of a training sequence.
      tokens_per_record: mean tokens of a record in the domain's files, for trainers that draw records (documents) and
        not sequences; None where records are alike, as sequences are.
      paths: where a domain's data is, for the trainer; ``{domain}`` stands for :func:`file_name` of its name.

    Raises:
      UserError: a weight or count is no number ≥ 0, all are 0, domains differ, or ``paths`` has no ``{domain}``.
    """

    weights: Mapping[str, float]
    counts: Mapping[str, int] | None = None
    target_tokens: float | None = None
    unique_tokens: Mapping[str, float] | None = None
    max_repeats: float | None = None
    sequence_length: int = 4096
    tokens_per_record: Mapping[str, float] | None = None
    paths: str = "data/{domain}"

    def __post_init__(self):
        if "{domain}" not in self.paths:
            raise UserError(f"paths {self.paths!r} have no {{domain}}: every domain would have the same data")
        for what in ("weights", "counts", "unique_tokens", "tokens_per_record"):
            given = self.weights if getattr(self, what) is None else getattr(self, what)
            if set(given) != set(self.weights):
                raise UserError(f"{what} are not of the weights' domains: {sorted(set(given) ^ set(self.weights))}")
            if not all(math.isfinite(v) and v >= 0 for v in given.values()) or not any(given.values()):
                raise UserError(f"{what} must be finite, not negative and not all zero: {dict(given)}")
            if what in ("unique_tokens", "tokens_per_record") and (none := [d for d in self.shares if not given[d]]):
                raise UserError(f"{', '.join(none)}: {what} must be above 0 where the weight is")

    @property
    def shares(self) -> dict[str, float]:
        """Shares of the tokens above 0, of sum 1."""
        parts = self.counts or self.weights
        return _normalised({d: parts[d] for d in self.weights if parts[d] > 0})

    @property
    def records(self) -> dict[str, float]:
        """The shares of the records that make these shares of the tokens."""
        return _normalised({d: w / self.record(d) for d, w in self.shares.items()})

    @property
    def target(self) -> float:
        """R [tokens]; 0 where it is not known."""
        return float(sum(self.counts.values()) if self.counts else self.target_tokens or 0)

    @property
    def caps(self) -> dict[str, float]:
        """Largest weights k·N/R; none where one of the three is not known."""
        if self.unique_tokens is None or self.max_repeats is None or not self.target:
            return {}
        return {d: min(1.0, self.max_repeats * n / self.target) for d, n in self.unique_tokens.items()}

    def record(self, domain: str) -> float:
        """Tokens of a record; of a sequence, where records are alike."""
        return (self.tokens_per_record or {}).get(domain, self.sequence_length)

    def path(self, domain: str) -> str:
        """Where the data of ``domain`` is."""
        return self.paths.replace("{domain}", file_name(domain))

    def tokens(self, records: Mapping[str, float]) -> dict[str, float]:
        """The shares of the tokens that these records make."""
        return _normalised({d: n * self.record(d) for d, n in records.items()})


def file_name(domain: str) -> str:
    """The name of ``domain`` in a path, as in this project's own corpus: letters, digits and ``_ .+-`` stay, the rest
    is percent-quoted. So no name is a folder, a pattern, or another's name."""
    return re.sub(r"[^\w .+-]", lambda m: urllib.parse.quote(m[0], safe=""), domain)


def _normalised(parts: Mapping[str, float]) -> dict[str, float]:
    total = sum(parts.values())
    return {d: float(part / total) if total else 0.0 for d, part in parts.items()}


def maxtext(mixture: Mixture) -> str:
    """MaxText's ``grain_train_mixture_config_path``: JSON {name: {path, weight}}; weights are of records."""
    return as_json({d: {"path": mixture.path(d), "weight": w} for d, w in mixture.records.items()})


def maxtext_realised(mixture: Mixture) -> dict[str, float]:
    """grain 0.2.18 ``MapDataset.mix`` and ``IterDataset.mix``: whole parts, 100 of the rarest, rounded down."""
    scale = 100 / min(mixture.records.values())
    return mixture.tokens({d: int(w * scale) for d, w in mixture.records.items()})


def olmo_core(mixture: Mixture) -> str:
    """OLMo-core's ``SourceMixtureList``: YAML; ratios are of tokens, and OLMo-core caps repetition as well."""
    sources = [{"source_name": d, "target_ratio": w, "paths": [mixture.path(d)]} for d, w in mixture.shares.items()]
    if mixture.max_repeats is not None:
        # Up by four roundings: OLMo-core rounds k·N down, and stops if that is a token short.
        k = mixture.max_repeats * (1 + 2**-50)
        sources = [s | {"max_repetition_ratio": max(1.0, k), "max_source_fraction": min(1.0, k)} for s in sources]
    return as_yaml({"sources": sources})


def olmo_core_realised(mixture: Mixture) -> dict[str, float]:
    """ai2-olmo-core 3.0.0 ``SourceMixtureDatasetConfig.build`` with one file per domain and a run of whole batches:
    each pass over a file is rounded down to whole sequences. Without R and N the weights themselves are given."""
    length, run = mixture.sequence_length, int(mixture.target)
    if mixture.unique_tokens is None or not run:
        return mixture.shares
    count, free = {}, []
    for place, (domain, share) in enumerate(mixture.shares.items()):
        unique = int(mixture.unique_tokens[domain])
        passes, part = divmod(int(run * share) / unique, 1.0)
        wanted, room = math.ceil(unique * part), unique // length
        count[domain] = int(passes) * room + wanted // length
        if wanted // length < room and (part > 0 or passes == 0):
            free.append((wanted % length, place, domain, room - wanted // length))
    # What is missing goes to all that have room alike, and the rest by remainders, to later ones first in ties.
    total = math.ceil(run / length)
    each = max(total - sum(count.values()), 0) // max(len(free), 1)
    for _, _, domain, room in free:
        count[domain] += min(each, room)
    missing = max(total - sum(count.values()), 0)
    for _, _, domain, _ in sorted((f for f in free if f[3] > each), reverse=True)[:missing]:
        count[domain] += 1
    return _normalised(count)


def _block(mixture: Mixture) -> tuple[int, dict[str, int]]:
    """Levanter's block, and the sequences of each domain in it."""
    # Fine, but a sixteenth of the run at most: the last block may be cut short, where its order is random.
    most = (mixture.target or math.inf) / mixture.sequence_length / 16
    block = max((b for b in BLOCKS if b <= most), default=BLOCKS[0])
    share_M, cap_M = np.array([(w, mixture.caps.get(d, 1.0)) for d, w in mixture.shares.items()]).T
    try:
        count_M = rounding.counts(share_M, block, np.zeros(len(share_M)), cap_M)
    except UserError:
        # Caps that leave no room in whole sequences of a block.
        count_M = apportion.snap(share_M, block)
    return block, dict(zip(mixture.shares, count_M.tolist()))


def levanter(mixture: Mixture) -> str:
    """Levanter's ``data`` section: YAML; weights are of sequences, and whole ones of a block already."""
    block, counts = _block(mixture)
    weights = {d: n / block for d, n in counts.items()}
    components = {d: {"source": {"type": "url", "train_urls": [mixture.path(d)]}} for d in counts}
    return as_yaml({"data": {"mixture_block_size": block, "train_weights": weights, "components": components}})


def levanter_realised(mixture: Mixture) -> dict[str, float]:
    """marin-levanter 0.2.20 ``MixtureDataset`` rounds down per block; parts of a power of two stay as they are."""
    return _normalised(_block(mixture)[1])


def megatron(mixture: Mixture) -> str:
    """Megatron-LM's ``--per-split-data-args-path``: JSON {split: [weight, prefix, …]}; weights are of sequences."""
    train = [text for d, w in mixture.shares.items() for text in (repr(w), mixture.path(d))]
    return as_json({"train": train, "valid": None, "test": None})


def megatron_args(mixture: Mixture) -> str:
    """Megatron-LM's ``--data-args-path``, or what follows ``--data-path``; a UserError if a path has white space."""
    if spaced := [path for path in map(mixture.path, mixture.shares) if len(path.split()) != 1]:
        raise UserError(f"{spaced[0]!r} has white space, where --data-args-path splits: use {FORMATS['megatron'][0]}")
    return "".join(f"{w!r} {mixture.path(d)}\n" for d, w in mixture.shares.items())


def megatron_realised(mixture: Mixture) -> dict[str, float]:
    """megatron-core 0.16.1 ``build_blending_indices``: each sample goes to the domain that is furthest behind; in long
    runs that is a few samples, and the weights themselves are given."""
    samples = int(mixture.target // mixture.sequence_length)
    if not 1 <= samples <= FOLLOWED:
        return mixture.shares
    share_M = np.array(list(mixture.shares.values()))
    count_M = np.zeros(len(share_M))
    for sample in range(samples):
        count_M[np.argmax(share_M * max(sample, 1.0) - count_M)] += 1
    return _normalised(dict(zip(mixture.shares, count_M.tolist())))


def _epoch(mixture: Mixture) -> int:
    """Records of the run; 0 where R is not known."""
    return int(mixture.target // sum(w * mixture.record(d) for d, w in mixture.records.items()))


def streaming(mixture: Mixture) -> str:
    """MosaicML Streaming's streams, for LLM Foundry's ``dataset`` section: YAML; proportions are of records."""
    place = "remote" if "://" in mixture.paths else "local"
    streams = {d: {place: mixture.path(d), "proportion": w} for d, w in mixture.records.items()}
    return as_yaml({**({"epoch_size": _epoch(mixture)} if _epoch(mixture) else {}), "streams": streams})


def streaming_realised(mixture: Mixture) -> dict[str, float]:
    """mosaicml-streaming 0.13.0 ``Stream.apply_weights``: rounded down, what is left to random streams, one each."""
    size, share_M = _epoch(mixture), np.array(list(mixture.records.values()))
    if not size:
        return mixture.shares
    count_M = (size * (share_M / share_M.sum())).astype(np.int64)
    left = np.random.default_rng(STREAMING_SEED).choice(len(count_M), size - count_M.sum(), False)
    count_M[left] += 1
    return mixture.tokens(dict(zip(mixture.shares, count_M.tolist())))


def hf_datasets(mixture: Mixture) -> str:
    """What ``datasets.interleave_datasets`` takes: JSON; probabilities are of records, each drawn at random."""
    names, chances = list(mixture.records), list(mixture.records.values())
    content = {"names": names, "paths": [mixture.path(d) for d in names], "probabilities": chances}
    return as_json(content | {"seed": 0, "stopping_strategy": "first_exhausted"})


# Name: its file, the file's text, and the weights that the trainer makes of it, as shares of the tokens.
FORMATS = {
    "maxtext": ("maxtext_mixture.json", maxtext, maxtext_realised),
    "olmo_core": ("olmo_core_sources.yaml", olmo_core, olmo_core_realised),
    "levanter": ("levanter_data.yaml", levanter, levanter_realised),
    "megatron": ("megatron_blend.json", megatron, megatron_realised),
    "megatron_args": ("megatron_blend.txt", megatron_args, megatron_realised),
    "streaming": ("streaming_streams.yaml", streaming, streaming_realised),
    "datasets": ("hf_datasets.json", hf_datasets, lambda mixture: mixture.shares),
}


def write_all(folder: str | pathlib.Path, mixture: Mixture) -> dict[str, dict[str, float]]:
    """Writes the file of every format, and ``handover.json``: what each trainer makes of the weights.

    A format that cannot say this mixture is left out with the reason, and its file of an earlier mixture goes.

    Returns:
      format → domain → realised share of the tokens, zeros included; without formats that were left out.
    """
    folder, report = pathlib.Path(folder), {}
    for name, (file, text, realised) in FORMATS.items():
        try:
            content = text(mixture)
        except UserError as e:
            (folder / file).unlink(missing_ok=True)
            report[name] = {"not_written": str(e)}
        else:
            files.write_text(folder / file, content)
            report[name] = {"file": file, **compared(mixture, realised(mixture))}
    asked = {d: mixture.shares.get(d, 0.0) for d in mixture.weights}
    content = {"weights": asked, "target_tokens": mixture.target or None, "counts": mixture.counts, "formats": report}
    files.write_json(folder / "handover.json", content)
    return {name: entry["realised"] for name, entry in report.items() if "realised" in entry}


def compared(mixture: Mixture, realised: Mapping[str, float]) -> dict:
    """Realised shares and how they differ: the largest difference, domains that get nothing, and caps that break."""
    off = {d: realised[d] - w for d, w in mixture.shares.items()}
    worst = max(off, key=lambda d: abs(off[d]))
    epochs = {d: realised.get(d, 0.0) / c * mixture.max_repeats for d, c in mixture.caps.items() if c}
    return {
        "realised": {d: realised.get(d, 0.0) for d in mixture.weights},
        "largest_deviation": {"domain": worst, "by": off[worst], "relative": off[worst] / mixture.shares[worst]},
        "lost": [d for d in mixture.shares if not realised[d]],
        "epochs_over_cap": {d: n for d, n in epochs.items() if n > mixture.max_repeats * (1 + OVER)},
    }
