"""What an update did, as rows for figures and tables: domains, candidates and the history of workdirs."""

import dataclasses
from collections.abc import Sequence

from olmix_jax.report import estimates
from olmix_jax.report.formatting import first_names
from olmix_jax.report.results import Results
from olmix_jax.update import changes
from olmix_jax.update.changes import Kind
from olmix_jax.update.update_plan import UpdatePlan

# Kinds of domains, in the order of figures and tables.
KEPT, RECOMPUTED, AFFECTED, REMOVED = "kept", "recomputed", "affected", "removed"
KINDS = (KEPT, RECOMPUTED, AFFECTED, REMOVED)


@dataclasses.dataclass(frozen=True)
class DomainRow:
    """A domain before and after an update.

    Attributes:
      name: its name in the new set; for a removed domain, in the old set.
      kind: one of :data:`KINDS`: in the kept block; recomputed although unaffected; affected by the update; removed.
      status: what happened to it, for the table.
      share: its share of the kept block (p̃); None outside the block.
      old, natural, new: its weights; None where it has none.
    """

    name: str
    kind: str
    status: str
    share: float | None
    old: float | None
    natural: float | None
    new: float | None


@dataclasses.dataclass(frozen=True)
class CandidateRow:
    """A choice of which domains to recompute.

    Attributes:
      name: the recomputed domains, for people.
      runs: runs that it takes.
      mean, low, high: predicted loss against the optimum and its 5–95 % interval [BPB].
      chosen: whether the update uses it.
      if_form_known: mean predicted loss by a fit that knows the form of the law [BPB]; None if not told apart.
    """

    name: str
    runs: int
    mean: float
    low: float
    high: float
    chosen: bool
    if_form_known: float | None = None


@dataclasses.dataclass(frozen=True)
class StepRow:
    """A workdir of the history.

    Attributes:
      text: the update that led to it.
      domains: number of domains.
      strategy: the update's strategy.
      runs, runs_full: runs that it took, and that full recomputation would have taken.
      gain: how far mean BPB lies below that of natural [%], with the task weights that were minimised; None without a
        proposal, or if natural's is not positive.
      plain_gain: the same with equal task weights; None if unknown.
      validated: whether ``gain`` was measured; otherwise it is predicted.
      weights: the proposed mixture; empty without a proposal.
    """

    text: str
    domains: int
    strategy: str
    runs: int
    runs_full: int
    gain: float | None
    validated: bool
    weights: dict[str, float]
    plain_gain: float | None = None


def update_text(steps: Sequence[changes.Update], most: int = 3) -> str:
    """Return an update as in "rename code to source; add new", naming at most ``most`` domains per step."""
    parts = []
    for step in steps:
        into = {Kind.PARTITION: " into ", Kind.RENAME: " to "}.get(step.kind, "")
        parts.append(f"{step.kind} {first_names(step.domains, most)}{into}{first_names(step.parts, most)}")
    return "; ".join(parts) or "first swarm"


def domain_changes(plan: UpdatePlan) -> dict[str, str]:
    """Return what changed about each new domain, as in "part of wiki"; empty for an unchanged domain."""
    texts = {name: "" for name in plan.old}
    for step in plan.steps:
        before = [texts.pop(name) for name in step.domains if name in texts and step.kind != Kind.REVISE]
        if step.kind in (Kind.ADD, Kind.REVISE):
            texts |= dict.fromkeys(step.domains, "added" if step.kind == Kind.ADD else "revised")
        origin = "part of" if step.kind == Kind.PARTITION else "renamed from"
        for part in step.parts:
            texts[part] = ", ".join(filter(None, [*before, f"{origin} {step.domains[0]}"]))
    return {name: texts[name] for name in plan.new}


def domain_rows(results: Results, plan: UpdatePlan) -> list[DomainRow]:
    """Return the kept block first, then recomputed, affected and removed domains, each by natural share."""
    natural, change = results.natural or {}, plan.change
    before = plan.history[-1].weights
    after = results.proposal.weights if results.proposal is not None else {}
    shares = {d: share / sum(block.values()) for block in plan.kept.values() for d, share in block.items()}
    rows = []
    for name, text in domain_changes(plan).items():
        unaffected = name in change.origin
        kind = KEPT if name in shares else RECOMPUTED if unaffected else AFFECTED
        status = {RECOMPUTED: "recomputed, though unaffected", AFFECTED: ""}.get(kind, "kept")
        if kind == KEPT and not unaffected:
            status = "fixed share"
        status = ", ".join(filter(None, [status, text]))
        old = _old_weight(name, change, before, natural)
        rows.append(DomainRow(name, kind, status, shares.get(name), old, natural.get(name), after.get(name)))
    rows.sort(key=lambda row: (KINDS.index(row.kind), -(row.natural or 0.0)))
    removed = [name for name in change.lost if name not in plan.new]
    return rows + [DomainRow(name, REMOVED, "removed", None, before[name], None, None) for name in removed]


