"""Sections about an update of the domain set: what changed, the cost of kept ratios, and the history."""

from collections.abc import Iterator, Sequence
from functools import partial

from olmix_jax.laws.fit_result import FitResult, Over
from olmix_jax.propose.proposal import Proposal
from olmix_jax.report import update_plots, update_rows
from olmix_jax.report.elements import MakeFigure, Row, Section, Table
from olmix_jax.report.formatting import capitalised, first_names, number, weight_percent
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import no_proposal
from olmix_jax.report.style import MAX_DOMAINS
from olmix_jax.report.update_rows import KEPT, CandidateRow, DomainRow, StepRow
from olmix_jax.update.changes import Kind
from olmix_jax.update.strategies import Strategy
from olmix_jax.update.update_plan import UpdatePlan
from olmix_jax.utils.progress import counted

# Largest deviation of a proposal from the kept ratios that rounding explains.
ROUNDING = 1e-6
# Strategies without a solve: affected domains keep their natural share.
FIXED = (Strategy.CARRY, Strategy.NATURAL)


def sections(results: Results, make_figure: MakeFigure) -> Iterator[Section]:
    """Yield the sections of an update; none for the workdir of a first run."""
    plan = results.update
    if plan is None:
        return
    yield _changes(results, plan)
    yield _mixture(results, plan, make_figure)
    yield _loss(results.proposal, plan, make_figure)
    yield _history(update_rows.history_rows(results, plan), make_figure)


def update_line(plan: UpdatePlan) -> str:
    """Return the change, its runs and its predicted loss on one line."""
    loss = f"predicted loss against the optimum {number(plan.predicted_loss.mean)} BPB"
    return f"update: {update_rows.update_text(plan.steps)}; {runs_text(plan)}; {loss}"


def runs_text(plan: UpdatePlan) -> str:
    """Return the number of new runs against that of full recomputation."""
    runs = counted(plan.proxies, "new run") if plan.proxies else "no new runs"
    return f"{runs} instead of {plan.proxies_full}"


def _changes(results: Results, plan: UpdatePlan) -> Section:
    facts = []
    for step in plan.steps:
        into = f" into {', '.join(step.parts)}" if step.kind == Kind.PARTITION else f" to {', '.join(step.parts)}"
        facts.append((step.kind.value, ", ".join(step.domains) + (into if step.parts else "")))
    kept = [d for block in plan.kept.values() for d in block]
    ratios = "fixed" if plan.strategy in FIXED else "old"
    facts += [("strategy", plan.strategy.value), ("new runs", runs_text(plan))]
    facts += [("weights recomputed", first_names(plan.recomputed, 30) or "none")]
    facts += [(f"domains that keep {ratios} ratios", first_names(kept, 30) or "none")]
    facts += [("earlier runs", earlier_runs(plan, results.fit))]
    caption = f"The update, as decided before any training. Reason: {plan.why}."
    return Section("Changes of the domain set", tables=(Table(caption, (), tuple(map(Row, facts))),))


def earlier_runs(plan: UpdatePlan, fit: FitResult | None) -> str:
    """Return how many earlier runs the new domains can express, and their weight in the fit."""
    rows = [row for row in plan.old_runs if row.runs]
    ages = ["the parent" if row.age == 1 else f"{row.age} updates back" for row in rows]
    counts = ", ".join(f"{row.runs} from {age}" for row, age in zip(rows, ages))
    text = f"{sum(row.runs for row in rows)} can be expressed on the new domains ({counts})"
    text = text if rows else "none can be expressed on the new domains, or update.old_runs is off"
    if not plan.proxies:
        return f"{text}; the parent's law is used unchanged"
    if not rows:
        return text
    if fit is None or fit.trust is None:
        return f"{text}; their weight is decided by the fit"
    if fit.trust > 0:
        weight = (
            f"in the fit, a run of the parent has a weight of at most {fit.trust:g}, a new run 1, an older run less"
        )
        return f"{text}; {weight}. These weights predict held-out new runs best"
    law = "with the kept block as one domain" if fit.over is Over.BLOCKS else "fitted on new runs only"
    return f"{text}; they are not used: a law {law} predicts held-out new runs better"


def _mixture(results: Results, plan: UpdatePlan, make_figure: MakeFigure) -> Section:
    title, proposal = "Mixture before and after the update", results.proposal
    if proposal is None:
        return Section(title, note=f"{capitalised(no_proposal(results))}.")
    rows = update_rows.domain_rows(results, plan)
    caption = (
        "Share of training tokens before and after the update, and in the new natural distribution (black marks). The "
        "old weight of a part is its natural share of the partitioned domain’s weight. Numbers: old → new, %."
    )
    drawn = update_rows.largest_rows(rows, MAX_DOMAINS)
    if len(drawn) < len(rows):
        caption += f" Of {len(rows)} domains, the {len(drawn)} with the largest weights are shown."
    largest = sorted(rows, key=lambda row: -(row.new or 0.0))
    parts = [f"{row.name} {weight_percent(row.old)} to {weight_percent(row.new)} %" for row in largest]
    alt = f"Bars: old and new weight of {len(rows)} domains. {first_names(parts, 4)}."
    figure = make_figure(partial(update_plots.mixture, drawn), "update_mixture", alt, caption)
    return Section(title, (figure,), (domain_table(plan, proposal, rows),))


