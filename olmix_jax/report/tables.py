"""Tables of the page: domains, tasks, quality of the law, groups of domains, files for trainers."""

from olmix_jax.laws.fit_result import FitResult, TaskFit
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Export, Group
from olmix_jax.report import caps, estimates
from olmix_jax.report.elements import Row, Table
from olmix_jax.report.formatting import number, quantity, weight_percent
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import level, models
from olmix_jax.swarm import task_means


def domain_table(results: Results, proposal: Proposal) -> Table:
    """Return weights, caps, epochs and shadow prices by domain."""
    tokens, at_cap = results.unique_tokens, caps.at_cap(proposal)
    epochs, prices, std = (values or {} for values in (proposal.repeats, proposal.shadow_prices, proposal.weights_std))
    rows = []
    for d in sorted(proposal.weights, key=lambda d: -proposal.natural[d]):
        weight, natural, cap = proposal.weights[d], proposal.natural[d], caps.cap_of(proposal, d)
        cells = (
            d,
            quantity(tokens.get(d)),
            weight_percent(natural),
            weight_percent(weight) + (f" ± {weight_percent(std[d])}" if d in std else ""),
            f"{weight / natural:.2f}×" if natural > 0 else "–",
            "none" if cap >= 1 else weight_percent(cap),
            number(epochs.get(d), ".2f"),
            number(prices.get(d), ".3g"),
        )
        rows.append(Row(cells, d in at_cap))
    head = ("domain", "unique tokens", "natural, %", "proposed, %", "ratio", "cap, %", "epochs", "shadow price")
    caption = (
        "Weights by domain. Ratio: proposed to natural. Epochs: passes over the unique tokens in the target run. "
        "Shadow price: how much one billion more unique tokens of the domain would lower the objective, in BPB, to "
        "first order. Shaded: at the cap."
        + (" ±: standard deviation of the weight due to the law’s uncertainty." if std else "")
    )
    return Table(caption, head, tuple(rows), name="domains")


def task_table(results: Results) -> Table:
    """Return measured and predicted BPB and held-out quality by task."""
    validation, proposal, fit = results.compared, results.proposal, results.fit
    measured = estimates.task_differences(validation) if validation is not None else {}
    expected = estimates.predicted_differences(proposal)
    intervals = proposal is not None and bool(proposal.predicted_low and proposal.predicted_high)
    weights = {} if proposal is None or task_means.are_equal(proposal.task_weights) else proposal.task_weights
    rows = []
    for task in results.tasks or tuple(measured):
        cells, worse = [task, *([weight_percent(weights.get(task, 0.0))] if weights else [])], []
        if proposal is not None and task in proposal.worse_tasks:
            worse.append("predicted")
        if validation is not None:
            scores = [validation.mixtures[m].tasks.get(task) for m in ("natural", "proposed")]
            cells += [number(score.mean if score is not None else None) for score in scores]
            difference = measured.get(task, estimates.Difference(float("nan"), None))
            error = "" if difference.error is None else f" ± {number(difference.error)}"
            cells.append(number(difference.mean, "+.4f") + error if task in measured else "–")
            worse += ["measured"] * difference.worse
        if proposal is not None:
            cells += [number(bpb.get(task)) for bpb in (proposal.predicted_natural, proposal.predicted)]
            cells += [_interval(proposal, task)] if intervals else []
            cells.append(number(expected.get(task), "+.4f"))
        if fit is not None:
            cells.append(number(fit.tasks[task].spearman_cv if task in fit.tasks else None, ".3f"))
        rows.append(Row((*cells, "both" if len(worse) == 2 else "".join(worse)), bool(worse)))
    head = ["task", *(["weight, %"] if weights else [])]
    if validation is not None:
        head += ["measured, natural", "measured, proposed", "measured difference ± error"]
    if proposal is not None:
        head += [
            "predicted, natural",
            "predicted, proposed",
            *(["5–95 %"] if intervals else []),
            "predicted difference",
        ]
    head += ["held-out Spearman"] if fit is not None else []
    caption = (
        "BPB by task. Differences are proposed minus natural (negative is better) ± one standard error. Shaded: worse "
        "than natural, as predicted by the law or as measured by more than two standard errors; the last column says "
        "which."
    )
    if proposal is not None:
        of = models(proposal)
        caption += f" Predictions are for {of}, so compare differences, not levels, with the measurements."
    return Table(caption, (*head, "worse"), tuple(rows), name="tasks")


