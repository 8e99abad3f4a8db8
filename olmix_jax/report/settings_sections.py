"""Sections about the proposal's dependence on its settings: λ, the repetition limit, caps and task weights."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from olmix_jax.propose.proposal import Proposal
from olmix_jax.propose.proposal_parts import Front, LambdaChoice
from olmix_jax.report import settings_plots
from olmix_jax.report.elements import MakeFigure, Row, Section, Table
from olmix_jax.report.formatting import capitalised, number
from olmix_jax.report.results import Results
from olmix_jax.report.style import MAX_DOMAINS
from olmix_jax.swarm import task_means

# Rows of the sensitivity table that are always shown. Further rows go to a collapsed table.
OPEN_ROWS = 8
# Domains named per direction in a row of the sensitivity table.
MAX_MOVES = 3


def sections(results: Results, make_figure: MakeFigure) -> Iterator[Section]:
    """Yield the sections for which the proposal has data."""
    proposal = results.proposal
    if proposal is None:
        return
    if settings_plots.setting_paths(proposal):
        yield _paths(proposal, make_figure)
    if proposal.sensitivity is not None:
        yield Section("Sensitivity to settings", tables=sensitivity_tables(proposal))
    if proposal.choice is not None:
        yield _choice(proposal.choice, proposal.kl_weight, make_figure)
    if proposal.pareto is not None and proposal.pareto.points and len(proposal.pareto.families) > 1:
        yield _front(proposal, proposal.pareto, make_figure)


def _ignored_settings(proposal: Proposal) -> str:
    """Return the sentence of a caption that names settings which these extra optima ignore."""
    if not proposal.explored_without:
        return ""
    names = " and ".join(f"propose.{name}" for name in proposal.explored_without)
    return f" These optima ignore {names}, which the proposal respects."


def _paths(proposal: Proposal, make_figure: MakeFigure) -> Section:
    parts = []
    for path in settings_plots.setting_paths(proposal):
        solved = np.flatnonzero(np.isfinite(path.bpb_P))
        first, last = solved[0], solved[-1]
        text = f"{number(path.bpb_P[first])} BPB at {path.symbol} = {path.values_P[first]:.3g}, "
        text += f"{number(path.bpb_P[last])} BPB at {path.symbol} = {path.values_P[last]:.3g}"
        parts.append(text + ("" if path.used is None else f" (proposal: {path.symbol} = {path.used:.3g})"))
    settings = {
        "kl_weight": "for other λ (the weight of KL) at the proposal’s k",
        "max_repeats": "for other k (the maximum epochs over a domain) at the proposal’s λ",
    }
    shown = ", and ".join(settings[path.setting] for path in settings_plots.setting_paths(proposal))
    mean = task_means.word(proposal.task_weights)
    total = len(proposal.weights)
    grey = "the others"
    if total > MAX_DOMAINS:
        grey = f"others of the {MAX_DOMAINS} largest; {total - MAX_DOMAINS} are not drawn"
    caption = (
        f"The optimal mixture {shown}. Coloured: the domains with the largest weights; grey: {grey}. Gaps: no "
        f"mixture meets the constraints, or the solver did not converge. {capitalised(mean)} predicted BPB: "
        f"{'; '.join(parts)}." + _ignored_settings(proposal)
    )
    alt = f"Lines: weights of domains and {mean} predicted BPB along λ and k. {'; '.join(parts)}."
    figure = make_figure(partial(settings_plots.paths, proposal), "paths", alt, caption)
    return Section("Mixture for other λ and other repetition limits", (figure,))


def _choice(choice: LambdaChoice, used: float, make_figure: MakeFigure) -> Section:
    text = f"Held-out data select λ = {choice.best:.3g}"
    if choice.used or choice.best == used:
        text += ", and the proposal uses it"
    else:
        text += f"; the proposal uses λ = {used:.3g}, as configured"
    caption = (
        f"{text}. The runs are split in halves at random. A law fitted on one half gives a mixture, and a law fitted "
        "on the other half predicts its gain over natural in BPB: higher is better. Points: mean over "
        f"{choice.splits} splits; whiskers: one standard error."
    )
    if choice.held_out_gain is not None:
        shown = choice.gain[choice.kl_weight.index(choice.best)]
        unseen = f"{number(choice.held_out_gain)} ± {number(choice.held_out_gain_error)} BPB"
        caption += (
            f" The selected λ has a gain of {number(shown)} BPB by the splits that selected it. A split’s gain at the "
            f"λ that the other splits select is {unseen}."
        )
    alt = f"Line: gain over natural against λ. {text}."
    figure = make_figure(partial(settings_plots.choice, choice, used), "choice", alt, caption)
    return Section("Selecting λ from the data", (figure,))


def _front(proposal: Proposal, pareto: Front, make_figure: MakeFigure) -> Section:
    total, shown = len(pareto.families), settings_plots.shown_families(pareto)
    omitted = f" Of {total} families, only the {len(shown)} that vary most are shown." if len(shown) < total else ""
    caption = (
        "Mean predicted BPB of one family of tasks against another; lower and further left is better. Each green dot "
        f"is the optimum for other weights of the families.{omitted}{_ignored_settings(proposal)}"
    )
    parts = [f"{f} {number(pareto.natural[f])} to {number(pareto.proposed[f])}" for f in shown]
    alt = f"Scatter plots of {len(pareto.points)} mixtures. Natural to proposed: {', '.join(parts)}."
    figure = make_figure(partial(settings_plots.front, pareto), "front", alt, caption)
    return Section("Trade-offs between families of tasks", (figure,))


def sensitivity_tables(proposal: Proposal) -> tuple[Table, ...]:
    """Return how the mixture moves when λ, a cap or a task weight changes a little, largest total movement first.

    The first :data:`OPEN_ROWS` settings are in one table, the others in a collapsed one.

    The changes are one tenth of λ, one percentage point of a cap, and one percentage point of a task's weight. Moves
    are the exact derivative times the change.
    """
    moves = _moves(proposal)
    order = sorted(moves, key=lambda name: -sum(abs(move) for move in moves[name].values()))
    rows = []
    for name in order:
        ranked = sorted(moves[name].items(), key=lambda item: item[1])
        up = [(d, move) for d, move in reversed(ranked) if round(100 * move, 3) > 0]
        down = [(d, move) for d, move in ranked if round(100 * move, 3) < 0]
        rows.append(Row((name, _moves_text(up), _moves_text(down))))
    caption = (
        "How the proposed mixture moves when one setting changes and the others stay the same, largest effect first. "
        "A point is a percentage point of a cap, of a task’s weight or of a domain’s weight. Moves are to first order. "
        f"At most {MAX_MOVES} domains per direction are named."
    )
    head = ("change", "weights that rise, points", "weights that fall, points")
    largest = Table(caption, head, tuple(rows[:OPEN_ROWS]), text=True)
    if len(rows) <= OPEN_ROWS:
        return (largest,)
    rest = tuple(rows[OPEN_ROWS:])
    return largest, Table("Settings with smaller effects.", head, rest, collapsed=True, text=True, name="sensitivity")


def _moves(proposal: Proposal) -> dict[str, dict[str, float]]:
    """Return the change of each weight for each small change of a setting."""
    derivatives = proposal.sensitivity
    if derivatives is None:
        return {}
    step = proposal.kl_weight / 10 or 0.01
    name = f"λ from {proposal.kl_weight:.3g} to {proposal.kl_weight + step:.3g}"
    moves = {name: _scaled(derivatives.kl_weight, step)}
    for domain, row in derivatives.caps.items():
        moves[f"cap of {domain} + 1 point"] = _scaled(row, 0.01)
    # Weights are normalised, so that of a single task changes nothing.
    tasks = derivatives.task_weights if len(derivatives.task_weights) > 1 else {}
    for task, row in tasks.items():
        moves[f"weight of task {task} + 1 point"] = _scaled(row, 0.01)
    return moves


def _scaled(derivatives: dict[str, float], step: float) -> dict[str, float]:
    return {domain: step * derivative for domain, derivative in derivatives.items()}


def _moves_text(moves: list[tuple[str, float]]) -> str:
    return ", ".join(f"{d} {number(100 * move, '+.2f')}" for d, move in moves[:MAX_MOVES]) or "none"
