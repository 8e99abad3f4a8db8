"""The tables of the page."""

import dataclasses

from olmix_jax.report.law_plots import level
from olmix_jax.report.results import Results, cap_of
from olmix_jax.report.style import number, quantity
from olmix_jax.report.training_plots import predicted_differences, task_differences

# Ends of the interval of a proposal's predictions.
ENDS = ("predicted_low", "predicted_high")


@dataclasses.dataclass(frozen=True)
class Row:
    """Cells of a table; the first names the row. A marked row is shaded."""

    cells: tuple[str, ...]
    mark: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table; without a head it is a list of pairs."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[Row, ...]


def domain_table(results: Results) -> Table:
    """The mixture in numbers."""
    proposal, unique = results.proposal, results.unique_tokens
    prices, spread = proposal.get("shadow_prices") or {}, proposal.get("weights_std") or {}
    rows = []
    for d in sorted(proposal["weights"], key=lambda d: -proposal["natural"][d]):
        w, p, cap = proposal["weights"][d], proposal["natural"][d], cap_of(proposal["caps"], d)
        cells = (
            *(d, quantity(unique.get(d)), f"{100 * p:.2f}"),
            f"{100 * w:.2f}" + (f" ± {100 * spread[d]:.2f}" if spread.get(d) is not None else ""),
            f"{w / p:.2f}×" if p > 0 else "–",
            *("none" if cap >= 1 else f"{100 * cap:.2f}", number(results.epochs.get(d), ".2f")),
            number(prices.get(d), ".3g"),
        )
        rows.append(Row(cells, d in results.binding))
    head = ("domain", "unique tokens", "natural, %", "proposed, %", "ratio", "cap, %", "epochs", "shadow price")
    caption = (
        "The mixture in numbers. Ratio: proposed to natural. Epochs: passes over the unique tokens in the target run. "
        "Shadow price: what a billion more unique tokens of the domain would take off the objective, in BPB, at the "
        "margin. Shaded: at the cap."
        + (" ±: standard deviation of the weight, from what the law does not know." if spread else "")
    )
    return Table(caption, head, tuple(rows))


def task_table(results: Results) -> Table:
    """Prediction, measurement and held-out quality by task."""
    proposal, fit = results.proposal or {}, results.fit or {"tasks": {}}
    mixtures = results.validation["mixtures"] if results.compared else {}
    differences = task_differences(results) if mixtures else {}
    guesses = predicted_differences(results)
    worse, ranged = set(proposal.get("worse_tasks") or []), all(proposal.get(k) for k in ENDS)
    rows = []
    for task in results.tasks or tuple(differences):
        cells, flags = [task], ["predicted"] * (task in worse)
        if mixtures:
            cells += [number(mixtures[m]["tasks"].get(task, {}).get("mean")) for m in ("natural", "proposed")]
            difference, error = differences.get(task, (None, None))
            cells.append(number(difference, "+.4f") + ("" if error is None else f" ± {number(error)}"))
            flags += ["trained"] * (error is not None and difference > 2 * error)
        cells += [number((proposal.get(k) or {}).get(task)) for k in ("predicted_natural", "predicted")]
        cells += [_between(*((proposal[k] or {}).get(task) for k in ENDS))] if ranged else []
        held_out = fit["tasks"].get(task, {}).get("spearman_cv")
        cells += [number(guesses.get(task), "+.4f"), number(held_out, ".3f")]
        rows.append(Row((*cells, ", ".join(flags)), bool(flags)))
    head = ["task", *(["trained natural", "trained proposed", "difference ± standard error"] if mixtures else [])]
    head += ["predicted natural", "predicted proposed", *(["its interval"] if ranged else [])]
    head += ["difference", "Spearman held out"]
    caption = (
        "BPB by task; negative differences are improvements. Shaded: worse than natural, by the law or by over two "
        "standard errors when trained. Predictions are for models of the proxies’ size and length: compare differences "
        "with the trained models, not levels."
    )
    return Table(caption, (*head, "worse"), tuple(rows))


def quality_table(results: Results) -> Table:
    """Quality of the law by task, worst first: on runs that it has not seen, and last, named so, on those it has."""
    fit = results.fit
    at = f"{100 * level(fit):.0f} %"
    held = [("spearman_cv", "Spearman", ".3f"), ("r2_cv", "R²", ".3f"), ("rmse_cv", "RMSE, BPB", ".4f")]
    held += [
        ("coverage_cv", f"inside the {at} interval", ".0%"),
        ("spearman_loo", "Spearman, quick leave-one-out", ".3f"),
    ]
    held += [("rmse_loo", "RMSE, quick leave-one-out, BPB", ".4f")]
    seen = [("spearman_in_sample", "in-sample Spearman", ".3f"), ("rmse_in_sample", "in-sample RMSE, BPB", ".4f")]
    quality = fit["tasks"]
    columns = [c for c in held + seen if any(row.get(c[0]) is not None for row in quality.values())]
    columns = columns or held[:1]
    ordered = sorted(
        quality, key=lambda t: -2.0 if quality[t].get("spearman_cv") is None else quality[t]["spearman_cv"]
    )
    rows = [("mean over tasks", {k: _mean(fit, k) for k, *_ in columns})]
    rows += [("average of tasks", {f"spearman_{k}": fit.get(f"spearman_of_mean_{k}") for k in ("cv", "loo")})]
    rows += [(t, quality[t]) for t in ordered]
    caption = (
        "How well the law predicts each task, on runs that the law was fitted without"
        + (
            ", but for the last columns, named in-sample, which say little of new mixtures"
            if columns[-1] in seen
            else ""
        )
        + ". Quick leave-one-out keeps what the fit to all runs learnt of hyperparameters, so it is kinder than the "
        "folds; fit.folds = number of runs is leave-one-out with all learnt anew. Worst first. R² under 0: worse than "
        "always saying the mean. Shaded: Spearman under 0.5."
    )
    return Table(
        caption,
        ("task", *(name for _, name, _ in columns)),
        tuple(
            Row(
                (name, *(number(r.get(k), form) for k, _, form in columns)), i > 1 and (r.get("spearman_cv") or 0) < 0.5
            )
            for i, (name, r) in enumerate(rows)
        ),
    )