def _interval(proposal: Proposal, task: str) -> str:
    ends = [(end or {}).get(task) for end in (proposal.predicted_low, proposal.predicted_high)]
    return "–" if None in ends else f"{number(ends[0])}–{number(ends[1])}"


# Attribute of a task's fit, column title and number format: held-out quality, then in-sample quality.
HELD_OUT = (
    ("spearman_cv", "Spearman", ".3f"),
    ("r2_cv", "R²", ".3f"),
    ("rmse_cv", "RMSE, BPB", ".4f"),
    ("coverage_cv", "inside the {level} interval", ".0%"),
    ("spearman_loo", "Spearman, quick leave-one-out", ".3f"),
    ("rmse_loo", "RMSE, quick leave-one-out, BPB", ".4f"),
)
IN_SAMPLE = (("spearman_in_sample", "in-sample Spearman", ".3f"), ("rmse_in_sample", "in-sample RMSE, BPB", ".4f"))


def quality_table(fit: FitResult) -> Table:
    """Return the quality of the law by task, lowest held-out Spearman first, below the mean over tasks."""
    tasks = fit.tasks
    columns = [c for c in (*HELD_OUT, *IN_SAMPLE) if any(getattr(row, c[0]) is not None for row in tasks.values())]
    means = [_mean_over_tasks(fit, attribute) for attribute, *_ in columns]
    rows = [Row(("mean over tasks", *(number(mean, form) for mean, (*_, form) in zip(means, columns))))]
    average = {"spearman_cv": fit.spearman_of_mean_cv, "spearman_loo": fit.spearman_of_mean_loo}
    average["coverage_cv"] = fit.average.coverage_cv
    rows.append(Row(("average of tasks", *(number(average.get(attribute), form) for attribute, _, form in columns))))
    for name in sorted(tasks, key=lambda t: tasks[t].spearman_cv):
        cells = [number(getattr(tasks[name], attribute), form) for attribute, _, form in columns]
        rows.append(Row((name, *cells), tasks[name].spearman_cv < 0.5))
    caption = (
        "How well the law predicts each task, lowest Spearman first. All columns are for held-out runs, except those "
        "named in-sample, which do not indicate quality on new mixtures. Quick leave-one-out keeps the hyperparameters "
        "of the fit to all runs, so it is more optimistic than cross-validation; set fit.folds to the number of runs "
        "for full leave-one-out. R² below 0: worse than predicting the mean. Shaded: Spearman below 0.5."
    )
    titles = (title.format(level=level(fit)) for _, title, _ in columns)
    return Table(caption, ("task", *titles), tuple(rows), name="law_quality")


def _mean_over_tasks(fit: FitResult, attribute: str) -> float | None:
    """Return the mean of an attribute over the tasks that have it, as the fit states it if it does."""
    stated = getattr(fit, f"{attribute}_mean", None)
    if stated is not None:
        return stated
    values: list[float] = [v for task in fit.tasks.values() if (v := _value(task, attribute)) is not None]
    return sum(values) / len(values) if values else None


def _value(task: TaskFit, attribute: str) -> float | None:
    return getattr(task, attribute)


def group_table(groups: tuple[Group, ...]) -> Table:
    """Return bounds on the summed weights of groups of domains, and their prices."""
    rows = []
    for group in groups:
        bounds = (weight_percent(group.low), weight_percent(group.high))
        cells = (group.name, str(len(group.domains)), weight_percent(group.weight), *bounds)
        rows.append(Row((*cells, number(group.multiplier, ".3g")), bool(group.multiplier)))
    head = ("group", "domains", "proposed, %", "at least, %", "at most, %", "price, BPB per unit of weight")
    caption = (
        "Bounds on groups of domains. Price: how much the objective would fall per unit by which the bound is relaxed, "
        "to first order. Shaded: the bound binds."
    )
    return Table(caption, head, tuple(rows), name="groups")


def export_table(exports: dict[str, Export]) -> Table:
    """Return the mixture's files for trainers, with their rounding errors."""
    rows = [Row((name, e.file, f"{100 * e.largest_error:.2g}")) for name, e in exports.items()]
    caption = (
        "Files of the mixture for trainers. Largest error: largest deviation of a domain’s weight in the file from the "
        "proposal, in percentage points. It is due to rounding to whole sequences or to a few digits."
    )
    return Table(caption, ("format", "file", "largest error, points"), tuple(rows), text=True)
