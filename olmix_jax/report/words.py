"""What the page says in words, and the terminal in three lines."""

import dataclasses

import numpy as np

from olmix_jax.report.read import Comparison, Estimate, Results, cap_of, compare
from olmix_jax.report.style import ROWS, label, number
from olmix_jax.report.trained import task_differences


@dataclasses.dataclass(frozen=True)
class Card:
    """A headline number."""

    title: str
    value: str
    detail: str


def with_error(found: Estimate) -> str:
    """0.7123 ± 0.0010, or just the mean of one seed."""
    return number(found.mean) + ("" if found.error is None else f" ± {number(found.error)}")


def lower(found: Comparison) -> str:
    """2.4 % lower, 11.4 standard errors."""
    text = f"{abs(found.percent):.2f} % {'lower' if found.percent >= 0 else 'higher'}"
    return text if found.errors is None else f"{text}, {abs(found.errors):.1f} standard errors"


def predicted_means(results: Results) -> tuple[Estimate, Estimate]:
    """Mean over tasks of the law's BPB for the proposal and for the natural mixture."""
    pair = results.proposal["predicted"], results.proposal["predicted_natural"]
    ours, theirs = (Estimate(float(np.mean(list(p.values()))), None, 0) for p in pair)
    return ours, theirs


def until(results: Results, stage: str) -> str:
    """The stages to run to have ``stage`` in the report."""
    first = "" if results.table is not None else "prepare,sample,train,"
    return "propose,report" if stage == "propose" and results.fit is not None else f"{first}fit,propose,report"


def won_line(results: Results) -> str:
    """Proposed against natural and uniform, trained if there is a validation, predicted otherwise."""
    validated = results.validated
    if not results.compared:
        if results.proposal is None:
            return f"no proposal yet: run --stages={until(results, 'propose')}"
        ours, theirs = predicted_means(results)
        text = f"proposed {number(ours.mean)} BPB predicted, natural {number(theirs.mean)}"
        return f"{text} ({lower(compare(ours, theirs))}); not validated by training"
    ours = validated["proposed"]
    rivals = [
        f"{name} {with_error(validated[name])} ({lower(compare(ours, validated[name]))})"
        for name in ("natural", "uniform")
        if name in validated
    ]
    tasks = len(results.validation["mixtures"]["proposed"]["tasks"])
    return f"proposed {with_error(ours)} BPB against {' and '.join(rivals)}; mean of {tasks} tasks, {ours.seeds} seeds"


def caps_line(results: Results) -> str:
    """Which repetition caps bind."""
    if results.proposal is None:
        return f"repetition caps: unknown until there is a proposal; run --stages={until(results, 'propose')}"
    if not results.binding:
        return "no repetition cap binds"
    epochs = results.epochs
    named = [d + (f" ({epochs[d]:.3g} epochs)" if d in epochs else "") for d in results.binding]
    return f"repetition caps that bind: {', '.join(named)}"


def law_line(results: Results) -> str:
    """Held-out quality of the law."""
    fit = results.fit
    if fit is None:
        return f"no law yet: run --stages={until(results, 'fit')}"
    folds = f", {fit['folds']} folds" if fit.get("folds") else ""
    line = f"law {fit['law']}, held-out runs{folds}: Spearman {number(fit['spearman_cv_mean'], '.3f')} mean over tasks"
    line += f", {number(fit.get('spearman_of_mean_cv'), '.3f')} of the task average"
    test = fit.get("test")
    if test:
        line += f"; test swarm {number(test.get('spearman_task_mean'), '.3f')}"
        line += f" and {number(test.get('spearman_of_mean'), '.3f')}"
    return line


def lead(results: Results) -> str:
    """The first sentence of the page."""
    text = won_line(results)
    return f"{text[0].upper()}{text[1:]}. BPB is bits per byte of the gold answers; lower is better."


