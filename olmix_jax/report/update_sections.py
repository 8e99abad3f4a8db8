"""Sections of the page on an update of the domain set: what changed, what reuse costs, how the mixture evolved."""

from collections.abc import Callable, Iterator

from olmix_jax.report import update_plots
from olmix_jax.report.elements import Section
from olmix_jax.report.results import Results
from olmix_jax.report.style import few, number
from olmix_jax.report.tables import Row, Table
from olmix_jax.report.update_plots import Domain

# How far an expanded mixture may be from its block's ratios, by rounding.
ROUNDING = 1e-6
# Strategies that solve for nothing, and keep affected domains at their natural share.
FIXED = ("carry", "natural")


def sections(results: Results, figure: Callable) -> Iterator[Section]:
    """The sections of an update's workdir; none for a first run's."""
    if results.update is None:
        return
    yield _changed(results)
    yield _mixture(results, figure)
    yield _loss(results, figure)
    yield _history(results, figure)


def line(results: Results) -> str:
    """What changed and what it took, on one line."""
    plan = results.update
    cost = f"predicted to lose {number(plan['predicted_loss']['mean'])} BPB against the optimum"
    return f"update: {update_plots.in_words(plan['updates'])}; {_runs(plan)}; {cost}"


def _runs(plan: dict) -> str:
    taken, full = round(plan["proxies"]), round(plan["proxies_full"])
    return f"{taken or 'no'} run{'s' * (taken != 1)} where full recomputation takes {full}"


def _changed(results: Results) -> Section:
    plan, rows = results.update, []
    for step in update_plots.steps_of(plan["updates"]):
        into = f" into {', '.join(step.parts)}" if step.kind == "partition" else " to " + ", ".join(step.parts)
        rows.append((step.kind, ", ".join(step.domains) + (into if step.parts else "")))
    kept = [d for block in plan["kept"].values() for d in block]
    rows += [("strategy", plan["strategy"]), ("runs", _runs(plan))]
    rows += [("weights found anew", few(plan["recomputed"], 30) or "none")]
    ratios = "fixed" if plan["strategy"] in FIXED else "old"
    rows += [(f"kept in {ratios} ratios", few(kept, 30) or "none")]
    rows += [("old runs", old_runs(results))]
    caption = f"The update, and what was decided before anything was trained. The reason: {plan['why']}."
    return Section("What changed", tables=(Table(caption, (), tuple(map(Row, rows))),))


def old_runs(results: Results) -> str:
    """How many old runs there are, and what they count for in the law."""
    plan, fit = results.update, results.fit
    rows = [row for row in plan.get("old_runs") or () if row["runs"]]
    back = ["the parent" if row["age"] == 1 else f"{row['age']:.0f} updates back" for row in rows]
    ages = [f"{row['runs']:.0f} of {of}" for row, of in zip(rows, back)]
    told = f"{sum(row['runs'] for row in rows):.0f} can be expressed on the new domains ({', '.join(ages)})"
    told = told if rows else "none can be expressed on the new domains, or none was to be used"
    if not plan["proxies"]:
        return f"{told}; the old law is used as it is, without a fit"
    if not rows:
        return told
    if fit is None or fit.get("trust") is None:
        return f"{told}; what they count for is decided at the fit"
    if fit["trust"] > 0:
        worth = f"one of the parent counts for at most {fit['trust']:g} of a new run, an older one for less"
        return f"{told}; in the law {worth}, which predicts new runs best, held out"
    over = "over the block as one" if fit.get("over") == "blocks" else "of new runs alone"
    return f"{told}; they count for nothing: a law {over} predicts new runs better, held out"


