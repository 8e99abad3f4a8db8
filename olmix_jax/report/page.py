"""The page: what was found, in words, tables and figures, as one HTML file that needs nothing beside it."""

import pathlib
from collections.abc import Callable, Iterator

import jinja2
from markupsafe import Markup

from olmix_jax.report import (
    caveats,
    law_plots,
    mixture_plots,
    proposal_sections,
    sentences,
    tables,
    training_plots,
    update_sections,
)
from olmix_jax.report.elements import Figure, Picture, Section
from olmix_jax.report.results import Results, read
from olmix_jax.report.style import render
from olmix_jax.utils import files


def build(workdir: str | pathlib.Path) -> pathlib.Path:
    """Writes ``report/index.html`` and the PNGs beside it, which it holds too, and returns its path.

    A section whose inputs no stage has written is left out with a line that names the stage.

    Raises:
      UserError: the workdir holds nothing to report, a file in it is damaged, or the report cannot be written.
    """
    results = read(pathlib.Path(workdir))
    folder = results.workdir / "report"
    sections = list(_sections(results, folder))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    text = environment.get_template("page.html.jinja").render(
        lead=_lead(results), cards=sentences.cards(results), warnings=caveats.warnings(results), sections=sections
    )
    files.write_text(folder / "index.html", text)
    return folder / "index.html"


def summary(workdir: str | pathlib.Path) -> list[str]:
    """The result in plain lines: what was won, which caps bind, how good the law is held out; and what an update took.

    Raises:
      UserError: the workdir holds nothing to report, or a file in it is damaged.
    """
    results = read(pathlib.Path(workdir))
    won = f"{sentences.WORST} " if results.worst else ""
    lines = [won + sentences.won_line(results), sentences.caps_line(results), sentences.law_line(results)]
    return lines if results.update is None else [*lines, update_sections.line(results)]


def _lead(results: Results) -> str:
    """The first sentence, under a banner where the mixture is one not to train on."""
    text = sentences.lead(results)
    if results.update is not None:
        told = update_sections.line(results)
        text = f"{text} {told[0].upper()}{told[1:]}."
    if not results.worst:
        return text
    style = "display:block;background:#b5382f;color:#fff;font-size:1.3rem;padding:14px 16px;margin:0 0 .6em"
    return Markup('<strong role="alert" style="{}">{}</strong>{}').format(style, sentences.WORST, text)


def _sections(results: Results, folder: pathlib.Path) -> Iterator[Section]:
    def figure(draw: Callable, name: str, alt: str, caption: str) -> Figure:
        wide, narrow = render(draw, results)
        with files.atomic_write(folder / f"{name}.png", "wb") as f:
            f.write(wide)
        return Figure(name, Picture.of(wide), Picture.of(narrow), alt, caption)

    yield _mixture(results, figure)
    yield _validation(results, figure)
    yield from update_sections.sections(results, figure)
    yield from proposal_sections.sections(results, figure)
    yield _law(results, figure)
    if results.fit is not None:
        yield _coverage(results, figure)
        yield _learning(results, figure)
    yield _effects(results, figure)
    yield _training(results, figure)
    if results.fit is not None or results.validation is not None:
        yield Section("Every task", tables=(tables.task_table(results),))
    yield Section("The run", tables=tuple(tables.run_tables(results) + proposal_sections.fact_tables(results)))


def _mixture(results: Results, figure: Callable) -> Section:
    title = "The mixture, before and after"
    if results.proposal is None:
        return Section(title, note=f"There is no proposal yet: run --stages={sentences.until(results, 'propose')}.")
    proposal = results.proposal
    caption = (
        "Share of training tokens per domain, largest natural share first. Black marks: the most a domain may get "
        f"{sentences.most_by(proposal)}; marks beyond the axis are not drawn. “×” counts passes over the "
        "domain’s unique tokens in the target run. Orange: the cap, not the law, decides."
    )
    if proposal.get("weights_low") and proposal.get("weights_high"):
        caption += (
            " Thin lines: 5–95 % of the weight in optima of the law’s own samples, from what it does not know; the "
            "proposal, the optimum of the mean, may lie outside."
        )
    elif proposal.get("weights_std"):
        caption += " Whiskers: one standard deviation, from what the law does not know."
    elif proposal.get("no_weight_intervals"):
        caption += f" Weights have no intervals: {proposal['no_weight_intervals']}."
    if any((proposal.get("lower") or {}).values()):
        caption += " Green marks: the least a domain must get."
    if proposal.get("anchor"):
        caption += " Hollow diamonds: the reference that the proposal stays near, which is not natural."
    drawn = figure(mixture_plots.mixture, "mixture", sentences.mixture_alt(results), caption)
    more = (proposal_sections.group_table(proposal),) if proposal.get("groups") else ()
    return Section(title, (drawn,), (tables.domain_table(results), *more))


