"""Sections of the page on a proposal: what it wins, what would help it, how it moves, how it is handed over."""

from collections.abc import Callable, Iterator

import numpy as np

from olmix_jax.report import proposal_plots
from olmix_jax.report.elements import Section
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import cut_note
from olmix_jax.report.style import few, number, quantity
from olmix_jax.report.tables import Row, Table


def sections(results: Results, figure: Callable) -> Iterator[Section]:
    """The sections that the proposal has the data for."""
    proposal = results.proposal
    if proposal is None:
        return
    yield _gains(results, figure)
    if any(proposal_plots.ranked(proposal.get(k)) for k in ("shadow_prices", "repeat_prices")):
        yield _prices(results, figure)
    if proposal_plots.paths_of(proposal):
        yield _paths(results, figure)
    if (proposal.get("choice") or {}).get("kl_weight"):
        yield _choice(results, figure)
    pareto = proposal.get("pareto") or {}
    if pareto.get("points") and len(pareto["families"]) > 1:
        yield _front(results, figure)
    if proposal.get("handover"):
        yield Section("Handing it over", tables=(handover_table(proposal),))


def _gains(results: Results, figure: Callable) -> Section:
    proposal = results.proposal
    rows = proposal_plots.differences(proposal)
    lost = [t for t, row in reversed(rows.items()) if row[0] > 0]
    told = f"{len(rows) - len(lost)} of {len(rows)} tasks do not get worse"
    told += f"; {len(lost)} lose, most of all {few(lost, 3)}." if lost else "."
    caption = f"{told} By the law, in bits per byte; left of zero is better than natural, red: worse."
    if proposal.get("predicted_low") and proposal.get("predicted_high"):
        caption += " Black lines: 5–95 % of the prediction for the proposal, against the mean prediction for natural."
    guard = proposal.get("guard") or {}
    if guard:
        per = "every family of tasks, its mean" if guard.get("by") == "family" else "every task"
        caption += f" Dashed: the guard; {per}, may rise by at most this."
        caption += " Bold: the guard holds it back." if guard.get("by") != "family" else ""
    alt = f"Bars: predicted change in bits per byte against natural. {told}"
    drawn = figure(proposal_plots.gains, "gains", alt, caption + cut_note(len(rows)))
    return Section("What it is predicted to win and lose, by task", (drawn,))


def _left_out(proposal: dict) -> str:
    """What a caption says of settings that paths and fronts do not heed."""
    without = proposal.get("explored_without")
    return f" Without propose.{' and propose.'.join(without)}, which the proposal itself keeps." if without else ""


def _prices(results: Results, figure: Callable) -> Section:
    told = []
    for key, unit in (("shadow_prices", "per billion more unique tokens"), ("repeat_prices", "per extra repeat")):
        found = proposal_plots.ranked(results.proposal.get(key))
        if found:
            told.append("; ".join(f"{d} {number(v, '.3g')}" for d, v in list(found.items())[:3]) + f" BPB {unit}")
    caption = (
        "How far the minimum would fall with more unique tokens of a domain (left or first), and if it alone might be "
        "repeated once more (right or last). At the margin: as its cap gives way, the worth of more falls. Domains "
        "that are not drawn are not held back by repetition: more of them would change nothing."
    )
    return Section(
        "What data to collect next", (figure(proposal_plots.prices, "prices", f"Bars: {'. '.join(told)}.", caption),)
    )


def _paths(results: Results, figure: Callable) -> Section:
    parts, told = proposal_plots.paths_of(results.proposal), []
    for key, values, _, bpb_P, used in parts:
        name = {"kl_weight": "λ", "max_repeats": "k"}[key]
        known = np.flatnonzero(np.isfinite(bpb_P))
        ends = f"{number(bpb_P[known[0]])} to {number(bpb_P[known[-1]])} BPB"
        told.append(f"from {name} = {values[known[0]]:.3g} to {values[known[-1]]:.3g}: {ends}")
        told[-1] += "" if used is None else f" (used: {used:.3g})"
    caption = (
        "The optimum solved again: along λ, the weight of staying near the reference, at the used k, and along k, "
        "the most passes over a domain’s unique tokens, at the used λ. Named: the domains that get most anywhere on "
        f"the paths; grey: the others. Gaps: not solved, or nothing is allowed. Mean predicted BPB, {'; '.join(told)}."
        + _left_out(results.proposal)
    )
    alt = f"Lines: weights of domains and mean predicted bits per byte, {'; '.join(told)}."
    return Section("How it moves with its settings", (figure(proposal_plots.paths, "paths", alt, caption),))