def _mean(fit: dict, key: str) -> float | None:
    """The mean over tasks as the fit states it, or else as its tasks give it."""
    stated = fit.get(f"{key}_mean")
    known = [row[key] for row in fit["tasks"].values() if row.get(key) is not None]
    return sum(known) / len(known) if stated is None and known else stated


def run_tables(results: Results) -> list[Table]:
    """What was run, and how the solver knows that it is done."""
    groups = [("Data and swarm", _swarm_facts(results)), ("Law", _law_facts(results.fit))]
    groups += [("Solver", _solver_facts(results.proposal)), ("Validation", _validation_facts(results.validation))]
    return [Table(name, (), tuple(Row(pair) for pair in rows)) for name, rows in groups if rows]


def _swarm_facts(results: Results) -> list[tuple[str, str]]:
    table, info = results.table, results.training or {}
    rows = []
    if table is not None:
        rows += [("runs K", f"{len(table.runs)}, and {len(table.diverged)} that diverged")]
        rows += [("domains M", str(len(table.domains))), ("tasks N", str(len(table.tasks)))]
    if results.unique_tokens:
        rows.append(("unique training tokens", quantity(sum(results.unique_tokens.values()))))
    known = [
        ("proxy", info.get("preset") and f"{info['preset']}, {quantity(info.get('parameters'))} parameters"),
        ("tokens per proxy", info.get("tokens_per_member") and quantity(info["tokens_per_member"])),
        ("mapping of members", info.get("mapping") and f"{info['mapping']}, {info.get('devices', '?')}"),
        ("throughput", info.get("tokens_per_second") and f"{info['tokens_per_second']:,.0f} tokens/s, all proxies"),
        ("compile time", info.get("compile_s") is not None and f"{info['compile_s']:.1f} s"),
        ("training time", info.get("wall_s") is not None and f"{info['wall_s']:.1f} s"),
        ("seed", (results.config or {}).get("seed") is not None and str(results.config["seed"])),
    ]
    return rows + [(k, v) for k, v in known if v]


def _law_facts(fit: dict | None) -> list[tuple[str, str]]:
    if fit is None:
        return []
    runs = fit.get("runs")
    losses = [r["loss"] for r in fit["tasks"].values() if r.get("loss") is not None]
    rows = [("family", str(fit["law"])), ("folds", str(fit.get("folds", "–")))]
    rows += [("runs fitted", str(len(runs)))] if runs else []
    kinds = [("spearman_cv_mean", "Spearman, held out, mean over tasks", ".3f")]
    kinds += [("spearman_of_mean_cv", "Spearman, held out, of the task average", ".3f")]
    kinds += [("r2_cv_mean", "R², held out, mean over tasks", ".3f")]
    kinds += [("rmse_cv_mean", "RMSE, held out, mean over tasks, BPB", ".4f")]
    kinds += [("coverage_cv_mean", f"inside the {100 * level(fit):.0f} % intervals, held out", ".1%")]
    kinds += [("spearman_loo_mean", "Spearman, quick leave-one-out, mean over tasks", ".3f")]
    kinds += [("spearman_of_mean_loo", "Spearman, quick leave-one-out, of the task average", ".3f")]
    kinds += [("spearman_in_sample_mean", "Spearman, in-sample, mean over tasks", ".3f")]
    rows += [(name, number(fit[key], form)) for key, name, form in kinds if fit.get(key) is not None]
    rows += [("loss, in-sample, summed over tasks", number(sum(losses), ".4g"))] if losses else []
    test = fit.get("test") or {}
    rows += [(f"test swarm, {k.replace('_', ' ')}", number(v, ".3f")) for k, v in test.items() if isinstance(v, float)]
    return rows + [("time", f"{fit['wall_s']:.1f} s")] * (fit.get("wall_s") is not None)


def _solver_facts(proposal: dict | None) -> list[tuple[str, str]]:
    if proposal is None:
        return []
    kinds = [
        ("status", "status"),
        ("target_tokens", "tokens of the target run R"),
        ("max_repeats", "repeats at most k"),
    ]
    kinds += [("kl_weight", "KL weight λ"), ("kl", "KL to natural, nats"), ("objective", "objective, BPB + λ·KL")]
    kinds += [("objective_natural", "objective of natural")]
    rows = [(name, _plain(proposal[key])) for key, name in kinds if proposal.get(key) is not None]
    names = {"gap": "duality gap, BPB", "relative_gap": "relative gap"}
    certificate = proposal.get("certificate") or {}
    return rows + [
        (names.get(k, k.replace("_", " ")), "unknown, see status" if v is None and k in names else _plain(v))
        for k, v in certificate.items()
    ]


def _validation_facts(validation: dict | None) -> list[tuple[str, str]]:
    if validation is None:
        return []
    kinds = [("preset", "model"), ("parameters", "parameters"), ("steps", "steps"), ("tokens", "tokens per model")]
    return [(name, _plain(validation[k])) for k, name in [*kinds, ("seeds", "seeds per mixture")] if validation.get(k)]


def _between(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{number(low)} to {number(high)}"


def _plain(value) -> str:
    if value is None:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    if isinstance(value, int) and abs(value) < 1_000_000:
        return f"{value:,}"
    return quantity(value) if abs(value) >= 1000 else number(value, ".6g")