def _mixture(results: Results, figure: Callable) -> Section:
    title = "What the update did to the mixture"
    if results.proposal is None:
        return Section(title, note="There is no proposal for the new domains yet.")
    rows = update_plots.domains(results)
    caption = (
        "Share of training tokens before and after the update, and in the new natural distribution. The old weight of "
        "a part is its natural share of its whole’s. Numbers: old → new, %."
    )
    told = [f"{d.name} {_share(d.old)} to {_share(d.new)} %" for d in sorted(rows, key=lambda d: -(d.new or 0.0))]
    alt = f"Bars: old and new weight of {len(rows)} domains. {few(told, 4)}."
    return Section(
        title, (figure(update_plots.mixture, "update_mixture", alt, caption),), (domain_table(results, rows),)
    )


def domain_table(results: Results, rows: list[Domain]) -> Table:
    """What became of each domain; kept blocks have rows of their own, above their domains'."""
    free, blocks = (results.proposal.get("reuse") or {}).get("free") or {}, results.update["kept"]
    kept = [d for d in rows if d.kind == "kept"]
    columns = [("share", "share of its block, %")] * bool(kept)
    columns += [("old", "old, %"), ("natural", "natural, %"), ("new", "new, %")]
    weights = {d.name: [getattr(d, field) for field, _ in columns] for d in rows}
    if free:
        columns.append(("free", "unbound, %"))
        weights = {name: [*found, free.get(name)] for name, found in weights.items()}
    found = []
    for name, block in blocks.items():
        inside = [d for d in kept if d.name in block]
        total = [sum(w or 0.0 for w in column) for column in zip(*(weights[d.name] for d in inside))]
        found.append(Row((f"block “{name}”", f"{len(inside)} domains", *map(_share, total)), True))
        found += [Row((d.name, d.status, *map(_share, weights[d.name]))) for d in inside]
    found += [Row((d.name, d.status, *map(_share, weights[d.name]))) for d in rows if d.kind != "kept"]
    caption = f"The domains before and after. {_block_words(results, kept)}"
    if free:
        caption += " Unbound: the optimum by the new law if no ratios had to be kept."
    return Table(caption, ("domain", "status", *(name for _, name in columns)), tuple(found))


def _block_words(results: Results, kept: list[Domain]) -> str:
    """What the kept ratios are, or that the proposal has others."""
    if not kept:
        return "No domains keep their old ratios."
    for block in results.update["kept"].values():
        inside = [d for d in kept if d.name in block]
        total = sum(d.new for d in inside)
        if any(abs(d.new - total * d.share) > ROUNDING for d in inside):
            return "The proposal does not keep the ratios of the plan’s block: the configuration asks for others."
    return "Shaded: what keeps its ratios (p̃, the shares of the block), and its total weight."


def _loss(results: Results, figure: Callable) -> Section:
    plan, rows = results.update, update_plots.choices(results.update)
    told = realised(results)
    caption = (
        "What the mixture is predicted to lose against the optimum of the new domains, by what is recomputed; the rest "
        "keeps its ratios. Dots: mean over laws that may be true, by the old one; lines: 5–95 %. It counts "
        "the kept ratios and what the law from these runs gets wrong. Where the truth was known, true losses were two "
        f"to three times as large (experiments/recompute_rule). {told}"
    )
    taken = next(row for row in rows if row.chosen)
    alt = f"Intervals: predicted loss of {len(rows)} choices. Taken: {taken.name}, {number(taken.mean)} BPB. {told}"
    return Section(
        "What reusing costs", (figure(update_plots.loss, "update_loss", alt, caption),), (choice_table(plan, rows),)
    )


def realised(results: Results) -> str:
    """What the kept ratios cost by the new law."""
    found = (results.proposal or {}).get("reuse") or {}
    if "loss" not in found:
        return "What the new law says of it is not known yet."
    if found["loss"] is None:
        return (
            "What the kept ratios cost by the new law is not known: it is fitted over the block as one, and there are "
            "no old runs to say what other ratios would give."
        )
    # A proposal that is bound by nothing has no other to be compared with.
    if not found["loss"] and "free" not in found:
        return "No ratios are kept, so by the new law they cost nothing."
    gain = results.proposal.get("objective_natural"), results.proposal.get("objective")
    share = ""
    if None not in gain and gain[0] > gain[1]:
        share = f", {100 * found['loss'] / (gain[0] - gain[1]):.1f} % of the gain over natural"
    law = "the new law" if found.get("by", "law") == "law" else "a law from old and new runs over all domains"
    text = f"By {law}, the kept ratios alone cost {number(found['loss'])} BPB{share}"
    return f"{text}{'; that is above the predicted interval: recompute more domains' if too_much(results) else ''}."


