"""The headline of the report: the lines of the terminal summary, the lead sentence and the cards."""

import dataclasses
import pathlib

from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Gain
from olmix_jax.propose.support import Support
from olmix_jax.proxy import equivalent_compute
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.report import caps, estimates
from olmix_jax.report.estimates import Comparison, Estimate
from olmix_jax.report.formatting import capitalised, first_names, number, percent, quantity
from olmix_jax.report.results import Results
from olmix_jax.report.style import MAX_ROWS, label
from olmix_jax.swarm import task_means
from olmix_jax.utils.progress import counted

WORST = "THIS IS THE WORST MIXTURE within the bounds (propose.worst), not a proposal. Do not train on it."
REFERENCES = ("natural", "uniform")
# Most domains that a sentence names.
MAX_NAMES = 20


@dataclasses.dataclass(frozen=True)
class Card:
    """A headline number with its title and a detail."""

    title: str
    value: str
    detail: str


def level(fit: FitResult) -> str:
    """Return the nominal level of the fit's intervals, as in "90 %"."""
    return percent(fit.level)


def with_error(value: Estimate) -> str:
    """Return "0.7123 ± 0.0010", or the mean alone for a single seed."""
    return number(value.mean) + ("" if value.error is None else f" ± {number(value.error)}")


def difference(comparison: Comparison) -> str:
    """Return a comparison as in "2.40 % lower, 11.4 standard errors"; in BPB if a percentage has no meaning."""
    size = f"{abs(comparison.difference):.4f}" if comparison.percent is None else f"{abs(comparison.percent):.2f} %"
    text = f"{size} {'lower' if comparison.difference >= 0 else 'higher'}"
    return text if comparison.errors is None else f"{text}, {abs(comparison.errors):.1f} standard errors"


def change(comparison: Comparison) -> str:
    """Return the change from the other mixture to this one, as in "−2.40 %"; in BPB if a percentage has no meaning."""
    if comparison.percent is None:
        return f"{number(-comparison.difference, '+.4f')} BPB"
    return f"{number(-comparison.percent, '+.2f')} %"


def objective(proposal: Proposal) -> str:
    """Return what was minimised, as in "weighted mean of 12 tasks, with propose.guard = 0.01 for each task"."""
    guard = proposal.guard
    limit = "" if guard is None else f", with propose.guard = {guard.slack:g} for each {guard.by}"
    return proposal.headline.name + limit


def models(proposal: Proposal) -> str:
    """Return which models the predictions are of: of the proxies' length, or of that which the law was read at."""
    if proposal.read_at is None:
        return "models of the proxies’ size and training length"
    return f"models of the proxies’ size, trained on {quantity(proposal.read_at.tokens)} tokens"


def of_all_lengths(results: Results) -> str:
    """Return what to add to held-out quality if runs differ in length, which makes them easier to rank; or nothing."""
    return " of all lengths" if results.table is not None and results.table.lengths is not None else ""


def missing_stages(results: Results, stage: str) -> str:
    """Return the value of ``--stages`` that adds the results of ``stage`` to the report."""
    if stage == "propose" and results.fit is not None:
        return "propose,report"
    return "fit,propose,report" if results.table is not None else "prepare,sample,train,fit,propose,report"


def no_law(results: Results) -> str:
    """Return a sentence for a workdir without a law: why, and which stages to run."""
    if results.update is not None and not results.update.proxies:
        parent = pathlib.PurePath(results.update.parent).name
        return f"the parent's law is used unchanged, because the update needs no runs; see the report of {parent}"
    return f"no law yet; run --stages={missing_stages(results, 'fit')}"


def no_proposal(results: Results) -> str:
    """Return a sentence for a workdir without a proposal, with the stages to run."""
    return f"no proposal yet; run --stages={missing_stages(results, 'propose')}"


def bpb_line(results: Results) -> str:
    """Return BPB of the proposal against natural and uniform: measured if validated, otherwise predicted."""
    if results.compared is not None:
        return _measured_line(results.compared)
    if results.proposal is None:
        return no_proposal(results)
    proposed, natural = estimates.predicted(results.proposal)
    at = results.proposal.read_at
    text = "predicted" if at is None else f"predicted for {quantity(at.tokens)} training tokens"
    text += f": proposed {number(proposed.mean)} BPB against natural {number(natural.mean)}"
    text += f" ({difference(estimates.compare(proposed, natural))})"
    if results.proposal.guard is not None or results.proposal.headline.plain_proposed is not None:
        text += f", {objective(results.proposal)}"
    text += _plain_text(estimates.plain_predicted(results.proposal))
    return f"{text}{_of_branches(results.training)}; not validated by training"


