"""Sections about training: validation of the proposal by fresh models, and training curves of the swarm."""

from functools import partial

from olmix_jax.proxy import equivalent_compute
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.report import compute_plot, estimates, training_plots
from olmix_jax.report.elements import MakeFigure, Section
from olmix_jax.report.formatting import capitalised, quantity
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import omitted_tasks, with_error
from olmix_jax.swarm import task_means


def validation_section(results: Results, make_figure: MakeFigure) -> Section:
    """Return measured BPB of the proposal against natural; without it, a note that says why."""
    title = "Validation: fresh models trained on the proposed mixture"
    if results.validation is None:
        note = "No models were trained on the proposal (stage validate). All statements about it are predictions."
        return Section(title, note=note)
    validation = results.compared
    if validation is None:
        return Section(title, note="validate/validation.json lacks the natural or the proposed mixture.")
    figures = [_means(validation, make_figure), _tasks(results, validation, make_figure)]
    if validation.equivalent_compute is not None:
        figures.append(_compute(validation, validation.equivalent_compute, make_figure))
    if results.validation_curves is not None:
        caption = (
            "Training loss against tokens, one line per model. Each model is measured on its own mixture, so do not "
            "compare levels between mixtures. Look for models whose loss jumps or has not levelled off."
        )
        alt = "Lines: training loss of the validation models, coloured by mixture."
        draw = partial(training_plots.validation_curves, results.validation_curves)
        figures.append(make_figure(draw, "validation_curves", alt, caption))
    return Section(title, tuple(figures))


def _means(validation: Validation, make_figure: MakeFigure):
    mean = task_means.word(validation.task_weights)
    caption = (
        f"Bars: {mean} BPB over tasks and seeds, minus that of the natural mixture; negative is better. Whiskers: one "
        "standard error over seeds. Dots: single seeds."
    )
    parts = [f"{name} {with_error(value)}" for name, value in estimates.validated(validation).items()]
    alt = f"Bars: {mean} bits per byte against natural. {', '.join(parts)}."
    return make_figure(partial(training_plots.validation, validation), "validation", alt, caption)


def _compute(validation: Validation, compute: equivalent_compute.EquivalentCompute, make_figure: MakeFigure):
    mean = task_means.word(validation.task_weights)
    caption = (
        f"{capitalised(mean)} BPB against tokens, mean over seeds. Bands: one standard error. Dashed: natural’s BPB "
        "after all of its tokens. Diamond: where the proposal has that BPB; bar: the 5–95 % interval (Student’s t of "
        "the differences between models of the same seed). The points are of the same runs, whose learning rate falls "
        "until the last step. A run that is planned to end earlier would be better there, so this estimate is "
        "conservative. Between the points, BPB is interpolated in the logarithm of tokens."
    )
    alt = f"Lines: {mean} bits per byte against tokens, by mixture. {capitalised(equivalent_compute.text(compute))}."
    return make_figure(partial(compute_plot.bpb_curves, validation), "validation_bpb", alt, caption)


def _tasks(results: Results, validation: Validation, make_figure: MakeFigure):
    caption = (
        "Measured difference in BPB between the proposed and the natural mixture, mean over seeds. Whiskers: one "
        "standard error of the difference. Coloured: more than two standard errors. Diamonds: the prediction of the "
        "law, which was fitted on the proxies." + omitted_tasks(len(estimates.task_differences(validation)))
    )
    alt = "Bars: measured difference in bits per byte between proposed and natural, by task."
    draw = partial(training_plots.validation_tasks, validation, results.proposal)
    return make_figure(draw, "validation_tasks", alt, caption)


def swarm_section(results: Results, make_figure: MakeFigure) -> Section:
    """Return the training curves of the swarm; without them, a note that says why."""
    title = "Training curves of the swarm"
    if results.curves is None:
        trained_here = results.training is not None
        reason = "their file is missing or damaged" if trained_here else "the swarm was trained elsewhere"
        return Section(title, note=f"There are no training curves: {reason}.")
    mean = task_means.word(training_plots.task_weights(results))
    caption = (
        "Training loss against tokens, one line per proxy, averaged over short windows. Each proxy is measured on its "
        "own mixture, and easy text gives a low loss whatever the model’s quality. Compare proxies by colour "
        f"({mean} BPB on the tasks, dark is better), and look here for jumps, plateaus and divergence."
    )
    if results.training is not None and results.training.trunk_tokens:
        caption += f" All proxies share the first {quantity(results.training.trunk_tokens)} tokens."
    alt = f"Lines: training loss of {len(results.curves.runs)} proxies against tokens seen."
    draw = partial(training_plots.swarm_curves, results, results.curves)
    return Section(title, (make_figure(draw, "curves", alt, caption),))
