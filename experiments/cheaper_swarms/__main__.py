"""Compare swarms that cost less with a swarm of full proxies, on what their proposals gain.

python -m experiments.cheaper_swarms --scale=cpu --workdir=runs/cheaper_swarms

For each corpus, a judge is trained first: a swarm of full proxies on other mixtures. For each seed, every design is
trained, and then fresh, longer models on natural and on all proposals, with common seeds. ``results.json`` has, by
corpus and design, tokens, measured gain, rank correlations with the judge's proxies, and regret by the judge's law.
The experiment resumes, and --seeds adds seeds.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Mapping, Sequence

import ml_collections
import numpy as np

from benchmarks.laws_page import table
from configs import packages, quickstart
from experiments import common
from experiments.cheaper_swarms import designs
from experiments.cheaper_swarms.designs import Design
from olmix_jax import config as configs
from olmix_jax.config import workdir as workdirs
from olmix_jax.pipeline import runner, validate
from olmix_jax.propose.proposal import Proposal
from olmix_jax.update import history
from olmix_jax.utils import files, rng
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

FULL = "full"


@dataclasses.dataclass(frozen=True)
class Scale:
    """The corpora, the judge's proxies, and how many seeds of fresh models each mixture has."""

    corpora: tuple[str, ...]
    judge: int
    seeds: int


SCALES = {"smoke": Scale(("smoke",), 12, 2), "cpu": Scale(("builtin", "topics"), 40, 5)}


def settings_of(corpus: str, seed: int) -> ml_collections.ConfigDict:
    """Return the full swarm's config: the quickstart's, or that of its models on 16 topics of data/packages."""
    c = quickstart.get_config("smoke" if corpus == "smoke" else "")
    if corpus == "topics":
        text, folder = packages.get_config(), pathlib.Path(packages.get_config().corpus.path)
        if not folder.is_dir():
            raise UserError(f"there is no {folder}; run `make corpus` once")
        names = sorted(path.name for path in folder.iterdir() if path.is_dir())
        chosen = rng.generator(0, "topics").choice(names, 16, replace=False)
        c.corpus, c.tasks = text.corpus, text.tasks
        c.corpus.path = json.dumps({name: str(folder / name / "*") for name in sorted(chosen.tolist())})
        c.swarm.sparsity, c.swarm.strength = text.swarm.sparsity, text.swarm.strength
        c.swarm.size = 3 * (16 + 1)
    c.seed, c.propose.explore = seed, False
    return c


@dataclasses.dataclass(frozen=True)
class Seed:
    """One seed's designs, and the gain over natural of fresh models on each proposal, by model seed [BPB]."""

    designs: Mapping[str, Design]
    gain_S: Mapping[str, np.ndarray]


def run_seed(
    settings: ml_collections.ConfigDict, prepared: pathlib.Path, workdir: pathlib.Path, judge: pathlib.Path, number: int
) -> Seed:
    """Train the designs of one repetition, then fresh models on their proposals."""
    trained = designs.run(settings, prepared, workdir, judge, number)
    natural_M = workdirs.read_domains(prepared).natural_M
    mixtures = {"natural": natural_M / natural_M.sum()} | {name: each.weights_M for name, each in trained.items()}
    fresh = workdir / "fresh"
    designs.copy_prepared(prepared, fresh)
    result = fresh / "bpb.json"
    if not result.is_file():
        config = dataclasses.replace(configs.from_dict(settings), seed=rng.derive(settings.seed, f"fresh/{number}"))
        scores = validate.compare(config, fresh, mixtures).mixtures
        files.write_json(result, {name: list(score.per_seed) for name, score in scores.items()})
    bpb_S = {name: np.array(values) for name, values in files.read_json(result).items()}
    return Seed(trained, {name: bpb_S["natural"] - bpb_S[name] for name in trained})


def measured(gain_RS: np.ndarray) -> dict[str, float]:
    """Return mean and standard error of gains by swarm and model seed: the larger of the errors over swarms and models.

    With few swarms, their own deviation is known badly; with one, it is not known.
    """
    means_R, error = gain_RS.mean(axis=1), gain_RS.std(ddof=1) / math.sqrt(gain_RS.size)
    if len(means_R) > 1:
        error = max(error, means_R.std(ddof=1) / math.sqrt(len(means_R)))
    return {"mean": float(gain_RS.mean()), "error": float(error)}


def summarised(seeds: Sequence[Seed], judge: pathlib.Path) -> dict[str, dict]:
    """Return the row of every design."""
    law = history.read_law(judge, workdirs.read_config(judge))
    best_M = np.array([*Proposal.read(judge / "propose/proposal.json").weights.values()])
    rows = {}
    for name in seeds[0].designs:
        each, gain_RS = [seed.designs[name] for seed in seeds], np.stack([seed.gain_S[name] for seed in seeds])
        full_RS = np.stack([seed.gain_S[FULL] for seed in seeds])
        predicted_R = law.predict(np.stack([best_M, *(design.weights_M for design in each)])).mean(axis=1)
        rows[name] = {
            "tokens": float(np.mean([design.tokens for design in each])),
            "gain": measured(gain_RS),
            "gain_minus_full": measured(gain_RS - full_RS),
            "regret": float((predicted_R[1:] - predicted_R[0]).mean()),
            "spearman_task_mean": float(np.mean([design.spearman_task_mean for design in each])),
            "spearman_of_mean": float(np.mean([design.spearman_of_mean for design in each])),
            "seeds": [
                {"gain": gain_S.tolist(), **dataclasses.asdict(design) | {"weights_M": design.weights_M.tolist()}}
                for gain_S, design in zip(gain_RS, each)
            ],
        }
    return rows


def run(scale: Scale, workdir: pathlib.Path, seed: int, seeds: int) -> dict[str, dict]:
    """Run all corpora, and write the results after each seed."""
    corpora: dict[str, dict] = {}
    for corpus in scale.corpora:
        settings, place = settings_of(corpus, seed), workdir / corpus
        settings.validate.seeds = scale.seeds
        prepared, judge = place / "prepared", place / "judge"
        runner.run(configs.from_dict(settings), prepared, ("prepare",))
        designs.train_judge(settings, prepared, judge, scale.judge)
        done: list[Seed] = []
        for number in range(seeds):
            done.append(run_seed(settings, prepared, place / str(number), judge, number))
            corpora[corpus] = {"swarms": len(done), "designs": summarised(done, judge)}
            common.write_results(workdir, {"corpora": corpora})
            log.info("cheaper_swarms: %s, seed %d of %d", corpus, number + 1, seeds)
    return corpora


def summary(corpora: Mapping[str, dict]) -> str:
    """Return a table of all designs."""
    lines = []
    for corpus, result in corpora.items():
        full = result["designs"][FULL]["tokens"]
        for name, row in result["designs"].items():
            gain, less = ("{mean:+.4f} ± {error:.4f}".format(**row[key]) for key in ("gain", "gain_minus_full"))
            ranks = f"{row['spearman_task_mean']:.3f} / {row['spearman_of_mean']:.3f}"
            lines.append((corpus, name, f"{row['tokens'] / full:.2f}", ranks, f"{row['regret']:.4f}", gain, less))
    return table(("corpus", "design", "tokens / full", "Spearman", "regret", "gain", "gain − full's"), lines)


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES), seeds=(3, "seeds of the designs, per corpus"))
    print(summary(run(SCALES[flags.scale], flags.workdir, flags.seed, flags.seeds)))


if __name__ == "__main__":
    main()