def _of_branches(training: TrainInfo | None) -> str:
    """Return which models a prediction is of, if the proxies are branches of a trunk; otherwise an empty text."""
    if training is None or not training.trunk_tokens:
        return ""
    share = percent(training.trunk_tokens / training.tokens_per_member)
    return f"; of branches that share {share} of their tokens, so differences are smaller than between full proxies"


def _plain_text(plain: tuple[Estimate, Estimate] | None) -> str:
    """Return the plain means of the proposal and of natural as a part of a sentence; empty for None."""
    if plain is None:
        return ""
    proposed, natural = plain
    text = f"; plain mean over tasks: {with_error(proposed)} against natural {with_error(natural)}"
    return f"{text} ({difference(estimates.compare(proposed, natural))})"


def _measured_line(validation: Validation) -> str:
    validated = estimates.validated(validation)
    proposed = validated["proposed"]
    others = [
        f"{name} {with_error(validated[name])} ({difference(estimates.compare(proposed, validated[name]))})"
        for name in REFERENCES
        if name in validated
    ]
    tasks, seeds = len(validation.mixtures["proposed"].tasks), proposed.seeds
    counts = f"{task_means.name(tasks, validation.task_weights)}, {counted(seeds, 'seed')}"
    plain = _plain_text(_plain_measured(validation))
    compute = validation.equivalent_compute
    saving = "" if compute is None else f"; {equivalent_compute.short_text(compute)}"
    return f"proposed {with_error(proposed)} BPB against {' and '.join(others)}; {counts}{plain}{saving}"


def _plain_measured(validation: Validation, other: str = "natural") -> tuple[Estimate, Estimate] | None:
    plain = estimates.plain_validated(validation)
    return (plain["proposed"], plain[other]) if plain else None


def caps_line(results: Results) -> str:
    """Return which repetition caps and which bounds bind."""
    proposal = results.proposal
    if proposal is None:
        return f"repetition caps: {no_proposal(results)}"
    epochs = proposal.repeats or {}
    repetition, bounds = (
        first_names([d + (f" ({epochs[d]:.3g} epochs)" if d in epochs else "") for d in domains], MAX_NAMES)
        for domains in (caps.at_repetition_cap(proposal), caps.at_upper_bound(proposal))
    )
    line = f"repetition caps that bind: {repetition}" if repetition else "no repetition cap binds"
    return line + (f"; upper bounds that bind: {bounds}" if bounds else "")


def law_line(results: Results) -> str:
    """Return the quality of the law on held-out runs."""
    fit = results.fit
    if fit is None:
        return no_law(results)
    line = f"law {fit.law}, held-out runs{of_all_lengths(results)}, {fit.folds} folds: "
    line += f"Spearman {number(fit.spearman_cv_mean, '.3f')} mean over tasks, "
    line += f"{number(fit.spearman_of_mean_cv, '.3f')} of the task average"
    line += f"; {level(fit)} intervals contain {percent(fit.coverage_cv_mean)} of measurements"
    if fit.test is not None:
        scores = number(fit.test.spearman_task_mean, ".3f"), number(fit.test.spearman_of_mean, ".3f")
        line += f"; test swarm: {scores[0]} and {scores[1]}"
    return line


def lead(results: Results) -> str:
    """Return the first sentences of the page."""
    return f"{capitalised(bpb_line(results))}. BPB is bits per byte of the gold answers; lower is better."


def cards(results: Results) -> list[Card]:
    """Return the headline numbers: measured, then predicted, then quality of the law."""
    headline = []
    if results.compared is not None:
        headline += _measured_cards(results.compared)
    if results.proposal is not None:
        headline += _proposal_cards(results.proposal, _of_branches(results.training))
    if results.fit is not None:
        detail = f"mean over {counted(len(results.tasks), 'task')}; "
        detail += f"{number(results.fit.spearman_of_mean_cv, '.3f')} for the "
        detail += "task average"
        if of_all_lengths(results):
            detail += "; runs of all lengths, which are easier to rank than mixtures of one length"
        title = "Spearman of the law on held-out runs"
        headline.append(Card(title, number(results.fit.spearman_cv_mean, ".3f"), detail))
    return headline


