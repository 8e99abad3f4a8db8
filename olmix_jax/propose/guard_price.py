"""What it would cost that no task is predicted worse than under natural: the proposal with propose.guard=0."""

import dataclasses

import numpy as np

from olmix_jax.laws import evaluate
from olmix_jax.propose import optimum
from olmix_jax.propose.formulation import Formulation
from olmix_jax.propose.options import Options
from olmix_jax.propose.proposal_parts import by_name
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.utils.progress import log

# A predicted rise of BPB below this is rounding.
NOTICEABLE = 1e-9


@dataclasses.dataclass(frozen=True)
class GuardPrice:
    """The mixture that gives up no task, beside the proposal. Gains are predicted, task-weighted, over natural [BPB].

    Attributes:
      gain: of the proposal.
      guarded_gain: of the guarded mixture.
      worse, largest: number of tasks that the proposal makes worse, and the largest rise [BPB].
      weights: the guarded mixture.
    """

    gain: float
    guarded_gain: float
    worse: int
    largest: float
    weights: dict[str, float]


def guard_price(formulation: Formulation, swarm: SwarmFacts, options: Options, proposed_M) -> GuardPrice | None:
    """Return the price of guards on all tasks; None if no task is predicted worse, with guards, or without a solution.

    Args:
      formulation: the problem of the proposal.
      swarm: names and runs.
      options: those of the proposal.
      proposed_M: the proposal.

    Raises:
      UserError: the bounds exclude every mixture that keeps all tasks at natural's level.
    """
    problem, weights_N = formulation.problem, np.abs(formulation.problem.weights)
    bpb_CN = evaluate(problem.law, problem.params, np.stack([formulation.natural_M, proposed_M]))
    rise_N = bpb_CN[1] - bpb_CN[0]
    worse = int((rise_N > NOTICEABLE).sum())
    if not worse or options.guard is not None or options.tail is not None or options.method != "exact":
        return None
    guarded_options = dataclasses.replace(options, guard=0.0, guard_by="task")
    guarded = optimum.with_guards(formulation, swarm, guarded_options, proposed_M)
    if not guarded.converged:
        log.info("propose: the price of propose.guard=0 is left out: %s", guarded.describe())
        return None
    guarded_M = formulation.expand(guarded.weights_M)
    guarded_N = evaluate(problem.law, problem.params, guarded_M[None])[0]
    return GuardPrice(
        gain=float(-rise_N @ weights_N),
        guarded_gain=float((bpb_CN[0] - guarded_N) @ weights_N),
        worse=worse,
        largest=float(rise_N.max()),
        weights=by_name(swarm.domains, guarded_M),
    )


def warning(price: GuardPrice) -> str:
    """Return a sentence that says what the guards would cost."""
    cost = price.gain - price.guarded_gain
    return (
        f"propose.guard=0 makes no task worse (now {price.worse}, by up to {price.largest:.3g} BPB) and gives up "
        f"{max(cost, 0.0):.3g} of the {price.gain:.3g} BPB of predicted gain"
    )
