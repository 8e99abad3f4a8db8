"""What should make a reader careful, in words."""

from olmix_jax.report import law_plots, update_sections
from olmix_jax.report.results import Results, cap_of, compare
from olmix_jax.report.sentences import level, percent
from olmix_jax.report.style import few
from olmix_jax.report.training_plots import task_differences


def warnings(results: Results) -> list[str]:
    """Everything that should make a reader careful."""
    proposal, fit = results.proposal or {}, results.fit or {}
    found = [str(w) for w in proposal.get("warnings") or []]
    found += _law_warnings(fit)
    probability = (proposal.get("gain") or {}).get("probability")
    if probability is not None and probability < 0.9 and not results.worst:
        found.append(
            f"By the law, the proposal is better than natural with a probability of {percent(probability)} only: "
            "train it and natural side by side before relying on it."
        )
    if results.table is not None and results.table.diverged:
        found.append(f"Diverged in training and left out of the fit: {few(results.table.diverged)}.")
    if update_sections.too_much(results):
        found.append("By the new law, keeping old ratios costs more than was predicted: recompute more domains.")
    return found + _validation_warnings(results)


def _law_warnings(fit: dict) -> list[str]:
    found, unseen = [], fit.get("unseen") or []
    if unseen:
        found.append(f"No run contained {few(unseen)}: the law knows nothing about it.")
    barely = {d: r for d, r in (fit.get("barely_sampled") or {}).items() if d not in unseen}
    if barely:
        named = [f"{d} ({_seen(r)})" for d, r in barely.items()]
        found.append(f"Barely sampled: {few(named)}. What the law says of such domains rests on little.")
    if fit.get("spearman_cv_mean") is not None and fit["spearman_cv_mean"] < 0.5:
        found.append(
            "The law hardly orders held-out runs (mean Spearman under 0.5); more runs or longer ones are needed."
        )
    held, at = fit.get("coverage_cv_mean"), law_plots.level(fit)
    if held is not None and abs(held - at) > law_plots.SLACK + 1e-9:
        kind = "too narrow: errors are larger than the law says" if held < at else "wider than they need to be"
        found.append(f"The {level(fit)} intervals hold {percent(held)} of held-out measurements: they are {kind}.")
    return found


def _seen(row: dict) -> str:
    parts = [f"in {row['runs']} runs" if row["runs"] != 1 else "in 1 run"] if row.get("runs") is not None else []
    parts += [f"{percent(row['max'])} at most"] if row.get("max") is not None else []
    return ", ".join(parts) or "hardly any run"


def _validation_warnings(results: Results) -> list[str]:
    if not results.compared:
        return []
    found, ours = [], results.validated["proposed"]
    for rival in [n for n in ("natural", "uniform") if n in results.validated]:
        against = compare(ours, results.validated[rival])
        if against.percent <= 0 and not results.worst:
            found.append(f"Trained for real, the proposal is not better than {rival}.")
        elif against.errors is not None and abs(against.errors) < 3:
            found.append(
                f"The difference to {rival} is under three standard errors: train more seeds before relying on it."
            )
    if ours.error is None:
        found.append("One seed per mixture: the differences have no error bars.")
    worse = [t for t, (d, error) in task_differences(results).items() if error is not None and d > 2 * error]
    if worse:
        of = f"{len(worse)} of {len(results.tasks)} tasks"
        found.append(f"Trained for real, worse than natural by over two standard errors, {of}: {few(worse)}.")
    over = _over_cap(results)
    if over:
        found.append(f"The trained mixture exceeds the repetition cap of {few(over)}.")
    return found


def _over_cap(results: Results) -> list[str]:
    """Domains whose realised weight is above the cap by more than realising a mixture in whole sequences can do."""
    if results.proposal is None:
        return []
    realised = results.validation["mixtures"]["proposed"].get("weights") or {}
    length = ((results.config or {}).get("proxy") or {}).get("length") or 1
    slack = 1e-6 + length / (results.validation.get("tokens") or 1e9)
    return [d for d, w in realised.items() if w > cap_of(results.proposal["caps"], d) + slack]
