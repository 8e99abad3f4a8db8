"""From a law to a mixture: bounds, objective, solver, and the proposal that they make together."""


def propose(*args, **kwargs) -> dict:
    """:func:`olmix_jax.propose.solved.propose`, imported when it is called: the solver alone starts in half of it."""
    from olmix_jax.propose import solved as proposal

    return proposal.propose(*args, **kwargs)
