"""The paper's own five updates, by FullMixtureReuse, from its published swarms (paper §5.1, Table 5).

The folder has the layout of the published data: ``dclm_swarm/`` and, for every update that takes runs,
``mixture_reuse/real_world/full_reuse/update‹n›_‹what›_seed‹s›/``, each with ``ratios.csv``, ``metrics.csv`` and
``meta.json``. In an update's swarm the column ``existing`` stands for all domains that keep their ratios.
"""

import pathlib

import numpy as np

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.propose import blocks as reuse
from olmix_jax.propose.feasibility import check_feasible, repetition_caps
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.swarm import table, task_groups
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

EXISTING = "existing"
# What leaves the mixture before an update's swarm: PDFs that are revised, a source that is removed, PDFs that are
# partitioned (METHOD §3). Update 4 is a removal, and takes no runs.
LEAVES = {1: (), 2: (), 3: ("s2pdfv2",), 4: ("algebraicstack",), 5: ("s2pdfv1",)}
# λ, k, R of the paper.
KL_WEIGHT, REPEATS, TARGET = 0.05, 4.0, 1e12
# Over natural in percent, at 1B, and proxies (METHOD §3, Table 5).
PAPER = {
    "full": {"gain_percent": 12.2, "proxies": 832},
    "full_reuse": {"gain_percent": 11.6, "proxies": 216},
    "partial_reuse": {"gain_percent": 12.0, "proxies": 272},
    "swarm_reuse": {"gain_percent": 11.4, "proxies": 268},
}


def replay(folder: pathlib.Path, seed: int = 0) -> dict:
    """Every update's mixture, from the published swarms: content of ``results.json``.

    Raises:
      UserError: a swarm is not there, or its columns are not what the mixture before leads to.
    """
    swarm = _read(folder / "dclm_swarm")
    tokens = dict(zip(swarm.domains, swarm.tokens_M))
    natural = dict(zip(swarm.domains, swarm.natural_M))
    state = _solved(swarm, reuse.blocks({}, swarm.domains), tokens, natural, swarm.domains)
    rows = [{"update": 0, "what": "first swarm", "proxies": len(swarm.runs), **state}]
    for number, leaves in LEAVES.items():
        weights = {d: w for d, w in rows[-1]["weights"].items() if d not in leaves and not _within(d, leaves)}
        found = sorted((folder / "mixture_reuse/real_world/full_reuse").glob(f"update{number}_*_seed{seed}"))
        natural = {d: natural[d] / sum(natural[e] for e in weights) for d in weights}
        if not found and number == 4:
            total = sum(weights.values())
            kept = {d: w / total for d, w in weights.items()}
            caps = dict(zip(kept, repetition_caps([tokens[d] for d in kept], TARGET, REPEATS)))
            over = max(kept[d] / caps[d] for d in kept)
            rows.append({"update": 4, "what": "remove", "proxies": 0, "weights": kept, "over_cap": float(over)})
            continue
        if not found:
            raise UserError(f"{folder}: no mixture_reuse/real_world/full_reuse/update{number}_*_seed{seed}")
        swarm = _read(found[0])
        new = [d for d in swarm.domains if d != EXISTING]
        if len(new) == len(swarm.domains) or set(new) & set(weights):
            raise UserError(f"{found[0]}: its columns must be `{EXISTING}` and new domains, not {swarm.domains}")
        swarm = swarm.ordered((EXISTING, *new))
        share = dict(zip(swarm.domains, swarm.natural_M))
        natural = {d: p * share[EXISTING] for d, p in natural.items()} | {d: share[d] for d in new}
        tokens |= {d: n for d, n in zip(swarm.domains, swarm.tokens_M) if d != EXISTING}
        domains = (*weights, *new)
        blocks = reuse.blocks({EXISTING: {d: w for d, w in weights.items() if w > 0}}, domains)
        state = _solved(swarm, blocks, tokens, natural, domains)
        rows.append({"update": number, "what": found[0].name, "proxies": len(swarm.runs), **state})
    return {"rows": rows, "proxies": sum(row["proxies"] for row in rows), "paper": PAPER}


def _within(domain: str, wholes) -> bool:
    return any(domain.startswith(f"{whole}:") for whole in wholes)


def _read(folder: pathlib.Path) -> table.SwarmTable:
    swarm = table.SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    if swarm.tokens_M is None or swarm.natural_M is None:
        raise UserError(f"{folder / 'meta.json'}: needs `relative_sizes` and `token_counts`")
    return task_groups.with_mmlu_groups(swarm)


def _solved(swarm: table.SwarmTable, blocks: reuse.Blocks, tokens: dict, natural: dict, domains) -> dict:
    """The mixture of least objective over the blocks, and what the swarm's law says of it."""
    natural_M = np.array([natural[d] for d in domains])
    natural_M, width = natural_M / natural_M.sum(), len(swarm.tasks)
    upper_M = repetition_caps([tokens[d] for d in domains], TARGET, REPEATS)
    bounds = reuse.collapsed_bounds(box(0 * upper_M, upper_M), blocks)
    check_feasible(bounds, blocks.names)
    law = log_linear.fit(swarm.ratios_KM, swarm.bpb_KN, tasks=swarm.tasks).params
    anchor_D = reuse.collapsed_anchor(natural_M, blocks)
    found = solve(Problem(log_linear.LAW, law, np.full(width, 1 / width), anchor_D, bounds, KL_WEIGHT))
    natural_D = reuse.collapse(natural_M, blocks)
    proposed, before = evaluate(log_linear.LAW, law, np.stack([found.weights_M, natural_D])).mean(axis=1)
    log.info(
        "paper: %d runs over %d weights: %.4f BPB predicted, %.4f before",
        len(swarm.runs),
        len(natural_D),
        proposed,
        before,
    )
    weights_M = reuse.expand(found.weights_M, blocks)
    return {
        "status": found.status.value,
        "weights": dict(zip(domains, weights_M.tolist())),
        "over_cap": float((weights_M / upper_M).max()),
        "predicted": float(proposed),
        # Of natural between the blocks; within the kept one, its ratios.
        "predicted_natural": float(before),
    }
