"""Measure how often the promised interval of the gain holds what trained models measure, over subsets of domains.

python -m experiments.laws_at_their_optimum.subsets --scale=cpu --workdir=runs/subsets

The experiment draws subsets of the built-in corpus's domains. For each subset it makes a tokenizer and tasks, trains a
swarm of the quickstart's proxies, and takes the default law's proposal. Then it trains fresh models on the natural and
the proposed mixture: half of them as long as the proxies, for which the promise is made, and half 1.8 times as long.
``results.json`` has a row per subset and length.
"""

import dataclasses
import json
import math
import pathlib
import shutil

import numpy as np

from benchmarks.laws_page import table
from configs import quickstart
from experiments import common
from olmix_jax import config as configs
from olmix_jax.corpus import builtin
from olmix_jax.pipeline import runner, validate
from olmix_jax.propose.proposal import Proposal
from olmix_jax.utils import files, rng
from olmix_jax.utils.progress import log

# Bytes of text of all eight domains before the subset is taken.
BYTES = 4_000_000


@dataclasses.dataclass(frozen=True)
class Scale:
    """The variant of the quickstart, and the size of the experiment.

    Attributes:
      subsets: number of subsets.
      domains: number of domains of each.
      runs: proxies of each.
      seeds: seeds of each mixture and length.
    """

    variant: str
    subsets: int
    domains: int
    runs: int
    seeds: int


SCALES = {"smoke": Scale("smoke", 1, 3, 12, 2), "cpu": Scale("", 4, 5, 30, 6)}


@dataclasses.dataclass(frozen=True)
class Row:
    """Promise and measurement of one subset. Gains are over natural, averaged over tasks [BPB].

    Attributes:
      domains: names of the subset.
      tokens: training tokens of a measured model.
      of_proxies: whether these models train as long as the proxies.
      promised, low, high: of the proposal's ``gain``.
      measured, error: mean over seeds that natural and proposed share, and its standard error.
    """

    domains: tuple[str, ...]
    tokens: int
    of_proxies: bool
    promised: float
    low: float
    high: float
    measured: float
    error: float

    @property
    def distance(self) -> float:
        """How far the measured gain lies from the promised one, in standard deviations of both together."""
        return (self.measured - self.promised) / math.hypot(self.error, (self.high - self.low) / (2 * 1.645))


def subsets(number: int, domains: int, seed: int) -> list[tuple[str, ...]]:
    """Draw different subsets of the built-in corpus's domains."""
    draw, subsets_of = rng.generator(seed, "subsets"), {}
    while len(subsets_of) < number:
        chosen = sorted(draw.choice(len(builtin.NAMES), domains, replace=False).tolist())
        subsets_of[tuple(builtin.NAMES[j] for j in chosen)] = None
    return list(subsets_of)


def write_text(folder: pathlib.Path, names: tuple[str, ...], max_bytes: int) -> None:
    """Write the documents of some domains of the built-in corpus, one .jsonl file per domain."""
    for name, documents in builtin.stream(max_bytes):
        if name in names:
            with files.atomic_write(folder / f"{name}.jsonl", "w") as f:
                f.writelines(json.dumps({"text": document.text}) + "\n" for document in documents)


def measured(scale: Scale, names: tuple[str, ...], workdir: pathlib.Path, seed: int) -> list[Row]:
    """Return the rows of one subset."""
    write_text(workdir / "text", names, BYTES if not scale.variant else 1_000_000)
    settings = quickstart.get_config(scale.variant)
    settings.seed, settings.corpus.path, settings.corpus.max_bytes = seed, str(workdir / "text"), 0
    settings.swarm.size, settings.validate.seeds = scale.runs, scale.seeds
    settings.propose.explore = False
    config = configs.from_dict(settings)
    runner.run(config, workdir, ("prepare", "sample", "train", "fit", "propose"))
    proposal = Proposal.read(workdir / "propose/proposal.json")
    natural_M, proposed_M = (np.array([*weights.values()]) for weights in (proposal.natural, proposal.weights))
    rows, gain = [], proposal.gain
    for steps in (config.train.steps, config.validate.steps):
        longer = dataclasses.replace(config, validate=dataclasses.replace(config.validate, steps=steps))
        # The checkpoints of the shorter models would be refused by the longer ones.
        shutil.rmtree(workdir / "validate", ignore_errors=True)
        validation = validate.compare(longer, workdir, {"natural": natural_M, "proposed": proposed_M})
        natural_S, proposed_S = (np.array(validation.mixtures[name].per_seed) for name in ("natural", "proposed"))
        gain_S = natural_S - proposed_S
        rows.append(
            Row(
                names,
                validation.tokens,
                steps == config.train.steps,
                gain.mean,
                gain.low,
                gain.high,
                float(gain_S.mean()),
                float(gain_S.std(ddof=1) / len(gain_S) ** 0.5),
            )
        )
    return rows


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> list[Row]:
    """Measure all subsets, and write the rows."""
    rows: list[Row] = []
    for number, names in enumerate(subsets(scale.subsets, scale.domains, seed)):
        rows += measured(scale, names, workdir / str(number), seed + number)
        common.write_results(workdir, {"rows": [dataclasses.asdict(row) for row in rows]})
        log.info("subset %d of %d: %s", number + 1, scale.subsets, ", ".join(names))
    return rows


def summary(rows: list[Row]) -> str:
    """Return a table of promises and measurements."""
    lines = [
        (
            ", ".join(row.domains),
            f"{row.tokens:,}",
            f"{row.promised:+.4f}",
            f"{row.low:+.4f} to {row.high:+.4f}",
            f"{row.measured:+.4f} ± {row.error:.4f}",
            f"{row.distance:+.1f}",
        )
        for row in rows
    ]
    return table(("domains", "tokens", "promised", "5–95 %", "measured", "distance, standard deviations"), lines)


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()