def cards(results: Results) -> list[Card]:
    """Headline numbers."""
    found = []
    validated = results.validated
    if results.compared:
        for rival in [n for n in ("natural", "uniform") if n in validated]:
            against = compare(validated["proposed"], validated[rival])
            detail = f"BPB {with_error(validated['proposed'])} against {with_error(validated[rival])}"
            if against.errors is not None:
                detail += f"; {number(against.errors, '.1f')} standard errors"
            found.append(Card(f"Trained: proposed against {rival}", f"{number(-against.percent, '+.2f')} %", detail))
    if results.proposal is not None:
        ours, theirs = predicted_means(results)
        detail = f"BPB {number(ours.mean)} against {number(theirs.mean)} by the law, at the proxies’ scale"
        value = f"{number(-compare(ours, theirs).percent, '+.2f')} %"
        found.append(Card("Predicted: proposed against natural", value, detail))
        detail = ", ".join(label(d, 40) for d in results.binding) or "the law alone decides"
        total = len(results.proposal["weights"])
        found.append(Card("Repetition caps that bind", f"{len(results.binding)} of {total}", detail))
    if results.fit is not None:
        average = number(results.fit.get("spearman_of_mean_cv"), ".3f")
        detail = f"mean over {len(results.tasks)} tasks; {average} for the task average"
        found.append(Card("Held-out Spearman of the law", number(results.fit["spearman_cv_mean"], ".3f"), detail))
    return found


def warnings(results: Results) -> list[str]:
    """Everything that should make a reader careful."""
    proposal, fit = results.proposal or {}, results.fit or {}
    found = [str(w) for w in proposal.get("warnings") or []]
    if fit.get("unseen"):
        found.append(f"No run contained {_few(fit['unseen'])}: the law knows nothing about it.")
    if fit.get("spearman_cv_mean") is not None and fit["spearman_cv_mean"] < 0.5:
        found.append(
            "The law hardly orders held-out runs (mean Spearman under 0.5); more runs or longer ones are needed."
        )
    if results.table is not None and results.table.diverged:
        found.append(f"Diverged in training and left out of the fit: {_few(results.table.diverged)}.")
    return found + _validation_warnings(results)


def _validation_warnings(results: Results) -> list[str]:
    if not results.compared:
        return []
    found, ours = [], results.validated["proposed"]
    for rival in [n for n in ("natural", "uniform") if n in results.validated]:
        against = compare(ours, results.validated[rival])
        if against.percent <= 0:
            found.append(f"Trained for real, the proposal is not better than {rival}.")
        elif against.errors is not None and against.errors < 3:
            found.append(
                f"The gain over {rival} is under three standard errors: train more seeds before relying on it."
            )
    if ours.error is None:
        found.append("One seed per mixture: the differences have no error bars.")
    worse = [t for t, (d, error) in task_differences(results).items() if error is not None and d > 2 * error]
    if worse:
        of = f"{len(worse)} of {len(results.tasks)} tasks"
        found.append(f"Trained for real, worse than natural by over two standard errors, {of}: {_few(worse)}.")
    over = _over_cap(results)
    if over:
        found.append(f"The trained mixture exceeds the repetition cap of {_few(over)}.")
    return found


def _over_cap(results: Results) -> list[str]:
    """Domains whose realised weight is above the cap by more than realising a mixture in whole sequences can do."""
    if results.proposal is None:
        return []
    realised = results.validation["mixtures"]["proposed"].get("weights") or {}
    length = ((results.config or {}).get("proxy") or {}).get("length") or 1
    slack = 1e-6 + length / (results.validation.get("tokens") or 1e9)
    return [d for d, w in realised.items() if w > cap_of(results.proposal["caps"], d) + slack]


def _few(names, most: int = 8) -> str:
    shown = ", ".join(str(n) for n in list(names)[:most])
    return shown + (f" and {len(names) - most} more" if len(names) > most else "")


def cut_note(total: int) -> str:
    """What a caption says where a figure does not show every task."""
    return f" Of {total} tasks, the {ROWS} that change most are drawn." if total > ROWS else ""


def mixture_alt(results: Results) -> str:
    """Alternative text of the mixture figure."""
    weights, natural = results.proposal["weights"], results.proposal["natural"]
    most = sorted(weights, key=lambda d: -weights[d])[:4]
    parts = [f"{d} {100 * natural[d]:.1f} to {100 * weights[d]:.1f} %" for d in most]
    return f"Bars: natural and proposed weight of {len(weights)} domains. Largest proposed: {', '.join(parts)}."


def validation_alt(results: Results) -> str:
    """Alternative text of the validation figure."""
    parts = [f"{name} {with_error(found)}" for name, found in results.validated.items()]
    return f"Bars: mean bits per byte against natural. {', '.join(parts)}."