def _validation(results: Results, figure: Callable) -> Section:
    title = "The proof: fresh models trained on it"
    if results.validation is None:
        note = "No models were trained on the proposal (stage validate): what is said of it is prediction only."
        return Section(title, note=note)
    if not results.compared:
        return Section(title, note="validation.json lacks the natural or the proposed mixture; nothing to compare.")
    means = (
        "Bars: mean over tasks and seeds minus the natural mixture’s mean, in bits per byte; whiskers: one standard "
        "error over seeds; dots: single seeds. Left of zero is better than natural."
    )
    tasks = (
        "Difference in bits per byte, mean over seeds; whiskers: one standard error of the difference. Coloured only "
        "where it exceeds two standard errors. Diamonds: what the law, fitted on the small proxies, had predicted."
        + sentences.cut_note(len(training_plots.task_differences(results)))
    )
    drawn = [
        figure(training_plots.validation, "validation", sentences.validation_alt(results), means),
        figure(
            training_plots.validation_tasks, "validation_tasks", "Bars: difference to natural for each task.", tasks
        ),
    ]
    if results.validation_curves is not None:
        caption = (
            "Training loss against tokens, one line per model. Each is measured on its own mixture, so heights are "
            "not comparable between mixtures; look for models that have not settled, or jump."
        )
        alt = "Lines: training loss of the validation models, coloured by mixture."
        drawn.append(figure(training_plots.validation_curves, "validation_curves", alt, caption))
    return Section(title, tuple(drawn))


def _no_law(results: Results) -> str:
    text = sentences.no_law(results)
    return f"There is {text}." if text.startswith("no law") else f"{text[0].upper()}{text[1:]}."


def _law(results: Results, figure: Callable) -> Section:
    title = "Does the law hold? Predicted against measured, held out"
    if results.fit is None:
        return Section(title, note=_no_law(results))
    grades = (tables.quality_table(results),)
    if not results.fit.get("measured") or not results.fit.get("predicted_cv"):
        return Section(title, tables=grades, note="fit.json holds no held-out predictions to draw.")
    chosen, total = law_plots.panels(results), len(results.fit["predicted_cv"])
    cut = f" Of {total} tasks, the 4 worst, 3 median and 4 best by Spearman are drawn." if len(chosen) < total else ""
    caption = (
        "Each dot is a run of the swarm, predicted by a law fitted without it. On the line: exact. The optimiser needs "
        "the order to be right (Spearman, 1 is perfect); RMSE is in bits per byte. Tasks are sorted worst first."
        + sentences.bars_note(results.fit)
        + cut
    )
    alt = f"Scatter plots of predicted against measured bits per byte: the average and {len(chosen)} tasks."
    return Section(title, (figure(law_plots.predicted, "predicted", alt, caption),), grades)


def _coverage(results: Results, figure: Callable) -> Section:
    title = "Do its intervals hold what they promise?"
    fit = results.fit
    if not (fit.get("coverage_curve") or {}).get("covered") and not law_plots.task_coverage(fit):
        return Section(title, note="fit.json holds no coverage of the law’s intervals; run --stages=fit again for it.")
    caption = (
        "An honest 90 % interval holds nine in ten measurements that the law has not seen. On the diagonal: honest; "
        "below it: too narrow. Dots at the side: one per task. " + sentences.coverage_line(fit)
    )
    alt = f"Nominal against actual coverage, and the coverage of each task. {sentences.coverage_line(fit)}"
    return Section(title, (figure(law_plots.coverage, "coverage", alt, caption),))


def _learning(results: Results, figure: Callable) -> Section:
    title = "Would more runs help?"
    curve = results.fit.get("learning_curve") or {}
    if not curve.get("runs") or not curve.get("spearman_mean"):
        return Section(title, note="fit.json holds no learning curve; run --stages=fit again for it.")
    repeats = f", the mean of {curve['repeats']} random choices of them" if curve.get("repeats") else ""
    caption = (
        f"{sentences.learning_line(results.fit)}{sentences.next_line(results.proposal)} "
        f"Quality on held-out runs of laws fitted on part of the runs{repeats}. "
        "Hollow, dashed: extrapolated, not measured. Cross-validation and leave-one-out stand at the number of runs "
        "that their laws are fitted on; the law in use is fitted on all. Quick leave-one-out begins from the fit to "
        "all runs (and keeps its hyperparameters, where it has some), so it is the kinder of the two."
    )
    alt = f"Held-out quality of the law against the number of runs. {sentences.learning_line(results.fit)}"
    return Section(title, (figure(law_plots.learning, "learning", alt, caption),))


def _effects(results: Results, figure: Callable) -> Section:
    title = "What each domain does to each task"
    rows = [r for r in (results.fit or {}).get("tasks", {}).values() if r.get("effects")]
    if not rows:
        why = "run --stages=fit again for them" if results.fit else sentences.no_law(results)
        return Section(title, note=f"There are no effects of domains on tasks; {why}.")
    stated = results.fit.get("effect") or "change in BPB when a part of the mixture is replaced by the domain"
    caption = (
        f"By the law: {stated}. Blue, negative: the domain helps the task; red: it hurts. Colours saturate at the 98th "
        "percentile."
        + sentences.cut_note(len(rows))
        + (" Grey: domains that no run contained, about which nothing is known." if results.fit.get("unseen") else "")
        + (" “kept”: the block of domains in their old ratios." if results.fit.get("over") == "blocks" else "")
    )
    alt = f"Heat map of {len(rows)} tasks by {len(rows[0]['effects'])} domains: change in bits per byte."
    return Section(title, (figure(mixture_plots.effects, "effects", alt, caption),))


def _training(results: Results, figure: Callable) -> Section:
    title = "Training curves of the swarm"
    if results.curves is None:
        return Section(title, note="There are no training curves: the swarm was not trained here.")
    caption = (
        "Training loss against tokens, one line per proxy, averaged over short windows. Each is measured on the "
        "proxy’s own mixture: easy text gives a low line, not a good model. So judge by the colour (mean BPB on the "
        "tasks, dark is better) and look here for jumps, plateaus and divergence."
    )
    alt = f"Lines: training loss of {len(results.curves.runs)} proxies against tokens seen."
    return Section(title, (figure(training_plots.swarm_curves, "curves", alt, caption),))
