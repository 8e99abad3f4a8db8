"""Which tasks can small proxies of this corpus move? The signal of every task, divided by its noise.

    python -m experiments.corpus.signal_to_noise --scale=cpu --workdir=runs/signal --olmes=data/olmes

The signal is the standard deviation of a task's BPB over mixtures: natural, and the first eight of a swarm, each a mean
over seeds. The noise is the standard deviation over natural's seeds. Tasks with a ratio of 2 or more pass; the rule was
written before the figures. With --olmes, the paper's 52 tasks are scored too.
"""

import json
import pathlib

import numpy as np

from configs import packages
from experiments import common
from olmix_jax import config as configs
from olmix_jax.config import workdir as workdirs
from olmix_jax.pipeline import runner, validate
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.swarm import table
from olmix_jax.swarm.task_groups import MMLU

PASSES = 2.0
SCALES = {
    "smoke": {"steps": 20, "mixtures": 2, "seeds": 2, "examples": 8},
    # 54 proxies of 1.28 M tokens, as in configs/packages.py.
    "cpu": {"steps": 2500, "mixtures": 8, "seeds": 6, "examples": 48},
}
# Columns of the published data that the paper does not use (METHOD §4).
LEFT_OUT = (
    "qasper_yesno:rc::olmes",
    "sciriff_yesno:rc::olmes",
    "lab_bench_dbqa",
    "lab_bench_protocolqa",
    "medqa_en:rc::none",
)
SKILLS = "basic_skills:rc::olmes"


def settings(scale: dict, corpus: pathlib.Path, olmes: str, seed: int) -> configs.Config:
    """Return the config: the proxies of ``configs/packages.py``, trained on natural and on sampled mixtures."""
    c = packages.get_config("smoke" if scale["steps"] < 100 else "")
    c.seed = seed
    c.corpus.path, c.tasks.path, c.tasks.olmes = str(corpus / "packages"), str(corpus / "tasks"), olmes
    c.tasks.max_examples = scale["examples"]
    c.train.steps = c.validate.steps = scale["steps"]
    c.validate.seeds = scale["seeds"]
    return configs.from_dict(c)


def signal_to_noise(validation: Validation) -> dict[str, dict]:
    """Return {task: signal, noise [BPB] and their ratio}, of the corpus' tasks and of the paper's 52."""
    mixtures = {
        name: paper_tasks({t: s.per_seed for t, s in m.tasks.items()}) for name, m in validation.mixtures.items()
    }
    rows = {}
    for task, natural_S in mixtures["natural"].items():
        signal = float(np.std([np.mean(mixture[task]) for mixture in mixtures.values()], ddof=1))
        noise = float(np.std(natural_S, ddof=1))
        rows[task] = {
            "signal": signal,
            "noise": noise,
            "ratio": signal / max(noise, 1e-12),
            "natural": float(np.mean(natural_S)),
        }
    return rows


def paper_tasks(bpb: dict) -> dict[str, np.ndarray]:
    """Average MMLU's subjects into four groups and the basic skills into one task; leave out what is no task."""
    result = {task: np.array(bpb_S) for task, bpb_S in bpb.items() if task not in LEFT_OUT}
    for group, sizes in MMLU.items():
        subjects = {f"mmlu_{subject}:rc::olmes": size for subject, size in sizes.items()}
        if subjects.keys() <= result.keys():
            scores = np.array([result.pop(subject) for subject in subjects])
            result[f"mmlu_{group}:rc::olmes"] = np.average(scores, axis=0, weights=list(subjects.values()))
    if skills := [bpb_S for task, bpb_S in result.items() if task.startswith("basic_skills_")]:
        result[SKILLS] = np.mean(skills, axis=0)
    return result


def main() -> None:
    more = {"corpus": ("data", "the folder of `make corpus`"), "olmes": ("", "the folder of `make olmes`")}
    flags = common.arguments(__doc__, tuple(SCALES), **more)
    scale = SCALES[flags.scale]
    config = settings(scale, pathlib.Path(flags.corpus), flags.olmes, flags.seed)
    runner.run(config, flags.workdir, ("prepare", "sample"))
    ratios = table.read_ratios(flags.workdir / "swarm/ratios.csv")
    mixtures = {"natural": workdirs.read_domains(flags.workdir).natural_M}
    mixtures |= dict(zip(ratios.runs[: scale["mixtures"]], ratios.ratios_KM))
    rows = signal_to_noise(validate.compare(config, flags.workdir, mixtures))
    common.write_results(flags.workdir, {"scale": {"name": flags.scale, **scale}, "tasks": rows})
    for task, row in sorted(rows.items(), key=lambda item: -item[1]["ratio"]):
        print(f"{task:40s} signal {row['signal']:.4f}  noise {row['noise']:.4f}  ratio {row['ratio']:6.1f}")
    print(json.dumps({"passed": sum(row["ratio"] >= PASSES for row in rows.values()), "of": len(rows)}))


if __name__ == "__main__":
    main()
