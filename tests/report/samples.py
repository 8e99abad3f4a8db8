"""Sample results of a first run and of an update, in memory and as files, for the tests of the report."""

import dataclasses
import html.parser
import pathlib

import numpy as np
from scipy import stats

from olmix_jax.config.schema import Config
from olmix_jax.laws.fit_result import AverageFit, CoverageCurve, CurvePoint, FitResult, LearningCurve, Sampled, TaskFit
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import (
    Certificate,
    Counts,
    Export,
    Front,
    FrontPoint,
    Group,
    Guard,
    LambdaChoice,
    Path,
    Sensitivity,
    Tail,
)
from olmix_jax.proxy.equivalent_compute import equivalent_compute
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.proxy.validation_result import MixtureScore, TaskScore, Validation
from olmix_jax.report import page
from olmix_jax.report.elements import Figure, Picture
from olmix_jax.report.results import Curves, Results
from olmix_jax.solver.status import Status
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import SwarmTable, write_swarm
from olmix_jax.utils import files

# A domain with characters that HTML, TeX and the font treat specially.
HOSTILE = '<b>&"x$y$_領'
HOSTILE_TASK = "_<i>task</i>"
DIVERGED = "run-003"
TOKENS_PER_STEP = 2048


def first_run(domains: int = 8, tasks: int = 12, runs: int = 27, steps: int = 120, seeds: int = 3) -> Results:
    """Return consistent results: a law, runs that follow it with noise, a proposal, and its validation.

    Run 3 diverges half-way. The cap of the smallest domain, :data:`HOSTILE`, binds. Intervals of the law reach
    0.025 BPB to either side.
    """
    rng = np.random.default_rng(0)
    names = [HOSTILE, *(f"source:topic_{j}:high" for j in range(1, domains))]
    task_names = [HOSTILE_TASK, *(f"minerva_math_number_{i}::olmes" for i in range(1, tasks))]
    tokens_M = np.geomspace(2e5, 2e7, domains).round()
    natural_M = tokens_M / tokens_M.sum()
    ratios_KM = rng.dirichlet(natural_M * domains, runs)
    slope_NM, floor_N = rng.normal(-0.4, 0.35, (tasks, domains)), rng.uniform(0.4, 1.2, tasks)
    true_KN = floor_N[None, :] + np.exp(ratios_KM @ slope_NM.T)
    bpb_KN, predicted_KN = (true_KN + rng.normal(0, 0.01, true_KN.shape) for _ in range(2))
    ids = [f"run-{k:03d}" for k in range(runs)]
    kept = [k for k in range(runs) if ids[k] != DIVERGED]
    finished = tuple(ids[k] for k in kept)
    columns = {"natural_M": natural_M, "tokens_M": tokens_M, "names": finished, "diverged": (DIVERGED,)}
    swarm = SwarmTable(finished, tuple(names), tuple(task_names), ratios_KM[kept], bpb_KN[kept], **columns)
    natural = dict(zip(names, natural_M.tolist()))
    fit = fit_result(natural, task_names, slope_NM, floor_N, bpb_KN[kept], predicted_KN[kept], finished)
    proposal = proposal_of(fit, natural, tokens_M)
    models = tuple(f"{m}/{s}" for m in ("natural", "uniform", "proposed") for s in range(seeds))
    base = Config()
    return Results(
        workdir=pathlib.Path("nowhere"),
        config=dataclasses.replace(base, proxy=dataclasses.replace(base.proxy, length=128)),
        domains=DomainSet(tuple(names), tuple(int(t) for t in tokens_M), tuple(int(4 * t) for t in tokens_M)),
        table=swarm,
        curves=curves(ids, steps, rng, diverged={3: steps // 2}),
        training=TrainInfo(
            "shard", "2 × cpu", len(ids), 412_345, steps * TOKENS_PER_STEP, 51234.5, 9.5, 123.4, preset="1M"
        ),
        fit=fit,
        proposal=proposal,
        validation=validation_of(fit, proposal, seeds, rng),
        validation_curves=curves(models, steps, rng),
    )


def small_run(seeds: int = 3) -> Results:
    """Return :func:`first_run` with three domains, two tasks and nine runs."""
    return first_run(domains=3, tasks=2, runs=9, steps=3, seeds=seeds)


def fit_result(natural, tasks, slope_NM, floor_N, bpb_KN, predicted_KN, runs) -> FitResult:
    """Return the fit of a log-linear law."""
    error_KN, names, task_fits = np.abs(bpb_KN - predicted_KN), list(natural), {}
    for i, task in enumerate(tasks):
        spearman = float(stats.spearmanr(bpb_KN[:, i], predicted_KN[:, i])[0])
        rmse = float(np.sqrt(np.mean(error_KN[:, i] ** 2)))
        task_fits[task] = TaskFit(
            **{"loss": 0.01, "spearman_cv": spearman, "r2_cv": 0.9, "rmse_cv": rmse, "stretch": 1.6},
            coverage_cv=float((error_KN[:, i] <= 0.025).mean()),
            **{"spearman_in_sample": 0.991, "rmse_in_sample": rmse / 2, "spearman_loo": spearman, "rmse_loo": rmse},
            parameters={"constant": float(floor_N[i]), "coefficients": dict(zip(names, slope_NM[i].tolist()))},
            effects={d: float(slope_NM[i, j] / 10) for j, d in enumerate(names)},
        )
    keys = ("spearman_cv", "r2_cv", "rmse_cv", "coverage_cv", "spearman_in_sample", "spearman_loo")
    means = {f"{key}_mean": float(np.mean([getattr(row, key) for row in task_fits.values()])) for key in keys}
    measured_K, predicted_K = bpb_KN.mean(axis=1), predicted_KN.mean(axis=1)
    ends = [tuple((predicted_K + step).tolist()) for step in (-0.01, 0.01)]
    return FitResult(
        **{"law": "log_linear", "tasks": task_fits, "folds": 5, "runs": tuple(runs), "level": 0.9, "unseen": ()},
        **{"effect": "change in BPB when a tenth of the natural mixture is replaced by the domain", "base": natural},
        **means,
        spearman_of_mean_cv=float(stats.spearmanr(measured_K, predicted_K)[0]),
        measured=by_task(tasks, bpb_KN),
        predicted_cv=by_task(tasks, predicted_KN),
        low_cv=by_task(tasks, predicted_KN - 0.025),
        high_cv=by_task(tasks, predicted_KN + 0.025),
        average=AverageFit(tuple(measured_K.tolist()), tuple(predicted_K.tolist()), *ends, 0.88),
        coverage_curve=CoverageCurve((0.5, 0.8, 0.9), (0.52, 0.79, 0.91)),
        learning_curve=LearningCurve(
            *((10, 15, 20), (0.8, 0.85, 0.873), (0.03, 0.02, 0.01), (0.9, 0.92, 0.95), (0.03, 0.02, 0.0151), 4),
            now=CurvePoint(len(runs), 0.876, 0.0147),
            next=CurvePoint(len(runs) + 10, 0.879, 0.0142),
        ),
        barely_sampled={names[-1]: Sampled(2, 0.0123)},
        digest="digest of the fit",
        wall_s=1.5,
    )


def by_task(tasks, bpb_KN) -> dict[str, tuple[float, ...]]:
    """Return columns of an array as tuples by task."""
    return {task: tuple(column) for task, column in zip(tasks, bpb_KN.T.tolist())}


def law_bpb(fit: FitResult, weights: dict[str, float]) -> dict[str, float]:
    """Return BPB of a mixture by task, by the formula of the log-linear law."""
    bpb = {}
    for task, row in fit.tasks.items():
        log = sum(row.parameters["coefficients"][d] * w for d, w in weights.items())
        bpb[task] = row.parameters["constant"] + float(np.exp(log))
    return bpb


def proposal_of(fit: FitResult, natural: dict[str, float], tokens_M) -> Proposal:
    """Return a proposal in which the smallest domain is at its cap of four epochs."""
    target, names = float(tokens_M.sum() * 2), list(natural)
    caps = dict(zip(names, (4 * tokens_M / target).tolist()))
    slope_M = np.mean([list(row.effects.values()) for row in fit.tasks.values()], axis=0) * 10
    tilt_M = np.exp(-np.clip(4 * (slope_M - slope_M.mean()), -0.3, 0.3))
    rest = sum(natural[n] * t for n, t in zip(names[1:], tilt_M[1:]))
    weights = {n: float(natural[n] * t / rest * (1 - caps[names[0]])) for n, t in zip(names, tilt_M)}
    weights[names[0]] = caps[names[0]]
    return Proposal(
        **{"status": Status.OPTIMAL, "weights": weights, "natural": natural, "caps": caps},
        **{"lower": dict.fromkeys(names, 0.0), "capped_by": dict.fromkeys(names, "repetition")},
        **{"predicted": law_bpb(fit, weights), "predicted_natural": law_bpb(fit, natural)},
        **{"objective": 1.2345, "objective_natural": 1.25, "kl": 0.05},
        shadow_prices=dict.fromkeys(names, 0.0) | {names[0]: 12.3},
        repeats={n: w * target / t for (n, w), t in zip(weights.items(), tokens_M.tolist())},
        certificate=Certificate(gap=1e-9, relative_gap=1e-9, iterations=120, residual=1e-10),
        **{"target_tokens": target, "max_repeats": 4.0, "kl_weight": 0.05},
        task_weights=dict.fromkeys(fit.tasks, 1 / len(fit.tasks)),
        **{"worse_tasks": (HOSTILE_TASK,), "warnings": ("small <script>warning</script>",), "fit": fit.digest},
    )


def explored(proposal: Proposal) -> Proposal:
    """Return the proposal with every optional field set."""
    names, tasks = list(proposal.weights), list(proposal.predicted)
    weights, natural = list(proposal.weights.values()), list(proposal.natural.values())
    mixed = [tuple(a * (1 - s) + b * s for a, b in zip(weights, natural)) for s in (0.0, 0.5, 1.0)]
    families = {"a_<i>family</i>": 1.0, "b": 1.1, "c": 1.2}
    points = [FrontPoint(families, {f: v + 0.01 * i for f, v in families.items()}, proposal.weights) for i in (1, 2)]
    half = {d: w / 2 for d, w in proposal.weights.items()}
    move = {d: 0.1 if d == names[0] else -0.1 / (len(names) - 1) for d in names}
    return dataclasses.replace(
        proposal,
        **{"weights_low": half, "weights_high": {d: 3 * w for d, w in half.items()}, "anchor": proposal.natural},
        **{"lower": {d: 0.01 if d == names[1] else 0.0 for d in names}},
        repeat_prices=dict.fromkeys(names, 0.0) | {names[0]: 0.0345},
        predicted_low={t: v - 0.01 for t, v in proposal.predicted.items()},
        predicted_high={t: v + 0.01 for t, v in proposal.predicted.items()},
        groups=(Group("<b>g</b>:*", tuple(names[:2]), 0.0, 0.2, 0.2, 0.3),),
        guard=Guard("task", 0.015, tuple(tasks), {tasks[0]: 0.4}, (tasks[0],), 0.015),
        tail=Tail(0.1, 1.3, 1.4, 100),
        path=Path(
            **{"kl_weight": (0.0, 0.05, 0.5), "max_repeats": (2.0, 4.0), "kl": ((0.1, 0.1),) * 3},
            weights=tuple((None if i == 0 else m, m) for i, m in enumerate(mixed)),
            **{"predicted": ((None, 1.1), (1.2, 1.15), (1.3, 1.25)), "predicted_natural": 1.3},
            chosen={"kl_weight": 0.05, "max_repeats": 4.0},
        ),
        choice=LambdaChoice((0.01, 0.05), (0.1, 0.08), (0.02, None), 0.01, 4, False),
        pareto=Front(tuple(families), tuple(points), {f: v + 1 for f, v in families.items()}, families),
        sensitivity=Sensitivity(kl_weight=move, caps={names[0]: move}, task_weights=dict.fromkeys(tasks, move)),
        counts=Counts(128, sequences=dict.fromkeys(names, 3)),
        handover={"megatron": Export("propose/handover/<megatron>.json", half, 0.00012)},
    )


def validation_of(fit: FitResult, proposal: Proposal, seeds: int, rng) -> Validation:
    """Return mean BPB 1.00 ± 0.01 for natural, 1.10 for uniform and 0.90 for the proposal, with tasks around them."""
    mixtures = {}
    for name, mean in (("natural", 1.0), ("uniform", 1.1), ("proposed", 0.9)):
        per_seed = tuple((mean + 0.01 * np.linspace(-1, 1, seeds)).tolist()) if seeds > 1 else (mean,)
        tasks = {t: TaskScore(mean + float(rng.normal(0, 0.05)), 0.02, per_seed) for t in fit.tasks}
        weights = proposal.weights if name == "proposed" else proposal.natural
        mixtures[name] = MixtureScore(weights, mean, 0.01, per_seed, tasks)
    return Validation(mixtures, proposal.weights, seeds, 1200, 1200 * TOKENS_PER_STEP, 412_345, "1M")


def scored(results: Results, goal: float = 1.0) -> Results:
    """Return the results with scores along the run. All mixtures fall by 0.1 BPB per doubling of the tokens.

    So the proposal, at 0.9 after all tokens, has natural's 1.0 after half of them. ``goal`` replaces natural's 1.0.
    """
    validation = results.validation
    tokens_P = tuple(validation.tokens * p // 8 for p in range(1, 9))
    falling_P = -0.1 * np.log2(np.array(tokens_P) / validation.tokens)
    mixtures = {
        name: dataclasses.replace(score, curves=tuple(map(tuple, np.add.outer(score.per_seed, falling_P).tolist())))
        for name, score in validation.mixtures.items()
    }
    proposed = np.array(mixtures["proposed"].curves)
    compute = equivalent_compute(tokens_P, np.array(mixtures["natural"].per_seed) + goal - 1.0, proposed)
    along = dataclasses.replace(validation, mixtures=mixtures, scored_tokens=tokens_P, equivalent_compute=compute)
    return dataclasses.replace(results, validation=along)


def curves(runs, steps: int, rng, diverged=None) -> Curves:
    """Return falling losses; ``diverged`` gives the step at which a run becomes NaN, by its index."""
    steps_T = np.arange(1, steps + 1)
    loss_KT = 3 + 4 / np.sqrt(steps_T)[None, :] + rng.normal(0, 0.05, (len(runs), steps))
    for run, step in (diverged or {}).items():
        loss_KT[run, step:] = np.nan
    return Curves(tuple(runs), steps_T, loss_KT.astype(np.float32), TOKENS_PER_STEP)


def write(results: Results, folder: pathlib.Path) -> pathlib.Path:
    """Write the results as the stages write them; return the folder."""
    if results.config is not None:
        files.write_json(folder / "config.json", dataclasses.asdict(results.config))
    if results.domains is not None:
        results.domains.write(folder / "domains.json")
    if results.table is not None:
        t = results.table
        diverged = dict.fromkeys(t.diverged, 1)
        ids, bpb_KN, ratios_KM = [*t.runs], np.asarray(t.bpb_KN), np.asarray(t.ratios_KM)
        # A diverged run is in the tables, and meta.json excludes it.
        ids += t.diverged
        ratios_KM = np.vstack([ratios_KM, *[t.natural_M] * len(diverged)])
        bpb_KN = np.vstack([bpb_KN, *[np.ones(len(t.tasks))] * len(diverged)])
        sizes = (t.natural_M, t.tokens_M, diverged)
        write_swarm(folder / "swarm", ids, ids, t.domains, t.tasks, ratios_KM, bpb_KN, *sizes)
    if results.training is not None:
        results.training.write(folder / "train/info.json")
    for curve, name in ((results.curves, "swarm"), (results.validation_curves, "validate")):
        if curve is not None:
            (folder / name).mkdir(parents=True, exist_ok=True)
            np.savez(folder / name / "curves.npz", **(vars(curve) | {"runs": np.array(curve.runs)}))
    for record, name in (
        (results.fit, "fit/fit.json"),
        (results.proposal, "propose/proposal.json"),
        (results.validation, "validate/validation.json"),
        (results.update, "update/plan.json"),
    ):
        if record is not None:
            record.write(folder / name)
    return folder


def with_proposal(results: Results, **changes) -> Results:
    """Return the results with changed fields of the proposal."""
    return dataclasses.replace(results, proposal=dataclasses.replace(results.proposal, **changes))


def with_fit(results: Results, **changes) -> Results:
    """Return the results with changed fields of the fit."""
    return dataclasses.replace(results, fit=dataclasses.replace(results.fit, **changes))


def no_figure(draw, name: str, alt: str, caption: str, scroll: bool = False) -> Figure:
    """Return a figure without drawing it, for tests that look at the text alone."""
    blank = Picture("data:image/png;base64,", 1, 1)
    return Figure(name, blank, blank, alt, caption, scroll)


class Page(html.parser.HTMLParser):
    """A parsed page: its tags and its text. Fails if tags are not closed in order."""

    def __init__(self, content: str):
        super().__init__()
        self.open_tags: list[str] = []
        self.tags: list[tuple[str, dict]] = []
        self.texts: list[str] = []
        self.feed(content)
        assert not self.open_tags

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source"):
            self.open_tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open_tags.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    @property
    def text(self) -> str:
        """The text with single spaces."""
        return " ".join(" ".join(self.texts).split())

    @property
    def figures(self) -> list[str]:
        """The names of the figures, in order."""
        return [attributes["id"] for tag, attributes in self.tags if tag == "figure"]


def page_without_figures(results: Results) -> Page:
    """Return the page of the results; its figures are blank."""
    return Page(page.html(results, no_figure))
