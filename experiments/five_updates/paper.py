"""Replay the paper's five updates by FullMixtureReuse from its published swarms (paper §5.1, Table 5).

The folder has the layout of the published data: ``dclm_swarm/``, and for every update with runs
``mixture_reuse/real_world/full_reuse/update‹n›_‹name›_seed‹s›/``. Each has ``ratios.csv``, ``metrics.csv`` and
``meta.json``. In the swarm of an update, the column ``existing`` is the block of all domains that keep their ratios.
"""

import pathlib

import numpy as np

from olmix_jax.laws import evaluate, log_linear
from olmix_jax.propose.blocks import Blocks, collapse, collapsed_anchor, collapsed_bounds, expand, form_blocks
from olmix_jax.propose.constraints import Constraints, repetition_caps
from olmix_jax.propose.feasibility import check_feasible
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.swarm import table, task_groups
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

EXISTING = "existing"
# Domains that leave the mixture before the swarm of an update: revised PDFs, a removed source, partitioned PDFs (METHOD
# §3). Update 4 only removes a source and has no runs.
LEAVES = {1: (), 2: (), 3: ("s2pdfv2",), 4: ("algebraicstack",), 5: ("s2pdfv1",)}
# λ, k and R in the paper.
KL_WEIGHT, REPEATS, TARGET = 0.05, 4.0, 1e12
# Gains over natural of 1B models, and numbers of proxies (METHOD §3, Table 5).
PAPER = {
    "full": {"gain_percent": 12.2, "proxies": 832},
    "full_reuse": {"gain_percent": 11.6, "proxies": 216},
    "partial_reuse": {"gain_percent": 12.0, "proxies": 272},
    "swarm_reuse": {"gain_percent": 11.4, "proxies": 268},
}


def replay(folder: pathlib.Path, seed: int = 0) -> dict:
    """Return the mixture after every update, computed from the published swarms: the content of ``results.json``.

    Raises:
      UserError: a swarm is missing, or its columns do not match the mixture before it.
    """
    swarm = _read(folder / "dclm_swarm")
    tokens = dict(zip(swarm.domains, swarm.tokens_M))
    natural = dict(zip(swarm.domains, swarm.natural_M))
    state = _solved(swarm, form_blocks({}, swarm.domains), tokens, natural, swarm.domains)
    rows = [{"update": 0, "what": "first swarm", "proxies": len(swarm.runs), **state}]
    for number, leaves in LEAVES.items():
        weights = {d: w for d, w in rows[-1]["weights"].items() if d not in leaves and not _within(d, leaves)}
        swarms = sorted((folder / "mixture_reuse/real_world/full_reuse").glob(f"update{number}_*_seed{seed}"))
        natural = {d: natural[d] / sum(natural[e] for e in weights) for d in weights}
        if not swarms and number == 4:
            total = sum(weights.values())
            kept = {d: w / total for d, w in weights.items()}
            caps = dict(zip(kept, repetition_caps([tokens[d] for d in kept], TARGET, REPEATS)))
            over = max(kept[d] / caps[d] for d in kept)
            rows.append({"update": 4, "what": "remove", "proxies": 0, "weights": kept, "over_cap": float(over)})
            continue
        if not swarms:
            raise UserError(f"{folder}: no mixture_reuse/real_world/full_reuse/update{number}_*_seed{seed}")
        swarm = _read(swarms[0])
        new = [d for d in swarm.domains if d != EXISTING]
        if len(new) == len(swarm.domains) or set(new) & set(weights):
            raise UserError(f"{swarms[0]}: its columns must be `{EXISTING}` and new domains, not {swarm.domains}")
        swarm = swarm.ordered((EXISTING, *new))
        share = dict(zip(swarm.domains, swarm.natural_M))
        natural = {d: p * share[EXISTING] for d, p in natural.items()} | {d: share[d] for d in new}
        tokens |= {d: n for d, n in zip(swarm.domains, swarm.tokens_M) if d != EXISTING}
        domains = (*weights, *new)
        blocks = form_blocks({EXISTING: {d: w for d, w in weights.items() if w > 0}}, domains)
        state = _solved(swarm, blocks, tokens, natural, domains)
        rows.append({"update": number, "what": swarms[0].name, "proxies": len(swarm.runs), **state})
    return {"rows": rows, "proxies": sum(row["proxies"] for row in rows), "paper": PAPER}


def _within(domain: str, wholes) -> bool:
    return any(domain.startswith(f"{whole}:") for whole in wholes)


def _read(folder: pathlib.Path) -> table.SwarmTable:
    swarm = table.SwarmTable.read(folder / "ratios.csv", folder / "metrics.csv", folder / "meta.json")
    if swarm.tokens_M is None or swarm.natural_M is None:
        raise UserError(f"{folder / 'meta.json'}: needs `relative_sizes` and `token_counts`")
    return task_groups.with_mmlu_groups(swarm)


def _solved(swarm: table.SwarmTable, blocks: Blocks, tokens: dict, natural: dict, domains) -> dict:
    """Return the optimal mixture over the blocks and its predicted BPB, by a law fitted to the swarm."""
    natural_M = np.array([natural[d] for d in domains])
    natural_M, width = natural_M / natural_M.sum(), len(swarm.tasks)
    upper_M = repetition_caps([tokens[d] for d in domains], TARGET, REPEATS)
    bounds = collapsed_bounds(box(0 * upper_M, upper_M), blocks)
    check_feasible(Constraints(blocks.names, bounds))
    law = log_linear.fit(swarm.ratios_KM, swarm.bpb_KN, tasks=swarm.tasks).params
    anchor_D = collapsed_anchor(natural_M, blocks)
    solution = solve(Problem(log_linear.LAW, law, np.full(width, 1 / width), anchor_D, bounds, KL_WEIGHT))
    natural_D = collapse(natural_M, blocks)
    proposed, before = evaluate(log_linear.LAW, law, np.stack([solution.weights_M, natural_D])).mean(axis=1)
    log.info(
        "paper: %d runs over %d weights: %.4f BPB predicted, %.4f for natural",
        len(swarm.runs),
        len(natural_D),
        proposed,
        before,
    )
    weights_M = expand(solution.weights_M, blocks)
    return {
        "status": solution.status.value,
        "weights": dict(zip(domains, weights_M.tolist())),
        "over_cap": float((weights_M / upper_M).max()),
        "predicted": float(proposed),
        # The natural mixture between the blocks, with the kept ratios inside the kept block.
        "predicted_natural": float(before),
    }
