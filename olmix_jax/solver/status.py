"""How a solver ended."""

import enum


class Status(enum.Enum):
    """How a solver ended. The value is what files show.

    OPTIMAL: a minimum of a convex problem, with a duality gap of at most 1e-9 · max(1, |value|).
    LOCAL_OPTIMUM: a stationary point of a problem that is not convex, the best of several starts.
    SEARCHED: the best of a number of candidates, without proof.
    MAX_ITERATIONS: not converged.
    INFEASIBLE: no mixture meets the constraints.
    """

    OPTIMAL = "optimal"
    LOCAL_OPTIMUM = "local optimum"
    SEARCHED = "best of candidates"
    MAX_ITERATIONS = "not converged"
    INFEASIBLE = "infeasible"

    @property
    def converged(self) -> bool:
        """Whether the mixture is what the method can find."""
        return self in (Status.OPTIMAL, Status.LOCAL_OPTIMUM, Status.SEARCHED)
