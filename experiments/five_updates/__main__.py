"""Update a domain set five times by every strategy, and compare the mixtures by trained models (paper §5.1, Table 5).

python -m experiments.five_updates --scale=cpu --workdir=runs/five_updates

The built-in corpus starts with fourteen domains. One domain is added, then two; one is revised, one removed, one
partitioned. Every strategy makes all five updates with its own runs and mixtures. At the end, new models are trained on
the last mixture of each strategy, with the same seeds, and scored by the mean over four families of tasks.

At the scale `equal`, every strategy gets the same number of runs per update and may use old runs, so the strategies
differ only in what they recompute; `carry` recomputes nothing.
"""

import dataclasses
import json
import pathlib
import time

import numpy as np

from experiments import common
from experiments.five_updates import corpus, paper
from olmix_jax import config as configs
from olmix_jax.pipeline import runner
from olmix_jax.swarm import task_groups
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.update import strategies
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils import files, records
from olmix_jax.utils.progress import log

# {strategy: settings of the section `update`}. Old runs are used where the paper uses them, and by `auto`.
STRATEGIES = {
    "full": {"strategy": "full", "old_runs": False},
    "full_reuse": {"strategy": "full_reuse", "old_runs": False},
    "partial_reuse": {"strategy": "partial_reuse", "old_runs": False},
    "swarm_reuse": {"strategy": "swarm_reuse", "old_runs": True},
    "auto": {"strategy": "auto", "old_runs": True},
}
EQUAL = {name: {"strategy": name, "old_runs": True} for name in ("full", "full_reuse", "auto")}
# The domains that partial_reuse recomputes besides the affected ones, by update: the most similar ones.
LIKE = {1: (), 2: ("text:docstrings:rest",), 3: ("text:docstrings:rest",), 4: (), 5: ("code:numerics:numpy",)}
FAMILIES = {"c": ["c:*"], "documentation": ["docs:*"], "python": ["python:*"], "types": ["types:*"]}
# Shares of full recomputation's gain are meaningful only if that gain is at least this many standard errors.
CERTAIN = 4.0
# A share is above or below 95 % only if it differs by this many standard errors.
SURE = 2.0
CPU = {"max_bytes": 4_000_000, "examples": 96, "steps": 256, "batch": 4, "length": 128, "target": 700, "seeds": 16}
SCALES = {
    # The smallest scale that runs every stage.
    "smoke": {"max_bytes": 4_000_000, "examples": 8, "steps": 20, "batch": 5, "length": 32, "target": 30, "seeds": 2},
    # 256 · 4 · 128 = 131,072 tokens per proxy, two per parameter; 358,400 tokens per target run.
    "cpu": CPU,
    "equal": CPU | {"proxies": 24},
}


def settings(scale: dict, folder: pathlib.Path, step: int, **update) -> configs.Config:
    """Return the config of a step: the quickstart's models, at this experiment's scale."""
    c = configs.default()
    c.seed = scale.get("seed", 0)
    c.corpus.path, c.tasks.path = str(folder / f"corpus/{step}"), str(folder / "tasks")
    c.corpus.heldout, c.corpus.vocabulary, c.corpus.min_tokens = 0.0, 1024, 256
    c.tasks.length, c.tasks.max_examples = 128, scale["examples"]
    c.proxy.preset, c.proxy.length = "tiny", scale["length"]
    c.train.steps, c.train.batch, c.train.lr = scale["steps"], scale["batch"], 0.015
    c.swarm.sparsity, c.swarm.strength, c.swarm.size = "dense", (0.5, 5.0), 32
    c.swarm.min_runs = 3
    c.propose.kl_weight, c.propose.explore, c.propose.next_runs = 0.1, False, 0
    c.fit.resamples, c.fit.families = 32, json.dumps(FAMILIES)
    c.propose.task_weights = json.dumps(dict.fromkeys(FAMILIES, 1))
    c.validate.steps, c.validate.seeds = scale["target"], scale["seeds"]
    for name, value in update.items():
        c["update"][name] = value
    if update:
        c.update.file = str(folder / f"updates/{step}.json")
    return configs.from_dict(c)


