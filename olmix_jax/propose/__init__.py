"""From a law to a mixture: bounds, objective, solver, and the proposal that they make together."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from olmix_jax.propose.proposal import Proposal


def propose(*args, **kwargs) -> "Proposal":
    """Call :func:`olmix_jax.propose.make_proposal.propose`, imported on the first call to keep start-up short."""
    from olmix_jax.propose import make_proposal

    return make_proposal.propose(*args, **kwargs)
