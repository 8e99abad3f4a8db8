"""Five updates of a domain set, by every strategy, each on models trained for real (METHOD §3; paper §5.1, Table 5).

python -m experiments.five_updates --scale=cpu --workdir=runs/five_updates

The built-in corpus begins with fourteen domains; one is added, then two; one is revised, one removed, one partitioned.
Every strategy goes through all five with its own mixtures and runs; at the end fresh models are trained on each
strategy's mixture, with the same seeds. Mixtures are judged by the mean over four families of tasks.

At the scale `equal` every strategy gets the same number of runs for each update and may use old runs, so that what is
recomputed is all that differs; `carry` recomputes nothing.
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
from olmix_jax.utils import devices, files, records
from olmix_jax.utils.progress import log

# {strategy: settings of update}; old runs inform the law only where the paper has it so, but for ours, `auto`.
STRATEGIES = {
    "full": {"strategy": "full", "old_runs": False},
    "full_reuse": {"strategy": "full_reuse", "old_runs": False},
    "partial_reuse": {"strategy": "partial_reuse", "old_runs": False},
    "swarm_reuse": {"strategy": "swarm_reuse", "old_runs": True},
    "auto": {"strategy": "auto", "old_runs": True},
}
EQUAL = {name: {"strategy": name, "old_runs": True} for name in ("full", "full_reuse", "auto")}
# What partial_reuse recomputes beside the affected domains, for each update: the domain most like them.
LIKE = {1: (), 2: ("text:docstrings:rest",), 3: ("text:docstrings:rest",), 4: (), 5: ("code:numerics:numpy",)}
FAMILIES = {"c": ["c:*"], "documentation": ["docs:*"], "python": ["python:*"], "types": ["types:*"]}
# Standard errors that full recomputation must gain for its shares to mean something; and those within which a share may
# be on either side of 95 %.
CERTAIN, SURE = 4.0, 2.0
CPU = {"max_bytes": 4_000_000, "examples": 96, "steps": 256, "batch": 4, "length": 128, "target": 700, "seeds": 16}
SCALES = {
    # The least that goes through every stage.
    "smoke": {"max_bytes": 4_000_000, "examples": 8, "steps": 20, "batch": 5, "length": 32, "target": 30, "seeds": 2},
    # 256 · 4 · 128 = 131,072 tokens a proxy, two per parameter; target runs of 358,400.
    "cpu": CPU,
    "equal": CPU | {"proxies": 24},
}


def settings(scale: dict, folder: pathlib.Path, step: int, **update) -> configs.Config:
    """The config of a step: the quickstart's models and budget, at this experiment's scale."""
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
    """All updates by one strategy: where its last workdir is, and the runs of each update."""
    parent, runs, told = folder / "first", [], []
    for step in range(1, steps):
        log.info("five updates: %s, update %d", name, step)
        own = {}
        if how["strategy"] == "partial_reuse":
            own = {"recompute": LIKE[step]} if LIKE[step] else {"strategy": "full_reuse"}
        made = settings(scale, folder, step, parent=str(parent), proxies=scale.get("proxies"), **how | own)
        workdir = folder / name / str(step)
        runner.run(made, workdir, ("prepare", "update", "sample", "train", "fit", "propose"))
        plan = UpdatePlan.read(workdir / "update/plan.json")
        proposal = files.read_json(workdir / "propose/proposal.json")
        runs.append(plan.proxies)
        told.append({"recomputed": plan.recomputed, "why": plan.why, "reuse": proposal["reuse"]})
        parent = workdir
    return {"workdir": str(parent), "proxies": runs, "updates": told}


def carried(found: dict, folder: pathlib.Path, steps: int) -> dict:
    """The first mixture through all updates with nothing recomputed, over the last domains."""
    proposal = files.read_json(folder / "first/propose/proposal.json")
    weights = proposal["weights"]
    for step in range(1, steps):
        workdir = folder / f"{next(iter(found))}/{step}"
        change = UpdatePlan.read(workdir / "update/plan.json").change
        new = DomainSet.read(workdir / "domains.json")
        old_M = [weights[change.origin[name]] if name in change.origin else 0.0 for name in new.names]
        blocks = strategies.apply(strategies.Strategy.CARRY, new.names, change.affected, old_M, new.natural_M).blocks
        weights = dict(zip(new.names, blocks.ratios_DM[0].tolist()))
    return {"proxies": [0] * (steps - 1), "weights": weights, "updates": []}


def judged(found: dict, scale: dict, folder: pathlib.Path, steps: int) -> dict:
    """Fresh models on every strategy's last mixture and on natural, with the same seeds."""
    from olmix_jax.pipeline import validate

    last = pathlib.Path(found["full"]["workdir"])
    domains = DomainSet.read(last / "domains.json")
    mixtures, caps = {"natural": domains.natural_M}, {}
    for name, told in found.items():
        if "workdir" in told:
            proposal = files.read_json(pathlib.Path(told["workdir"]) / "propose/proposal.json")
            caps[name] = np.array([proposal["caps"][d] for d in domains.names])
            told["weights"] = proposal["weights"]
        mixtures[name] = np.array([told["weights"][d] for d in domains.names])
    # Models of their own folder, beside the workdir that has the text.
    return records.plain(validate.compare(settings(scale, folder, steps - 1), last, mixtures, caps))


