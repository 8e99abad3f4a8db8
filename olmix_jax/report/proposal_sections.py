"""Sections about the proposal: the mixture, predicted changes by task, the value of more data, files for trainers."""

from collections.abc import Iterator
from functools import partial

from olmix_jax.propose.proposal import Proposal
from olmix_jax.report import mixture_plot, proposal_plots, tables
from olmix_jax.report.elements import MakeFigure, Section
from olmix_jax.report.formatting import capitalised, first_names, number
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import no_proposal, omitted_tasks
from olmix_jax.utils.progress import counted


def mixture_section(results: Results, make_figure: MakeFigure) -> Section:
    """Return the natural and the proposed mixture as a figure and a table."""
    title, proposal = "Natural and proposed mixture", results.proposal
    if proposal is None:
        return Section(title, note=f"{capitalised(no_proposal(results))}.")
    draw = partial(mixture_plot.mixture, proposal)
    figure = make_figure(draw, "mixture", mixture_alt(proposal), _mixture_caption(proposal))
    groups = (tables.group_table(proposal.groups),) if proposal.groups else ()
    return Section(title, (figure,), (tables.domain_table(results, proposal), *groups))


def mixture_alt(proposal: Proposal) -> str:
    """Return alternative text that names the four domains with the largest proposed weights."""
    largest = sorted(proposal.weights, key=lambda d: -proposal.weights[d])[:4]
    parts = [f"{d} {100 * proposal.natural[d]:.1f} to {100 * proposal.weights[d]:.1f} %" for d in largest]
    return f"Bars: natural and proposed weight of {len(proposal.weights)} domains. Largest: {', '.join(parts)}."


def _mixture_caption(proposal: Proposal) -> str:
    limit = "repetition limit"
    if "bound" in proposal.capped_by.values():
        limit += " or propose.bounds"
    caption = (
        "Share of training tokens by domain, largest natural share first. Black marks: the largest weight that the "
        f"{limit} allows; marks beyond the axis are not drawn. ×: epochs over the domain’s unique tokens in the target "
        "run. Orange: the weight is limited by its cap."
    )
    shown, total = len(mixture_plot.shown_domains(proposal)), len(proposal.weights)
    if shown < total:
        caption += f" Of {total} domains, the {shown} with the largest natural or proposed weights are shown; the last "
        caption += "row has the sums of the others."
    if proposal.weights_low and proposal.weights_high:
        caption += (
            " Thin lines: 5–95 % interval of the optimal weight over samples of the law. The proposal is the optimum "
            "for the mean prediction and may lie outside."
        )
    elif proposal.weights_std:
        caption += " Thin lines: ± 1 standard deviation of the optimal weight over samples of the law."
    elif proposal.no_weight_intervals:
        caption += f" Weights have no intervals: {proposal.no_weight_intervals}."
    if any(proposal.lower.values()):
        caption += " Green marks: lower bounds."
    if proposal.anchor:
        caption += " Hollow diamonds: the anchor, from which KL is measured instead of from natural."
    return caption


def sections(results: Results, make_figure: MakeFigure) -> Iterator[Section]:
    """Yield predicted changes by task, then the value of more data if the proposal has prices."""
    proposal = results.proposal
    if proposal is None:
        return
    yield _task_changes(proposal, make_figure)
    if proposal_plots.ranked(proposal.shadow_prices) or proposal_plots.ranked(proposal.repeat_prices):
        yield _prices(proposal, make_figure)


def export_section(results: Results) -> Iterator[Section]:
    """Yield the table of files for trainers, if there are any."""
    if results.proposal is not None and results.proposal.handover:
        yield Section("Files for trainers", tables=(tables.export_table(results.proposal.handover),))


def _task_changes(proposal: Proposal, make_figure: MakeFigure) -> Section:
    rows = proposal_plots.changes(proposal)
    worse = [task for task, change in reversed(rows.items()) if change.mean > 0]
    counts = f"Predicted equal to or better than natural: {len(rows) - len(worse)} of {counted(len(rows), 'task')}"
    counts += f"; {len(worse)} worse, led by {first_names(worse, 3)}." if worse else "."
    caption = f"{counts} Predicted BPB of the proposal minus that of natural: negative (blue) is better."
    if proposal.predicted_low and proposal.predicted_high:
        caption += " Black lines: 5–95 % interval of the proposal’s BPB, minus the mean prediction for natural."
    if proposal.guard is not None:
        subject = "mean of every family" if proposal.guard.by == "family" else "BPB of every task"
        caption += f" Dashed: the guard, the largest rise that the {subject} may have."
        caption += " Bold: tasks whose guard binds." if proposal.guard.by != "family" else ""
    alt = f"Bars: predicted change in bits per byte against natural. {counts}"
    draw = partial(proposal_plots.task_changes, proposal)
    figure = make_figure(draw, "gains", alt, caption + omitted_tasks(len(rows)))
    return Section("Predicted change by task", (figure,))


def _prices(proposal: Proposal, make_figure: MakeFigure) -> Section:
    kinds = (
        (proposal.shadow_prices, "per billion more unique tokens"),
        (proposal.repeat_prices, "per additional allowed epoch"),
    )
    parts = []
    for prices, unit in kinds:
        largest = list(proposal_plots.ranked(prices).items())[:3]
        if largest:
            text = ", ".join(f"{d} {number(price, '.3g')}" for d, price in largest)
            parts.append(f"{text} BPB {unit}")
    caption = (
        "How much the objective would fall, to first order, with one billion more unique tokens of a domain (first "
        "panel) or with one more allowed epoch over that domain alone (second panel). The value of more data falls as "
        "the cap is relaxed. For domains without a bar the repetition cap does not bind, so more of their data would "
        "not change the mixture."
    )
    figure = make_figure(partial(proposal_plots.prices, proposal), "prices", f"Bars: {'. '.join(parts)}.", caption)
    return Section("Which data to collect next", (figure,))
