"""Domains whose proposed weight is at its upper bound, and what sets the bound."""

from olmix_jax.propose.proposal import Proposal

# A weight within this relative distance of its cap counts as at the cap.
TOLERANCE = 1e-3


def cap_of(proposal: Proposal, domain: str) -> float:
    """Return the largest weight that the domain may get; 1 without a cap."""
    cap = proposal.caps.get(domain)
    return 1.0 if cap is None else min(cap, 1.0)


def at_cap(proposal: Proposal) -> tuple[str, ...]:
    """Return the domains whose weight is at its cap. Domains with a cap of 0 are left out."""
    caps = {d: cap_of(proposal, d) for d in proposal.weights}
    return tuple(d for d, cap in caps.items() if 0 < cap < 1 and proposal.weights[d] >= cap * (1 - TOLERANCE))


def at_repetition_cap(proposal: Proposal) -> tuple[str, ...]:
    """Return the domains at a cap that follows from ``propose.max_repeats``."""
    return tuple(d for d in at_cap(proposal) if proposal.capped_by.get(d, "repetition") == "repetition")


def at_upper_bound(proposal: Proposal) -> tuple[str, ...]:
    """Return the domains at a cap that comes from ``propose.bounds``."""
    repetition = at_repetition_cap(proposal)
    return tuple(d for d in at_cap(proposal) if d not in repetition)