def chain(name: str, how: dict, scale: dict, folder: pathlib.Path, steps: int) -> dict:
    """Make all updates by one strategy; return its last workdir, and the runs and the plan of each update."""
    parent, runs, updates = folder / "first", [], []
    for step in range(1, steps):
        log.info("five updates: %s, update %d", name, step)
        extra = {}
        if how["strategy"] == "partial_reuse":
            extra = {"recompute": LIKE[step]} if LIKE[step] else {"strategy": "full_reuse"}
        made = settings(scale, folder, step, parent=str(parent), proxies=scale.get("proxies"), **how | extra)
        workdir = folder / name / str(step)
        runner.run(made, workdir, ("prepare", "update", "sample", "train", "fit", "propose"))
        plan = UpdatePlan.read(workdir / "update/plan.json")
        proposal = files.read_json(workdir / "propose/proposal.json")
        runs.append(plan.proxies)
        updates.append({"recomputed": plan.recomputed, "why": plan.why, "reuse": proposal["reuse"]})
        parent = workdir
    return {"workdir": str(parent), "proxies": runs, "updates": updates}


def carried(chains: dict, folder: pathlib.Path, steps: int) -> dict:
    """Carry the first mixture through all updates without recomputing anything."""
    proposal = files.read_json(folder / "first/propose/proposal.json")
    weights = proposal["weights"]
    for step in range(1, steps):
        workdir = folder / f"{next(iter(chains))}/{step}"
        change = UpdatePlan.read(workdir / "update/plan.json").change
        new = DomainSet.read(workdir / "domains.json")
        old_M = [weights[change.origin[name]] if name in change.origin else 0.0 for name in new.names]
        blocks = strategies.apply(strategies.Strategy.CARRY, new.names, change.affected, old_M, new.natural_M).blocks
        weights = dict(zip(new.names, blocks.ratios_DM[0].tolist()))
    return {"proxies": [0] * (steps - 1), "weights": weights, "updates": []}


def train_models(chains: dict, scale: dict, folder: pathlib.Path, steps: int) -> dict:
    """Train new models on every strategy's last mixture and on the natural one, with the same seeds."""
    from olmix_jax.pipeline import validate

    last = pathlib.Path(chains["full"]["workdir"])
    domains = DomainSet.read(last / "domains.json")
    mixtures, caps = {"natural": domains.natural_M}, {}
    for name, done in chains.items():
        if "workdir" in done:
            proposal = files.read_json(pathlib.Path(done["workdir"]) / "propose/proposal.json")
            caps[name] = np.array([proposal["caps"][d] for d in domains.names])
            done["weights"] = proposal["weights"]
        mixtures[name] = np.array([done["weights"][d] for d in domains.names])
    # The models train on the text in the last workdir of `full`, and their checkpoints are written there.
    return records.plain(validate.compare(settings(scale, folder, steps - 1), last, mixtures, caps))


def by_family(row: dict) -> np.ndarray:
    """Return a mixture's BPB for each seed: the mean over families of the mean over their tasks."""
    tasks = row["tasks"]
    families = task_groups.families_of(tuple(tasks), FAMILIES).values()
    return np.mean([np.mean([tasks[t]["per_seed"] for t in members], axis=0) for members in families], axis=0)


def summary(chains: dict, trained: dict, first: int) -> dict:
    """Return gains over natural in percent, and shares of full recomputation's gain, with standard errors."""
    each = {name: by_family(row) for name, row in trained["mixtures"].items()}
    gain = {name: 100 * (1 - bpb_S / each["natural"]) for name, bpb_S in each.items() if name != "natural"}
    total = {name: first + sum(done["proxies"]) for name, done in chains.items()}
    rows = {}
    for name, gain_S in gain.items():
        seeds = len(gain_S)
        # Strategies share seeds, so the error of a ratio is estimated by the jackknife over seeds.
        without_S = np.array([np.delete(gain_S, s).mean() / np.delete(gain["full"], s).mean() for s in range(seeds)])
        rows[name] = {
            "proxies": total[name],
            "share_of_proxies": total[name] / total["full"],
            "gain_percent": gain_S.mean(),
            "gain_error": gain_S.std(ddof=1) / np.sqrt(seeds),
            "share_of_gain": gain_S.mean() / gain["full"].mean(),
            "share_error": np.sqrt((seeds - 1) / seeds * ((without_S - without_S.mean()) ** 2).sum()),
            "gain_per_seed": gain_S,
        }
    return rows