def domain_table(plan: UpdatePlan, proposal: Proposal, rows: Sequence[DomainRow]) -> Table:
    """Return weights before and after by domain. Each kept block has a row with its total above its domains."""
    free = (proposal.reuse.free if proposal.reuse is not None else None) or {}
    kept = [row for row in rows if row.kind == KEPT]
    columns = {"share of its block, %": {row.name: row.share for row in rows}} if kept else {}
    columns |= {"old, %": {row.name: row.old for row in rows}, "natural, %": {row.name: row.natural for row in rows}}
    columns |= {"new, %": {row.name: row.new for row in rows}}
    columns |= {"without kept ratios, %": {row.name: free.get(row.name) for row in rows}} if free else {}
    table_rows = []
    for name, block in plan.kept.items():
        inside = [row.name for row in kept if row.name in block]
        totals = [sum(column[d] or 0.0 for d in inside) for column in columns.values()]
        table_rows.append(Row((f"block “{name}”", counted(len(inside), "domain"), *map(weight_percent, totals)), True))
        table_rows += [_domain_row(row, columns) for row in kept if row.name in block]
    table_rows += [_domain_row(row, columns) for row in rows if row.kind != KEPT]
    caption = f"The domains before and after. {_ratios_text(plan, kept)}"
    if free:
        caption += " Without kept ratios: the optimum of the new law if all ratios were free."
    return Table(caption, ("domain", "status", *columns), tuple(table_rows), name="update_domains")


def _domain_row(row: DomainRow, columns: dict[str, dict[str, float | None]]) -> Row:
    return Row((row.name, row.status, *(weight_percent(column[row.name]) for column in columns.values())))


def _ratios_text(plan: UpdatePlan, kept: Sequence[DomainRow]) -> str:
    """Return whether the proposal keeps the ratios of the plan's blocks."""
    if not kept:
        return "No domains keep their old ratios."
    for block in plan.kept.values():
        inside = [row for row in kept if row.name in block]
        total = sum(row.new or 0.0 for row in inside)
        if any(abs((row.new or 0.0) - total * (row.share or 0.0)) > ROUNDING for row in inside):
            return "The proposal does not keep the ratios of the plan’s block, because the config sets others."
    return "Shaded: the block of domains that keep their ratios (p̃, the shares of the block), with its total weight."


def _loss(proposal: Proposal | None, plan: UpdatePlan, make_figure: MakeFigure) -> Section:
    rows, realised = update_rows.candidate_rows(plan), realised_loss(proposal, plan)
    caption = (
        "Predicted loss of the mixture against the optimum of the new domains. Each row recomputes the named domains "
        "and keeps the ratios of the others. Dots: mean over samples of the old law; lines: 5–95 %. The loss "
        f"includes the cost of kept ratios and the error of a law fitted on these runs. {_unbiased(plan)}{realised}"
    )
    chosen = next(row for row in rows if row.chosen)
    alt = f"Intervals: predicted loss of {counted(len(rows), 'candidate')}. "
    alt += f"Chosen: {chosen.name}, {number(chosen.mean)} BPB. "
    reuse = proposal.reuse if proposal is not None else None
    draw = partial(update_plots.loss, rows, plan.predicted_gain.gain, reuse)
    figure = make_figure(draw, "update_loss", alt + realised, caption)
    return Section("Predicted cost of keeping ratios", (figure,), (candidate_table(plan, rows),))


def _unbiased(plan: UpdatePlan) -> str:
    """Return the predicted loss that did not make the choice, and what predictions were worth where it is known."""
    if not plan.proxies:
        return ""
    if plan.predicted_loss_if_form_known is None:
        return (
            "They are those of a fit that knows the form of the law; in experiments with a known optimum, true losses "
            "were two to three times as large (experiments/recompute_rule). "
        )
    return (
        f"The choice was made by these losses, so the update’s own is predicted again on other swarms: "
        f"{number(plan.predicted_loss.mean)} BPB. It would be {number(plan.predicted_loss_if_form_known)} BPB if the "
        "fit knew the form of the law, its noise and its prior. In experiments with a known optimum, true losses were "
        "1.2 to 1.6 times the predicted ones (experiments/recompute_rule). "
    )