def by_family(row: dict) -> np.ndarray:
    """A mixture's BPB for each seed: the mean over families of the mean over their tasks."""
    tasks = row["tasks"]
    families = task_groups.families_of(tuple(tasks), json.dumps(FAMILIES)).values()
    return np.mean([np.mean([tasks[t]["per_seed"] for t in members], axis=0) for members in families], axis=0)


def summary(found: dict, trained: dict, first: int) -> dict:
    """Gains over natural in percent, and what share of full recomputation's gain each keeps, with their spread."""
    each = {name: by_family(row) for name, row in trained["mixtures"].items()}
    gain = {name: 100 * (1 - bpb_S / each["natural"]) for name, bpb_S in each.items() if name != "natural"}
    total = {name: first + sum(told["proxies"]) for name, told in found.items()}
    rows = {}
    for name, gain_S in gain.items():
        seeds = len(gain_S)
        # Seeds are shared, so that the share's error is of paired ratios: the jackknife over seeds.
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
    """Whether reuse kept 95 % of the gain at 30 % of the proxies, in words, and whether that can be told at all."""
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
    # A share of a gain that is hardly there says nothing.
    certain = full["gain_percent"] / full["gain_error"] if full["gain_error"] > 0 else np.inf
    if certain < CERTAIN:
        lines.append(
            f"not resolved: full recomputation itself gains {full['gain_percent']:.2f} ± {full['gain_error']:.2f} % "
            f"over natural, {certain:.1f} standard errors, so that these shares are noise; more seeds, or proxies of "
            "more tokens, would tell"
        )
    return lines


def _paper(flags) -> None:
    """The paper's own updates, from its published swarms."""
    if not flags.published:
        raise SystemExit("--scale=paper needs --published=DIR, the folder with dclm_swarm/ and mixture_reuse/")
    results = paper.replay(pathlib.Path(flags.published))
    common.write_results(flags.workdir, results)
    for row in results["rows"]:
        top = sorted(row["weights"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{name} {100 * weight:.1f} %" for name, weight in top)
        print(f"update {row['update']}: {row['proxies']:4d} proxies, {len(row['weights']):3d} domains; {shown}")
    print(f"{results['proxies']} proxies; the paper's full reuse {paper.PAPER['full_reuse']['proxies']}")


def main() -> None:
    where = {"published": ("", "for --scale=paper: the folder with dclm_swarm/ and mixture_reuse/")}
    flags = common.arguments(__doc__, (*SCALES, "paper"), **where)
    if flags.scale == "paper":
        return _paper(flags)
    devices.use_all_cpus()
    scale, folder, begun = SCALES[flags.scale] | {"seed": flags.seed}, flags.workdir, time.monotonic()
    if not (folder / "tasks").is_dir():
        corpus.write(folder, *corpus.steps(scale["max_bytes"], scale["examples"]))
    steps = len(list((folder / "updates").glob("*.json")))
    first = settings(scale, folder, 0)
    runner.run(first, folder / "first", ("prepare", "sample", "train", "fit", "propose"))
    rules = EQUAL if "proxies" in scale else STRATEGIES
    found = {name: chain(name, how, scale, folder, steps) for name, how in rules.items()}
    if "proxies" in scale:
        found["carry"] = carried(found, folder, steps)
    trained = judged(found, scale, folder, steps)
    rows = summary(found, trained, first.swarm.size)
    results = {
        "scale": {"name": flags.scale, **scale},
        "config": dataclasses.asdict(first),
        "strategies": rows,
        "chains": found,
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