def verdict(rows: dict) -> list[str]:
    """State whether reuse keeps 95 % of the gain at 30 % of the proxies, and whether the errors allow a conclusion."""
    full, lines = rows["full"], []
    if "carry" in rows:
        fixed = max((n for n in rows if n != "auto"), key=lambda n: rows[n]["gain_percent"])
        more_S = np.subtract(rows["auto"]["gain_per_seed"], rows[fixed]["gain_per_seed"])
        error = more_S.std(ddof=1) / np.sqrt(len(more_S))
        return [
            f"auto over the best fixed rule at equal runs, {fixed}: {more_S.mean():+.2f} ± {error:.2f} % of natural's "
            f"BPB, {'not worse' if more_S.mean() > -2 * error else 'worse'} at two standard errors"
        ]
    for name in ("full_reuse", "auto"):
        row = rows[name]
        low, high = (row["share_of_gain"] + side * SURE * row["share_error"] for side in (-1, 1))
        kept = "keeps" if low >= 0.95 else "does not keep" if high < 0.95 else "may or may not keep"
        cheap = "" if row["share_of_proxies"] <= 0.30 else ", for more than 30 %"
        lines.append(
            f"{name} {kept} 95 % of the gain{cheap}: {100 * row['share_of_gain']:.0f} ± "
            f"{100 * row['share_error']:.0f} % of it for {100 * row['share_of_proxies']:.0f} % of the proxies "
            f"({row['proxies']} of {full['proxies']})"
        )
    # A share of a gain that is hardly significant has no meaning.
    certain = full["gain_percent"] / full["gain_error"] if full["gain_error"] > 0 else np.inf
    if certain < CERTAIN:
        lines.append(
            f"inconclusive: full recomputation gains only {full['gain_percent']:.2f} ± {full['gain_error']:.2f} % over "
            f"natural, {certain:.1f} standard errors, so these shares are noise; use more seeds, or more tokens per "
            "proxy"
        )
    return lines


def _paper(flags) -> None:
    """Replay the paper's updates from its published swarms."""
    if not flags.published:
        raise SystemExit("--scale=paper needs --published=DIR, the folder with dclm_swarm/ and mixture_reuse/")
    results = paper.replay(pathlib.Path(flags.published))
    common.write_results(flags.workdir, results)
    for row in results["rows"]:
        top = sorted(row["weights"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} {100 * weight:.1f} %" for name, weight in top)
        print(f"update {row['update']}: {row['proxies']:4d} proxies, {len(row['weights']):3d} domains; {shown}")
    print(f"{results['proxies']} proxies; {paper.PAPER['full_reuse']['proxies']} in the paper's full reuse")


def main() -> None:
    more = {"published": ("", "for --scale=paper: the folder with dclm_swarm/ and mixture_reuse/")}
    flags = common.arguments(__doc__, (*SCALES, "paper"), **more)
    if flags.scale == "paper":
        return _paper(flags)
    scale, folder, begun = SCALES[flags.scale] | {"seed": flags.seed}, flags.workdir, time.monotonic()
    if not (folder / "tasks").is_dir():
        corpus.write(folder, *corpus.steps(scale["max_bytes"], scale["examples"]))
    steps = len(list((folder / "updates").glob("*.json")))
    first = settings(scale, folder, 0)
    runner.run(first, folder / "first", ("prepare", "sample", "train", "fit", "propose"))
    rules = EQUAL if "proxies" in scale else STRATEGIES
    chains = {name: chain(name, how, scale, folder, steps) for name, how in rules.items()}
    if "proxies" in scale:
        chains["carry"] = carried(chains, folder, steps)
    trained = train_models(chains, scale, folder, steps)
    rows = summary(chains, trained, first.swarm.size)
    results = {
        "scale": {"name": flags.scale, **scale},
        "config": dataclasses.asdict(first),
        "strategies": rows,
        "chains": chains,
        "validation": trained,
        "verdict": verdict(rows),
        "seconds": time.monotonic() - begun,
    }
    common.write_results(folder, results)
    for name, row in rows.items():
        print(
            f"{name:12s} {row['proxies']:4d} proxies  gain over natural {row['gain_percent']:6.2f} ± "
            f"{row['gain_error']:.2f} %  {100 * row['share_of_gain']:4.0f} ± {100 * row['share_error']:.0f} % of full"
        )
    print("\n".join(results["verdict"]))


if __name__ == "__main__":
    main()
