"""The settings that decide: fit, propose, rounds and update. The others are in olmix_jax/config/schema.py."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Fit:
    """How a law is fitted to the table of scores."""

    # The family, a module of olmix_jax/laws: floored_gp, two_fidelity, warped_gp, exposure, log_linear, bimix,
    # autoscale, gp, search or lightgbm. If the swarm has cheap runs, "two_fidelity" takes the place of the default
    # (docs/external-swarm.md); without them, or where real runs do not confirm them, it is "floored_gp". "warped_gp"
    # predicts held-out runs best at every swarm size (benchmarks/laws.md); "floored_gp" adds a
    # floor, predicts them as well (docs/log.md), and promises less at its own optimum; "exposure" learns the floor and
    # has a curve per domain (experiments/laws_at_their_optimum compares them); "log_linear" is the published objective,
    # exactly (METHOD §2).
    law: str = "floored_gp"
    # Starting points per task, for families that use several.
    starts: int = 16
    # Folds of the cross-validation behind the reported quality; K folds are leave-one-out.
    folds: int = 5
    # Metric columns to drop, in addition to those in meta.json, and metric columns to keep (empty: all). Names are
    # those in the file; an unknown name is an error.
    drop_metrics: tuple[str, ...] = ()
    keep_metrics: tuple[str, ...] = ()
    # What to do about a missing score (empty, NaN, NA, null): "error", or drop its run ("drop_run") or its task
    # ("drop_task").
    missing: str = "error"
    # Share of the runs (up to 1) or number of runs (above 1) to fit, drawn at random by `seed`; as in the release.
    train_split: float = 1.0
    # Average the 57 subjects of MMLU into its four groups, weighted by test questions (METHOD §4). No effect on a table
    # without subjects.
    mmlu_groups: bool = True
    # What a law is fitted to: each "task", the mean of each "family", or the mean of all tasks ("aggregated"). Paper
    # RQ5: per task is best.
    granularity: str = "task"
    # Families as a JSON object {family: [task names or patterns such as qa_*]}, or a file with one. Empty: math, code
    # and qa of the paper's tasks (METHOD §4).
    families: str = ""
    # Samples of the law's parameters for error bars: posterior draws or bootstrap refits. 100 samples give a standard
    # deviation to 7 %. 0: no error bars.
    resamples: int = 100


@dataclasses.dataclass(frozen=True)
class Propose:
    """How a mixture is proposed by the law (METHOD §2, step 4)."""

    # λ, the weight of KL(p ‖ natural) [BPB per nat]. Paper RQ7.
    kl_weight: float = 0.05
    # Choose λ from the runs instead: laws fitted to one half of the runs propose mixtures, and laws fitted to the other
    # half predict their BPB.
    choose_kl_weight: bool = False
    # k: maximum epochs over a domain in the target run. Paper RQ6.
    max_repeats: float = 4.0
    # R: tokens of the target run. None: those of one validation model; for an external swarm, no repetition caps.
    target_tokens: float | None = None
    # Weights {task: weight} as JSON or a file; normalised, and 0 for tasks that are not named. Empty: equal weights.
    task_weights: str = ""
    # Bounds {domain: [lower, upper]} as JSON or a file; null for no limit, or {domain: weight} to fix a weight. A
    # pattern such as "stack-edu:*" bounds the sum of all domains that match.
    bounds: str = ""
    # The mixture that KL pulls towards: {domain: weight} as JSON or a file, or a proposal.json. Empty: natural.
    anchor: str = ""
    # Blocks of domains with fixed ratios to each other: {block: {domain: ratio}} as JSON or a file. Empty: none.
    keep_ratios: str = ""
    # How much worse than under the natural mixture any task ("task") or any family's mean ("family") may be predicted
    # [BPB]. None: no limit.
    guard: float | None = None
    guard_by: str = "task"
    # Minimise the mean over the worst samples of the law. `tail` is the share of samples that count as worst, from 1
    # (expected value) to 0 (worst case). None: minimise the prediction of the law itself.
    tail: float | None = None
    # Limits each weight to `trust` times its largest weight in any run, and to 1/`trust` of its smallest: 1 stays
    # where scores test the law. None: no limit, but the page says what share of the gain is extrapolated.
    trust: float | None = None
    # Propose the worst mixture within the bounds instead, as a counterfactual.
    worst: bool = False
    # "exact", or a published baseline: the best run ("search") or the best of many sampled mixtures ("simulation").
    method: str = "exact"
    # Also compute the paths over λ and k, the trade-off between families, and the choice of λ, for the report.
    explore: bool = True
    # Where trainers find the data of a domain, in the files of propose/handover.
    data_path: str = "data/{domain}"
    # Number of runs to train next, written to propose/next.csv: the proposal, natural and two points between them,
    # unless they are in the swarm, and the most informative mixtures; 0: none. Stage `rounds` trains them. Where the
    # cost of cheap runs is known (swarm.tokens), some of the runs may be cheap, and all cost as much as this many.
    next_runs: int = 8


@dataclasses.dataclass(frozen=True)
class Rounds:
    """Rounds after the first proposal, --stages=rounds: train its next runs, fit again, propose again."""

    # Maximum number of rounds, those that are finished included. Rounds also end when the measured gain of a proposal
    # is compatible with the gain that was promised.
    number: int = 3
    # Scores of runs of propose/next.csv that were trained elsewhere, for an external swarm; a file like swarm.metrics.
    metrics: str = ""


@dataclasses.dataclass(frozen=True)
class Update:
    """A changed domain set: what to keep of an earlier mixture (METHOD §3)."""

    # The finished workdir to update. Empty: a first run.
    parent: str = ""
    # A YAML or JSON file that lists the changes. Empty: detect them from names and content of the domains.
    file: str = ""
    # Which unaffected domains to recompute besides the affected ones: "auto" (those for which it pays, see
    # olmix_jax/update/recompute.py), "full" (all), "full_reuse" (none), "partial_reuse" (those in `recompute`), or
    # "swarm_reuse" (all, with earlier runs in place of new ones).
    strategy: str = "auto"
    recompute: tuple[str, ...] = ()
    # Fit the law to earlier runs as well, weighted by how well they predict the new ones. Only runs whose mixtures the
    # new domain set can express are used.
    old_runs: bool = True
    # Maximum runs for "auto", as a share of the runs of a full recomputation (paper: 26 %). The affected domains
    # alone may need more.
    budget: float = 0.3
    # Number of new runs. None: the power of two nearest to 3(weights + 1), as in the paper.
    proxies: int | None = None