def _measured_cards(validation: Validation) -> list[Card]:
    validated = estimates.validated(validation)
    measured = []
    for name in (name for name in REFERENCES if name in validated):
        comparison = estimates.compare(validated["proposed"], validated[name])
        detail = f"BPB {with_error(validated['proposed'])} against {with_error(validated[name])}"
        if comparison.errors is not None:
            detail += f"; {number(comparison.errors, '.1f')} standard errors"
        plain = _plain_measured(validation, name)
        if plain is not None:
            tasks = len(validation.mixtures["proposed"].tasks)
            detail += f"; {task_means.name(tasks, validation.task_weights)}{_plain_change(plain)}"
        measured.append(Card(f"Measured: proposed against {name}", change(comparison), detail))
    compute = validation.equivalent_compute
    if compute is not None:
        detail = "tokens of natural per token of the proposal, for natural’s final BPB; "
        detail += f"{equivalent_compute.interval_text(compute)}; conservative"
        measured.append(Card("Measured: equivalent compute", equivalent_compute.value_text(compute), detail))
    return measured


def _plain_change(plain: tuple[Estimate, Estimate] | None) -> str:
    return "" if plain is None else f"; plain mean over tasks: {change(estimates.compare(*plain))}"


def _proposal_cards(proposal: Proposal, branches: str) -> list[Card]:
    proposed, natural = estimates.predicted(proposal)
    of = "models of the proxies’ size" if proposal.read_at is None else models(proposal)
    detail = f"BPB {number(proposed.mean)} against {number(natural.mean)}, for {of}"
    detail += f"; {objective(proposal)}{_plain_change(estimates.plain_predicted(proposal))}{branches}"
    value = change(estimates.compare(proposed, natural))
    headline = [Card("Predicted: proposed against natural", value, detail)]
    if proposal.gain is not None:
        name = task_means.name(len(proposal.predicted), proposal.task_weights)
        headline.append(_gain_card(proposal.gain, name, branches))
    if proposal.support is not None and not proposal.worst:
        headline.append(_support_card(proposal.support))
    repetition, bounds = caps.at_repetition_cap(proposal), caps.at_upper_bound(proposal)
    parts = [first_names([label(d, 40) for d in repetition], MAX_NAMES)] if repetition else []
    parts += [f"at an upper bound: {first_names([label(d, 40) for d in bounds], MAX_NAMES)}"] if bounds else []
    value = f"{len(repetition)} of {len(proposal.weights)}"
    return [*headline, Card("Repetition caps that bind", value, "; ".join(parts) or "no domain is at its cap")]


def _gain_card(gain: Gain, name: str, branches: str) -> Card:
    detail = f"BPB below natural ({name}); 5–95 %: {number(gain.low, '+.4f')} to {number(gain.high, '+.4f')}; "
    detail += f"positive in {percent(gain.probability)} of {counted(gain.samples, 'sample')} of the law"
    if gain.loss_probability > 0:
        detail += f", negative in {percent(gain.loss_probability)}"
    if gain.slope is not None and gain.slope_error is not None:
        detail += f"; held-out runs move {gain.slope:.2f} ± {gain.slope_error:.2f} times as much as predicted"
    return Card("Predicted gain, with the law’s uncertainty", number(gain.mean, "+.4f"), detail + branches)


def _support_card(support: Support) -> Card:
    share = "no gain" if support.extrapolated is None else percent(support.extrapolated)
    detail = f"share of the gain from weights that no run had; {number(support.nearest_run)} of the tokens differ from "
    detail += f"the nearest run and {number(support.averages_of_runs)} from the nearest average of runs"
    if support.between_runs is not None:
        detail += f" (between neighbouring runs: {number(support.between_runs)})"
    if support.caution is not None:
        detail += f"; propose.trust gives up {number(support.caution, '+.4f')} BPB of predicted gain"
    return Card("Extrapolated", share, detail)


def omitted_tasks(total: int) -> str:
    """Return the sentence of a caption that says which of ``total`` tasks a figure shows; empty if it shows all."""
    return f" Of {total} tasks, only the {MAX_ROWS} with the largest changes are shown." if total > MAX_ROWS else ""
