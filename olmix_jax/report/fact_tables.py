"""Tables of name–value pairs: facts about the swarm, the law, the solver, the validation and optional settings."""

from olmix_jax.laws.fit_result import FitResult
from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Certificate, Counts, Guard, Tail
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.proxy.validation_result import Validation
from olmix_jax.report.elements import Row, Table
from olmix_jax.report.formatting import first_names, number, quantity
from olmix_jax.report.results import Results
from olmix_jax.report.sentences import MAX_NAMES, level

Facts = list[tuple[str, str]]
_UNITS = "in which tokens of models are counted; weights, unique tokens and R: in tokens of the corpus’ tokenizer"


def fact_tables(results: Results) -> tuple[Table, ...]:
    """Return one table per group of facts. Groups without facts are left out."""
    proposal = results.proposal
    groups = {
        "Data and swarm": swarm_facts(results),
        "Law": law_facts(results.fit) if results.fit else [],
        "Solver": solver_facts(proposal) if proposal else [],
        "Validation": validation_facts(results.validation) if results.validation else [],
        "Guard": guard_facts(proposal.guard) if proposal and proposal.guard else [],
        "Tail": tail_facts(proposal.tail) if proposal and proposal.tail else [],
        "Amounts": count_facts(proposal.counts) if proposal and proposal.counts else [],
    }
    return tuple(Table(name, (), tuple(Row(fact) for fact in facts)) for name, facts in groups.items() if facts)


def swarm_facts(results: Results) -> Facts:
    """Return the size of the swarm and how it was trained."""
    table = results.table
    facts = []
    if table is not None:
        facts += [("runs K", f"{len(table.runs)}, plus {len(table.diverged)} diverged")]
        facts += [("domains M", str(len(table.domains))), ("tasks N", str(len(table.tasks)))]
    if results.unique_tokens:
        facts.append(("unique training tokens", quantity(sum(results.unique_tokens.values()))))
    facts += [] if results.training is None else _training_facts(results.training)
    if results.config is not None and results.training is not None and results.config.proxy.vocabulary is not None:
        facts.append(("vocabulary of proxies", f"{results.config.proxy.vocabulary:,} entries, {_UNITS}"))
    if (experts := results.experts) is not None:
        cost = f"{quantity(experts.own_tokens + experts.trunk_tokens)}, of {experts.full_proxies:.2f} full proxies"
        facts.append((f"tokens of {experts.members} experts for merged members, with their trunk", cost))
    return facts if results.config is None else [*facts, ("seed", str(results.config.seed))]


def _training_facts(info: TrainInfo) -> Facts:
    facts = [
        ("proxy", info.preset and f"{info.preset}, {quantity(info.parameters)} parameters"),
        ("tokens per proxy", quantity(info.tokens_per_member)),
        ("of them in the trunk of all proxies", quantity(info.trunk_tokens) if info.trunk_tokens else ""),
        ("tokens of the swarm", _cost(info) if info.trunk_tokens else ""),
        ("mapping of members", f"{info.mapping}, {info.devices}"),
        ("throughput", f"{info.tokens_per_second:,.0f} tokens/s, all proxies"),
        ("compile time", _seconds(info.compile_s)),
        ("training time of branches" if info.trunk_tokens else "training time", _seconds(info.wall_s)),
    ]
    return [(name, value) for name, value in facts if value]


def _cost(info: TrainInfo) -> str:
    """Return the tokens of a branched swarm, also in full proxies."""
    return f"{quantity(info.own_tokens + info.trunk_tokens)}, of {info.full_proxies:.1f} of {info.members} full proxies"


def law_facts(fit: FitResult) -> Facts:
    """Return the law's family, the number of runs, and its quality."""
    facts = [("family", fit.law), ("folds", str(fit.folds)), ("fitted runs", str(len(fit.runs)))]
    scores = [
        ("Spearman, held out, mean over tasks", fit.spearman_cv_mean, ".3f"),
        ("Spearman, held out, task average", fit.spearman_of_mean_cv, ".3f"),
        ("R², held out, mean over tasks", fit.r2_cv_mean, ".3f"),
        ("RMSE, held out, mean over tasks, BPB", fit.rmse_cv_mean, ".4f"),
        (f"inside the {level(fit)} intervals, held out", fit.coverage_cv_mean, ".1%"),
        ("Spearman, quick leave-one-out, mean over tasks", fit.spearman_loo_mean, ".3f"),
        ("Spearman, quick leave-one-out, task average", fit.spearman_of_mean_loo, ".3f"),
        ("Spearman, in-sample, mean over tasks", fit.spearman_in_sample_mean, ".3f"),
        ("loss, in-sample, sum over tasks", sum(task.loss for task in fit.tasks.values()), ".4g"),
    ]
    facts += [(name, number(value, form)) for name, value, form in scores if value is not None]
    if fit.test is not None:
        test = [
            ("Spearman, test swarm, mean over tasks", fit.test.spearman_task_mean, ".3f"),
            ("Spearman, test swarm, task average", fit.test.spearman_of_mean, ".3f"),
            (f"inside the {level(fit)} intervals, test swarm", fit.test.coverage, ".1%"),
        ]
        facts += [(name, number(value, form)) for name, value, form in test]
    return [*facts, ("wall time", _seconds(fit.wall_s))]