def too_much(results: Results) -> bool:
    """Whether the kept ratios cost more by the new law than everything was predicted to."""
    found = ((results.proposal or {}).get("reuse") or {}).get("loss")
    return results.update is not None and found is not None and found > results.update["predicted_loss"]["high"]


def choice_table(plan: dict, rows: list[update_plots.Choice]) -> Table:
    """The choices in numbers."""
    gain, found = plan["predicted_gain"], []
    for row in rows:
        interval = f"{number(row.low)} to {number(row.high)}"
        share = f"{100 * row.mean / gain['gain']:.0f}" if gain["gain"] > 0 else "–"
        name = f"{row.name} (taken)" if row.chosen else row.name
        found.append(Row((name, str(row.runs), number(row.mean), interval, share), row.chosen))
    head = ("recomputed", "runs", "predicted loss, BPB", "5–95 %", "% of the predicted gain")
    ends = f"{number(gain['low'])} to {number(gain['high'])}"
    caption = (
        "The choices that were compared before anything was trained. The affected alone: full reuse; all domains: "
        "nothing is kept. Loss and gain are of the objective, BPB + λ·KL; the gain, of the optimum over natural, is "
        f"predicted to be {number(gain['gain'])} BPB ({ends}). Shaded: taken."
    )
    return Table(caption, head, tuple(found))


def _history(results: Results, figure: Callable) -> Section:
    steps = update_plots.history(results)
    drawn = [step for step in steps if step.weights]
    named, every = update_plots.largest(drawn), {d for step in drawn for d in step.weights}
    cut = f" Of {len(every)} domains, the {len(named)} that get most at any step are named." if every > {*named} else ""
    caption = f"The proposed mixture after each step.{cut} A renamed domain, or a part, counts as another domain."
    told = [f"{step.text}: {few([f'{d} {_share(w, 0)} %' for d, w in _top(step.weights)])}" for step in drawn[-4:]]
    alt = f"Stacked bars: the mixture at {len(drawn)} steps. {'. '.join(told)}."
    shown = figure(update_plots.through_time, "update_history", alt, caption)
    return Section("Through time", (shown,), (history_table(steps),))


def _top(weights: dict) -> list[tuple[str, float]]:
    return sorted(weights.items(), key=lambda item: -item[1])[:3]


def history_table(steps: list[update_plots.Step]) -> Table:
    """The steps in numbers; the last row is this workdir."""
    rows, total, full = [], 0, 0
    for i, step in enumerate(steps):
        total, full = total + step.runs, full + step.runs_full
        how = "–" if step.gain is None else "validated" if step.validated else "predicted"
        cells = (f"{i}: {step.text}", str(step.domains), step.strategy, str(step.runs), str(total), str(full))
        rows.append(Row((*cells, number(step.gain, "+.2f"), how), i == len(steps) - 1))
    saved = f" So far {total} runs instead of {full} ({100 * (total - full) / full:+.0f} %)." if full else ""
    caption = (
        f"Each step and what it took.{saved.replace('-', '−')} Gain: how far mean BPB is below that of the step’s own "
        "natural mixture, trained (validated) or by the law (predicted). Shaded: this run."
    )
    head = ("step", "domains", "strategy", "runs", "runs so far", "full recomputation so far")
    return Table(caption, (*head, "gain over natural, %", "how known"), tuple(rows))


def _share(weight: float | None, digits: int = 2) -> str:
    """A weight in percent, or a dash."""
    return number(None if weight is None else 100 * weight, f".{digits}f")
