"""What the page says in words, and the terminal in three lines."""

import dataclasses
import pathlib

import numpy as np

from olmix_jax.report import law_plots
from olmix_jax.report.results import Comparison, Estimate, Results, compare
from olmix_jax.report.style import ROWS, label, number

WORST = "THE WORST MIXTURE, NOT A PROPOSAL: it was made to be as bad as the bounds allow. Do not train on it."


@dataclasses.dataclass(frozen=True)
class Card:
    """A headline number."""

    title: str
    value: str
    detail: str


def percent(share: float) -> str:
    """0.9123 as 91 %, 0.0123 as 1.2 %; certainty is not rounded to."""
    value = 100 * share
    if 99 < value < 100:
        return f"{min(value, 99.9):.1f} %"
    return f"{value:.0f} %" if value >= 9.95 or value == 0 else f"{value:.1f} %"


def level(fit: dict) -> str:
    """The nominal level of a fit's intervals, as text."""
    return percent(law_plots.level(fit))


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


def no_law(results: Results) -> str:
    """Why there is no law in the workdir."""
    if results.update is not None and not results.update["proxies"]:
        parent = pathlib.PurePath(results.update["parent"]).name
        return f"the law is the old one, as the update needs no runs; see the report of {parent}"
    return f"no law yet: run --stages={until(results, 'fit')}"


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
    """Which repetition caps bind, and which other bounds."""
    if results.proposal is None:
        return f"repetition caps: unknown until there is a proposal; run --stages={until(results, 'propose')}"
    epochs = results.epochs
    repeated, bounded = (
        ", ".join(d + (f" ({epochs[d]:.3g} epochs)" if d in epochs else "") for d in names)
        for names in (results.repeated, results.bounded)
    )
    line = f"repetition caps that bind: {repeated}" if repeated else "no repetition cap binds"
    return line + (f"; bounds that bind: {bounded}" if bounded else "")


def most_by(proposal: dict) -> str:
    """What keeps domains from more than their most, as a caption says it."""
    bounded = "bound" in (proposal.get("capped_by") or {}).values()
    return "before it would be repeated too often" + (", or that propose.bounds allows" if bounded else "")


def law_line(results: Results) -> str:
    """Held-out quality of the law."""
    fit = results.fit
    if fit is None:
        return no_law(results)
    folds = f", {fit['folds']} folds" if fit.get("folds") else ""
    line = f"law {fit['law']}, held-out runs{folds}: Spearman {number(fit.get('spearman_cv_mean'), '.3f')}"
    line += f" mean over tasks, {number(fit.get('spearman_of_mean_cv'), '.3f')} of the task average"
    if fit.get("coverage_cv_mean") is not None:
        line += f"; {level(fit)} intervals hold {percent(fit['coverage_cv_mean'])} of measurements"
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
        found += _gain_card(results.proposal.get("gain") or {})
        detail = ", ".join(label(d, 40) for d in results.repeated)
        if results.bounded:
            detail += f"{'; ' * bool(detail)}at a bound: {', '.join(label(d, 40) for d in results.bounded)}"
        total = len(results.proposal["weights"])
        detail = detail or "the law alone decides"
        found.append(Card("Repetition caps that bind", f"{len(results.repeated)} of {total}", detail))
    if results.fit is not None:
        average = number(results.fit.get("spearman_of_mean_cv"), ".3f")
        detail = f"mean over {len(results.tasks)} tasks; {average} for the task average"
        average = results.fit.get("spearman_cv_mean")
        found.append(Card("Held-out Spearman of the law", number(average, ".3f"), detail))
    return found


def _gain_card(gain: dict) -> list[Card]:
    if gain.get("mean") is None:
        return []
    detail = "BPB under natural"
    if gain.get("low") is not None and gain.get("high") is not None:
        detail += f"; 5–95 %: {number(gain['low'], '+.4f')} to {number(gain['high'], '+.4f')}"
    if gain.get("probability") is not None:
        detail += f"; above 0 with probability {percent(gain['probability'])}"
    return [Card("Predicted gain, as sure as the law is", number(gain["mean"], "+.4f"), detail)]


def cut_note(total: int) -> str:
    """What a caption says where a figure does not show every task."""
    return f" Of {total} tasks, the {ROWS} that change most are drawn." if total > ROWS else ""


def learning_line(fit: dict) -> str:
    """What more runs would bring, as far as the learning curve tells."""
    curve = fit["learning_curve"]
    now, ahead = curve.get("now") or {}, curve.get("next") or {}
    if now.get("spearman_mean") is None or ahead.get("spearman_mean") is None:
        return "There is no extrapolation to more runs."
    line = f"{ahead['runs'] - now['runs']} more runs than the {now['runs']} there are: "
    line += f"Spearman {number(now['spearman_mean'], '.3f')} → {number(ahead['spearman_mean'], '.3f')} expected"
    if now.get("rmse_mean") is not None and ahead.get("rmse_mean") is not None:
        line += f", RMSE {number(now['rmse_mean'])} → {number(ahead['rmse_mean'])} BPB"
    error = (curve.get("spearman_mean_error") or [None])[-1]
    within = error is not None and abs(ahead["spearman_mean"] - now["spearman_mean"]) <= error
    return f"{line}{'; the change in Spearman is within the standard error of the curve' if within else ''}."


def next_line(proposal: dict | None) -> str:
    """What the proposed next runs would leave of the law's uncertainty; empty without them."""
    left = list(((proposal or {}).get("next_runs") or {}).values())
    if not left:
        return ""
    return (
        f" The {len(left)} mixtures in propose/next.csv, trained next, would leave {100 * left[-1]:.0f} % of the law’s "
        "standard deviation."
    )


def bars_note(fit: dict) -> str:
    """What the interval bars of the scatter plots are; empty without."""
    if not fit.get("low_cv") or not fit.get("high_cv"):
        return ""
    return f" Bars: {level(fit)} intervals for a new run, calibrated on other folds; red: the measurement is outside."


def coverage_line(fit: dict) -> str:
    """How often intervals hold, on average and at worst."""
    shares = law_plots.task_coverage(fit)
    mean = fit.get("coverage_cv_mean")
    parts = [] if mean is None else [f"The {level(fit)} intervals hold {percent(mean)} of held-out measurements."]
    if shares:
        parts.append(f"Lowest: {', '.join(f'{t} ({percent(s)})' for t, s in list(shares.items())[:3])}.")
    total, at = len(fit.get("runs") or ()), law_plots.level(fit)
    if shares and total:
        noise = 100 * (at * (1 - at) / total) ** 0.5
        parts.append(f"From {total} runs, a task’s coverage is itself uncertain by ± {noise:.0f} points.")
    return " ".join(parts)


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