def largest_rows(rows: Sequence[DomainRow], most: int) -> list[DomainRow]:
    """Return the ``most`` rows with the largest old, natural or new weights, in their order."""
    ranked = sorted(rows, key=lambda row: -max(row.old or 0.0, row.natural or 0.0, row.new or 0.0))[:most]
    names = {row.name for row in ranked}
    return [row for row in rows if row.name in names]


def _old_weight(name: str, change: changes.Change, before: dict, natural: dict) -> float | None:
    """Return the old weight of a new domain's content. A part gets its natural share of the whole domain's weight."""
    if name in change.origin:
        return before[change.origin[name]]
    if name not in change.parts:
        return before.get(name)
    whole = change.parts[name]
    total = sum(natural.get(part, 0.0) for part, parent in change.parts.items() if parent == whole)
    return before[whole] * natural.get(name, 0.0) / total if total > 0 else None


def candidate_rows(plan: UpdatePlan) -> list[CandidateRow]:
    """Return the candidates of a plan in the order of their evaluation, including the chosen one."""
    rows = [(c.recomputed, c.proxies, c.loss, c.loss_if_form_known) for c in plan.candidates]
    chosen = [i for i, row in enumerate(rows) if set(row[0]) == set(plan.recomputed)][:1]
    if not chosen:
        chosen = [len(rows)]
        rows.append((plan.recomputed, plan.proxies, plan.predicted_loss, plan.predicted_loss_if_form_known))
    return [
        CandidateRow(_candidate_name(plan, recomputed), runs, loss.mean, loss.low, loss.high, i in chosen, known)
        for i, (recomputed, runs, loss, known) in enumerate(rows)
    ]


def _candidate_name(plan: UpdatePlan, recomputed: Sequence[str]) -> str:
    if set(recomputed) >= set(plan.new):
        return "all domains"
    if not recomputed:
        return "none"
    more = [name for name in recomputed if name not in plan.affected]
    return f"affected and {first_names(more, 4)}" if more else "affected only"


def history_rows(results: Results, plan: UpdatePlan) -> list[StepRow]:
    """Return the workdirs of the history, oldest first. The last one is this workdir."""
    rows = []
    for past in plan.history:
        gain, plain = _gain(past.proposed, past.natural), _gain(past.plain_proposed, past.plain_natural)
        text, runs = update_text(past.steps), (past.proxies, past.proxies_full)
        rows.append(StepRow(text, len(past.weights), past.strategy, *runs, gain, past.validated, past.weights, plain))
    return [*rows, _this_step(results, plan)]


def _gain(proposed: float | None, natural: float | None) -> float | None:
    if proposed is None or natural is None:
        return None
    return estimates.compare(estimates.estimate([proposed]), estimates.estimate([natural])).percent


def _this_step(results: Results, plan: UpdatePlan) -> StepRow:
    gain, plain, validated = None, None, results.compared is not None
    if results.compared is not None:
        bpb, equal = estimates.validated(results.compared), estimates.plain_validated(results.compared)
        gain = estimates.compare(bpb["proposed"], bpb["natural"]).percent
        plain = estimates.compare(equal["proposed"], equal["natural"]).percent if equal else gain
    elif results.proposal is not None:
        predicted = estimates.predicted(results.proposal)
        gain = estimates.compare(*predicted).percent
        plain = estimates.compare(*(estimates.plain_predicted(results.proposal) or predicted)).percent
    weights = {} if results.proposal is None else results.proposal.weights
    text, runs = update_text(plan.steps), (plan.proxies, plan.proxies_full)
    return StepRow(text, len(plan.new), plan.strategy.value, *runs, gain, validated, weights, plain)


def named_domains(steps: Sequence[StepRow], most: int) -> list[str]:
    """Return the ``most`` domains with the largest weights at any step, in order of first appearance."""
    largest: dict[str, float] = {}
    for step in steps:
        for name, weight in step.weights.items():
            largest[name] = max(weight, largest.get(name, 0.0))
    named = sorted(largest, key=lambda name: -largest[name])[:most]
    return [name for name in largest if name in named]
