"""Sections about the law: held-out predictions, coverage, the learning curve, effects of domains on tasks."""

from collections.abc import Iterator
from functools import partial

from olmix_jax.laws.fit_result import FitResult, LearningCurve, Over
from olmix_jax.propose.proposal import Proposal
from olmix_jax.report import effects_plot, law_plots, tables, training_plots
from olmix_jax.report.elements import MakeFigure, Section
from olmix_jax.report.formatting import capitalised, number, percent, quantity
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import level, no_law, omitted_tasks
from olmix_jax.report.style import MAX_DOMAINS
from olmix_jax.utils.progress import counted

PREDICTED_TITLE = "Quality of the law: predicted against measured BPB of held-out runs"


def sections(results: Results, make_figure: MakeFigure) -> Iterator[Section]:
    """Yield all sections about the law; without a fit, a note that says why there is none."""
    fit = results.fit
    if fit is None:
        yield Section(PREDICTED_TITLE, note=f"{capitalised(no_law(results))}.")
        return
    yield _predicted(fit, make_figure)
    yield _coverage(fit, make_figure)
    yield _learning(fit, results.proposal, make_figure)
    yield _effects(fit, results, make_figure)


def _predicted(fit: FitResult, make_figure: MakeFigure) -> Section:
    shown, total = len(law_plots.panels(fit)), len(fit.tasks)
    omitted = f" Of {total} tasks, only the 4 worst, 3 median and 4 best by Spearman are shown." * (shown < total)
    caption = (
        "Each dot is a run of the swarm, predicted by a law that was fitted without it. Grey line: exact prediction. "
        "The optimiser needs a correct ranking (Spearman, 1 is perfect); RMSE is in BPB. Tasks are sorted by Spearman, "
        f"lowest first. Bars: {level(fit)} intervals for a new run, calibrated on other folds; red: the measurement is "
        f"outside.{omitted}"
    )
    if fit.cheap is not None:
        caption += f" {capitalised(str(fit.cheap))}."
    alt = f"Scatter plots of predicted against measured bits per byte: the average and {counted(shown, 'task')}."
    figure = make_figure(partial(law_plots.predicted, fit), "predicted", alt, caption)
    return Section(PREDICTED_TITLE, (figure,), (tables.quality_table(fit),))


def _coverage(fit: FitResult, make_figure: MakeFigure) -> Section:
    caption = (
        "First panel: the share of held-out measurements inside intervals of each nominal level. On the grey line the "
        "share equals the level; below it the intervals are too narrow. Second panel: one dot per task. "
        + coverage_text(fit)
    )
    alt = f"Nominal against actual coverage, and the coverage of each task. {coverage_text(fit)}"
    figure = make_figure(partial(law_plots.coverage, fit), "coverage", alt, caption)
    return Section("Coverage of the law’s prediction intervals", (figure,))


def coverage_text(fit: FitResult) -> str:
    """Return how often the intervals contain held-out measurements: on average, and for the lowest three tasks."""
    lowest = list(law_plots.task_coverage(fit).items())[:3]
    error = 100 * (fit.level * (1 - fit.level) / len(fit.runs)) ** 0.5
    return (
        f"The {level(fit)} intervals contain {percent(fit.coverage_cv_mean)} of held-out measurements. "
        f"Lowest: {', '.join(f'{task} ({percent(share)})' for task, share in lowest)}. "
        f"With {len(fit.runs)} runs, the coverage of one task has a standard error of {error:.0f} points."
    )


def _learning(fit: FitResult, proposal: Proposal | None, make_figure: MakeFigure) -> Section:
    title, curve = "Expected benefit of more runs", fit.learning_curve
    if curve is None:
        return Section(title, note="fit.json has no learning curve.")
    caption = (
        f"{learning_text(curve)}{next_runs_text(proposal)} Lines: quality on held-out runs of laws fitted on part of "
        f"the runs, mean over {curve.repeats} random subsets. Hollow, dashed: extrapolated. Diamond and triangle: "
        "cross-validation and quick leave-one-out, placed at the number of runs that their laws are fitted on. Quick "
        "leave-one-out starts from the fit to all runs and keeps its hyperparameters, so it is more optimistic."
    )
    alt = f"Held-out quality of the law against the number of runs. {learning_text(curve)}"
    figure = make_figure(partial(law_plots.learning, fit, curve), "learning", alt, caption)
    return Section(title, (figure,))


def learning_text(curve: LearningCurve) -> str:
    """Return the expected quality with ten more runs, and whether the change is within the curve's error."""
    now, more = curve.now, curve.next
    text = f"With {more.runs - now.runs} more runs than the present {now.runs}, Spearman is expected to go from "
    text += f"{number(now.spearman_mean, '.3f')} to {number(more.spearman_mean, '.3f')} and RMSE from "
    text += f"{number(now.rmse_mean)} to {number(more.rmse_mean)} BPB"
    if abs(more.spearman_mean - now.spearman_mean) <= curve.spearman_mean_error[-1]:
        text += "; the change in Spearman is within the standard error of the curve"
    return f"{text}."


def next_runs_text(proposal: Proposal | None) -> str:
    """Return how far the proposed next runs would reduce the law's standard deviation; empty without them."""
    if proposal is None or not proposal.next_runs:
        return ""
    remaining, tokens = list(proposal.next_runs.values()), proposal.next_tokens
    at = "" if tokens is None else f", if each is trained on {quantity(tokens)} tokens, as the median run"
    kinds = "" if proposal.next_kinds is None else f" {capitalised(str(proposal.next_kinds))}."
    return (
        f" Training {counted(len(remaining), 'mixture')} of propose/next.csv would reduce the law’s standard deviation "
        f"to {100 * remaining[-1]:.0f} % of its present value{at}.{kinds}"
    )


def _effects(fit: FitResult, results: Results, make_figure: MakeFigure) -> Section:
    title = "Effect of each domain on each task"
    rows = [task.effects for task in fit.tasks.values() if task.effects]
    if not rows:
        return Section(title, note="fit.json has no effects of domains on tasks.")
    caption = (
        f"{capitalised(fit.effect)}, according to the law. Blue, negative: the domain improves the task; red: it makes "
        "the task worse. Colours saturate at the 98th percentile." + omitted_tasks(len(rows))
    )
    domains = max(map(len, rows))
    if domains > MAX_DOMAINS:
        caption += f" Of {domains} domains, the {MAX_DOMAINS} with the largest effects are shown."
    caption += " Grey: domains that were never sampled; their effects are unknown." if fit.unseen else ""
    caption += " “kept”: the block of domains that keep their ratios." if fit.over is Over.BLOCKS else ""
    alt = f"Heat map of {counted(len(rows), 'task')} by {len(rows[0])} domains: change in bits per byte."
    draw = partial(effects_plot.effects, fit, results.natural, training_plots.task_weights(results))
    return Section(title, (make_figure(draw, "effects", alt, caption, scroll=True),))