def _choice(results: Results, figure: Callable) -> Section:
    found = results.proposal["choice"]
    best, used = found["best"], results.proposal.get("kl_weight")
    told = f"Chosen by this: λ = {best:.3g}"
    if used is not None:
        told += ", which the proposal uses" if used == best else f"; the proposal uses {used:.3g}"
    if found.get("used") is not None:
        told += " because of this" if found["used"] and used == best else ""
        told += ", as the configuration says" if not found["used"] else ""
    splits = f", mean over {found['splits']:.0f} splits" if found.get("splits") is not None else ""
    caption = (
        f"{told}. Runs are split; a mixture is made from the law of one part and judged by that of the other{splits}: "
        "its gain over natural in bits per byte, higher is better. Whiskers: one standard error over splits."
    )
    alt = f"Line: gain over natural against the KL weight. {told}."
    return Section("Choosing λ from the data", (figure(proposal_plots.choice, "choice", alt, caption),))


def _front(results: Results, figure: Callable) -> Section:
    pareto = results.proposal["pareto"]
    total, shown = len(pareto["families"]), proposal_plots.front_families(pareto)
    cut = f" Of {total} families, the {len(shown)} that move most are drawn." if len(shown) < total else ""
    caption = (
        "Mean predicted BPB of a family of tasks against that of another, lower and further left is better. Each green "
        f"dot is the optimum for other weights of the families.{cut}{_left_out(results.proposal)}"
    )
    parts = [f"{f} {number(pareto['natural'][f])} to {number(pareto['proposed'][f])}" for f in shown]
    alt = f"Scatter plots of {len(pareto['points'])} mixtures. Natural to proposed: {', '.join(parts)}."
    return Section("What families of tasks cost each other", (figure(proposal_plots.front, "front", alt, caption),))


def handover_table(proposal: dict) -> Table:
    """The files for trainers."""
    rows = [Row((name, row["file"], f"{100 * row['largest_error']:.2g}")) for name, row in proposal["handover"].items()]
    caption = (
        "The mixture for trainers. Largest error: how far the weight of a domain in the file is from the proposal’s, "
        "in percentage points; formats hold whole sequences or rounded numbers."
    )
    return Table(caption, ("format", "file", "largest error, points"), tuple(rows))


def group_table(proposal: dict) -> Table:
    """Bounds on groups of domains."""
    rows = []
    for group in proposal["groups"]:
        bounds = [number(None if group.get(k) is None else 100 * group[k], ".2f") for k in ("low", "high")]
        price = group.get("multiplier")
        cells = (group["name"], str(len(group["domains"])), f"{100 * group['weight']:.2f}", *bounds)
        rows.append(Row((*cells, number(price, ".3g")), bool(price)))
    head = ("group", "domains", "proposed, %", "at least, %", "at most, %", "price, BPB per unit of weight")
    caption = "Bounds on groups of domains. Price: what the bound costs at the margin. Shaded: a bound decides."
    return Table(caption, head, tuple(rows))


def fact_tables(results: Results) -> list[Table]:
    """What else is to be said of the proposal, as pairs."""
    proposal = results.proposal or {}
    groups = [("Guard", guard_facts(proposal)), ("Tail", tail_facts(proposal)), ("Data", count_facts(proposal))]
    return [Table(name, (), tuple(Row(pair) for pair in rows)) for name, rows in groups if rows]


def guard_facts(proposal: dict) -> list[tuple[str, str]]:
    """What the guard says."""
    guard = proposal.get("guard") or {}
    if not guard:
        return []
    binding = {n: (guard.get("multipliers") or {}).get(n) for n in guard["binding"]}
    named = ", ".join(n + ("" if u is None else f" (multiplier {number(u, '.3g')})") for n, u in binding.items())
    rows = [("by", str(guard.get("by") or "task")), ("rise over natural at most, BPB", number(guard["slack"], ".3g"))]
    rows += [("largest predicted rise, BPB", number(guard.get("worst"), "+.4f"))]
    return [*rows, ("guarded", str(len(guard["names"]))), ("held back by it", named or "none")]


def tail_facts(proposal: dict) -> list[tuple[str, str]]:
    """What the proposal risks where the law is most wrong."""
    tail = proposal.get("tail") or {}
    if not tail:
        return []
    rows = [(f"worst {100 * tail['share']:.3g} % of samples, weighted BPB", number(tail["value"]))]
    rows += [("the same under natural", number(tail.get("natural")))]
    return [*rows, ("samples of the law", quantity(tail.get("samples")))]


def count_facts(proposal: dict) -> list[tuple[str, str]]:
    """How much data the proposal is in whole sequences or tokens."""
    counts = proposal.get("counts") or {}
    rows = [
        (f"{k}, in whole numbers", quantity(sum(counts[k].values()))) for k in ("sequences", "tokens") if counts.get(k)
    ]
    return rows + ([("tokens per sequence", quantity(counts["length"]))] if counts.get("length") else [])
