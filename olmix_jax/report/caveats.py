"""Warnings at the top of the page: reasons to be careful with the results."""

from olmix_jax.laws.fit_result import FitResult, Sampled, outliers_text
from olmix_jax.report import caps, estimates, law_plots, update_sections
from olmix_jax.report.formatting import capitalised, first_names, percent
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import REFERENCES, level
from olmix_jax.utils.progress import counted


def warnings(results: Results) -> list[str]:
    """Return all warnings, a sentence or two each."""
    texts = []
    if results.proposal is not None:
        texts += [f"{capitalised(text).rstrip('.')}." for text in results.proposal.warnings]
        texts += [f"{capitalised(text).rstrip('.')}." for text in results.proposal.left_out]
    if results.fit is not None:
        texts += _law_warnings(results.fit)
    if results.table is not None and results.table.diverged:
        texts.append(f"These runs diverged and are left out of the fit: {first_names(results.table.diverged)}.")
    if update_sections.costs_more_than_predicted(results):
        texts.append(
            "According to the new law, keeping the old ratios costs more than predicted. Recompute more domains."
        )
    return texts + _validation_warnings(results)


def _law_warnings(fit: FitResult) -> list[str]:
    texts = [f"{text}." for text in fit.warnings]
    if fit.outliers:
        texts.append(f"{capitalised(outliers_text(fit.outliers))}.")
    if fit.unseen:
        texts.append(f"Never sampled: {first_names(fit.unseen)}. The swarm gives no information about their effects.")
    rare = [f"{d} ({_sampled(seen)})" for d, seen in fit.barely_sampled.items() if d not in fit.unseen]
    if rare:
        texts.append(f"Rarely sampled: {first_names(rare)}. Their estimated effects are uncertain.")
    if fit.spearman_cv_mean < 0.5:
        texts.append(
            f"The law ranks held-out runs poorly (mean Spearman {fit.spearman_cv_mean:.2f}, below 0.5). Train more or "
            "longer runs."
        )
    if abs(fit.coverage_cv_mean - fit.level) > law_plots.COVERAGE_TOLERANCE + 1e-9:
        problem = "too narrow" if fit.coverage_cv_mean < fit.level else "wider than necessary"
        texts.append(
            f"The {level(fit)} intervals contain {percent(fit.coverage_cv_mean)} of held-out measurements: they are "
            f"{problem}."
        )
    return texts


def _sampled(sampled: Sampled) -> str:
    return f"in {counted(sampled.runs, 'run')}, at most {percent(sampled.max)}"


def _validation_warnings(results: Results) -> list[str]:
    if results.compared is None:
        return []
    texts, validated = [], estimates.validated(results.compared)
    for name in (name for name in REFERENCES if name in validated):
        comparison = estimates.compare(validated["proposed"], validated[name])
        if comparison.difference <= 0 and not results.worst:
            texts.append(f"In training, the proposal was not better than {name}.")
        elif comparison.errors is not None and abs(comparison.errors) < 3:
            texts.append(
                f"The measured difference from {name} is less than three standard errors. Train more seeds before you "
                "rely on it."
            )
    if validated["proposed"].error is None:
        texts.append("Each mixture was trained with one seed, so the measured differences have no error bars.")
    differences = estimates.task_differences(results.compared)
    worse = [task for task, difference in differences.items() if difference.worse]
    if worse:
        texts.append(
            f"Measured worse than natural by more than two standard errors on {len(worse)} of {len(differences)} "
            f"tasks: {first_names(worse)}."
        )
    over = _over_cap(results)
    if over:
        texts.append(f"The trained mixture exceeds the cap of {first_names(over)}.")
    return texts


def _over_cap(results: Results) -> list[str]:
    """Return the domains whose trained weight exceeds the cap by more than one sequence."""
    if results.proposal is None or results.validation is None:
        return []
    length = results.config.proxy.length if results.config is not None else None
    tolerance = 1e-6 + (length or 1) / results.validation.tokens
    trained = results.validation.mixtures["proposed"].weights
    return [d for d, weight in trained.items() if weight > caps.cap_of(results.proposal, d) + tolerance]
