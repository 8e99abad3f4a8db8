"""From a fitted law to a proposal: constraints, guards, uncertainty, prices, next runs, export to trainers."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olmix_jax.laws.fitted import FittedLaw
    from olmix_jax.propose.options import Options
    from olmix_jax.propose.proposal import Proposal
    from olmix_jax.propose.swarm_facts import SwarmFacts


def propose(fitted: "FittedLaw", swarm: "SwarmFacts", options: "Options | None" = None, *, seed: int = 0) -> "Proposal":
    """Call :func:`olmix_jax.propose.make_proposal.propose`, imported on the first call to keep start-up short."""
    from olmix_jax.propose import make_proposal

    return make_proposal.propose(fitted, swarm, options, seed=seed)