def realised_loss(proposal: Proposal | None, plan: UpdatePlan) -> str:
    """Return what the kept ratios cost according to the new law."""
    reuse = proposal.reuse if proposal is not None else None
    if proposal is None or reuse is None:
        return "The new law’s estimate is not available yet."
    if reuse.loss is None:
        return (
            "The cost of the kept ratios according to the new law is unknown: the law treats the block as one domain, "
            "and no earlier runs have other ratios."
        )
    # Without kept ratios the proposal is its own optimum, and there is no other mixture to compare with.
    if not reuse.loss and reuse.free is None:
        return "No ratios are kept, so keeping ratios costs nothing."
    share, natural, objective = "", proposal.objective_natural, proposal.objective
    if natural is not None and objective is not None and natural > objective:
        share = f", {100 * reuse.loss / (natural - objective):.1f} % of the gain over natural"
    law = "a law fitted on earlier and new runs over all domains" if reuse.by == "old runs" else "the new law"
    text = f"According to {law}, the kept ratios alone cost {number(reuse.loss)} BPB{share}"
    above = reuse.loss > plan.predicted_loss.high
    return f"{text}{'; this exceeds the predicted interval, so recompute more domains' if above else ''}."


def costs_more_than_predicted(results: Results) -> bool:
    """Return whether the kept ratios cost more, according to the new law, than the upper end of the predicted loss."""
    if results.update is None or results.proposal is None or results.proposal.reuse is None:
        return False
    loss = results.proposal.reuse.loss
    return loss is not None and loss > results.update.predicted_loss.high


def candidate_table(plan: UpdatePlan, rows: Sequence[CandidateRow]) -> Table:
    """Return runs and predicted loss of each candidate."""
    gain, table_rows = plan.predicted_gain, []
    with_known = any(row.if_form_known is not None for row in rows)
    for row in rows:
        share = f"{100 * row.mean / gain.gain:.0f}" if gain.gain > 0 else "–"
        interval = f"{number(row.low)} to {number(row.high)}"
        name = f"{row.name} (chosen)" if row.chosen else row.name
        known = (number(row.if_form_known),) if with_known else ()
        table_rows.append(Row((name, str(row.runs), number(row.mean), interval, share, *known), row.chosen))
    more = ("if the form of the law were known, BPB",) if with_known else ()
    head = ("recomputed", "runs", "predicted loss, BPB", "5–95 %", "% of the predicted gain", *more)
    caption = (
        "The candidates that were compared before any training. Affected only: full reuse of the old ratios; all "
        "domains: full recomputation. Loss and gain refer to the objective, BPB + λ·KL. The gain of the optimum over "
        f"natural is predicted to be {number(gain.gain)} BPB ({number(gain.low)} to {number(gain.high)}). "
        "Shaded: chosen."
    )
    return Table(caption, head, tuple(table_rows))


def _history(rows: Sequence[StepRow], make_figure: MakeFigure) -> Section:
    steps = [row for row in rows if row.weights]
    domains = {d for step in steps for d in step.weights}
    named = update_rows.named_domains(steps, len(update_plots.STACK_COLOURS))
    caption = "The proposed mixture after each update. A renamed domain or a part counts as a new domain."
    if len(named) < len(domains):
        caption += f" Of {len(domains)} domains, the {len(named)} with the largest weights are named."
    parts = [f"{step.text}: {first_names(_largest_weights(step), 3)}" for step in steps[-4:]]
    alt = f"Stacked bars: the mixture at {counted(len(steps), 'step')}. {'. '.join(parts)}."
    figure = make_figure(partial(update_plots.history, rows), "update_history", alt, caption)
    return Section("History of updates", (figure,), (history_table(rows),))


def _largest_weights(step: StepRow) -> list[str]:
    ordered = sorted(step.weights.items(), key=lambda item: -item[1])
    return [f"{d} {weight_percent(weight, 0)} %" for d, weight in ordered[:3]]


def history_table(steps: Sequence[StepRow]) -> Table:
    """Return runs and gain of each step. The last row is this workdir."""
    rows, total, full = [], 0, 0
    with_plain = any(_differ(step) for step in steps)
    for i, step in enumerate(steps):
        total, full = total + step.runs, full + step.runs_full
        source = "–" if step.gain is None else "measured" if step.validated else "predicted"
        cells = (f"{i}: {step.text}", str(step.domains), step.strategy, str(step.runs), str(total), str(full))
        plain = (number(step.plain_gain, "+.2f"),) if with_plain else ()
        rows.append(Row((*cells, number(step.gain, "+.2f"), *plain, source), i == len(steps) - 1))
    caption = "Updates and their runs."
    if full:
        share = number(100 * (total - full) / full, "+.0f")
        caption += f" In total {total} runs instead of {full} with full recomputation ({share} %)."
    caption += " Gain: how far mean BPB lies below that of the step’s own natural mixture, with the task weights that "
    caption += "the step minimised. "
    if with_plain:
        caption += "Plain gain: the same with equal task weights. "
    caption += "Shaded: this workdir."
    head = ("update", "domains", "strategy", "runs", "runs so far", "runs so far with full recomputation")
    gains = ("gain over natural, %", *(["plain gain, %"] if with_plain else []), "source of the gain")
    return Table(caption, (*head, *gains), tuple(rows))


def _differ(step: StepRow) -> bool:
    """Return whether a step's plain gain is known and differs from the gain by its own task weights."""
    return step.gain is not None and step.plain_gain is not None and abs(step.gain - step.plain_gain) > 5e-3