def solver_facts(proposal: Proposal) -> Facts:
    """Return how the solver ended, the settings, and the certificate."""
    settings = [
        ("target tokens R", proposal.target_tokens),
        ("maximum epochs k", proposal.max_repeats),
        ("KL weight λ, BPB per nat", proposal.kl_weight),
        ("KL from natural, nats" if proposal.anchor is None else "KL from the anchor, nats", proposal.kl),
        ("objective, BPB + λ·KL", proposal.objective),
        ("objective at natural", proposal.objective_natural),
    ]
    facts = [("status", proposal.outcome)]
    facts += [("law", str(proposal.read_at))] if proposal.read_at is not None else []
    facts += [(name, value_text(value)) for name, value in settings if value is not None]
    return facts + _certificate_facts(proposal.certificate)


def _certificate_facts(certificate: Certificate) -> Facts:
    gap = "unknown" if certificate.gap is None else value_text(certificate.gap)
    facts = [("duality gap, BPB", f"{gap}: {certificate.no_gap}" if certificate.no_gap else gap)]
    values = [
        ("relative duality gap", certificate.relative_gap),
        ("iterations", certificate.iterations),
        ("residual of the optimality conditions", certificate.residual),
        ("starting points", certificate.starts),
        ("starting points that reach this mixture", certificate.agreeing),
        ("candidates of the search", certificate.candidates),
    ]
    return facts + [(name, value_text(value)) for name, value in values if value is not None]


def validation_facts(validation: Validation) -> Facts:
    """Return model, length and number of the validation runs."""
    number = {name: len(score.per_seed) for name, score in validation.mixtures.items()}
    fewer = "".join(f", {name}: {n}" for name, n in number.items() if n != validation.seeds)
    return [
        ("model", validation.preset),
        ("parameters", value_text(validation.parameters)),
        ("steps", value_text(validation.steps)),
        ("tokens per model", value_text(validation.tokens)),
        ("seeds per mixture", value_text(validation.seeds) + fewer),
    ]


def guard_facts(guard: Guard) -> Facts:
    """Return the guard's limit, how many tasks or families it covers, and which it holds back."""
    binding = first_names([_with_multiplier(name, guard.multipliers.get(name)) for name in guard.binding], MAX_NAMES)
    return [
        ("applies to", "each family of tasks" if guard.by == "family" else "each task"),
        ("allowed rise over natural, BPB", number(guard.slack, ".3g")),
        ("largest predicted rise, BPB", number(guard.worst, "+.4f")),
        ("number guarded", str(len(guard.names))),
        ("guards that bind", binding or "none"),
    ]


def _with_multiplier(name: str, multiplier: float | None) -> str:
    return name if multiplier is None else f"{name} (multiplier {number(multiplier, '.3g')})"


def tail_facts(tail: Tail) -> Facts:
    """Return the mean BPB over the worst samples of the law."""
    return [
        (f"worst {100 * tail.share:.3g} % of samples, proposed, BPB", number(tail.value)),
        (f"worst {100 * tail.share:.3g} % of samples, natural, BPB", number(tail.natural)),
        ("samples of the law", quantity(tail.samples)),
    ]


def count_facts(counts: Counts) -> Facts:
    """Return the size of the mixture in whole sequences or tokens."""
    amounts = (("sequences in the target run", counts.sequences), ("tokens in the target run", counts.tokens))
    facts = [(name, quantity(sum(by_domain.values()))) for name, by_domain in amounts if by_domain]
    return [*facts, ("tokens per sequence", quantity(counts.length))]


def value_text(value: float | int) -> str:
    """Return whole numbers below a million in full, other large numbers as quantities, small ones with 6 digits."""
    if isinstance(value, int) and abs(value) < 1_000_000:
        return f"{value:,}"
    return quantity(value) if abs(value) >= 1000 else number(value, ".6g")


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.1f} s"
