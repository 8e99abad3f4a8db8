"""How a solver ended."""

import enum

# A guard holds if its excess is at most this [BPB].
GUARD_TOLERANCE = 1e-10


class Status(enum.Enum):
    """How a solver ended. Files store the value.

    OPTIMAL: the minimum of a convex problem, with a duality gap of at most 1e-9 · max(1, |value|).
    LOCAL_OPTIMUM: a stationary point of a problem that is not convex, the best of several starts.
    SEARCHED: the best of a number of candidates, without proof.
    MAX_ITERATIONS: not converged.
    """

    OPTIMAL = "optimal"
    LOCAL_OPTIMUM = "local optimum"
    SEARCHED = "best of candidates"
    MAX_ITERATIONS = "not converged"

    @property
    def converged(self) -> bool:
        """Whether the solver has reached its goal."""
        return self is not Status.MAX_ITERATIONS

    def describe(
        self,
        *,
        starts: int | None = None,
        agreeing: int | None = None,
        iterations: int | None = None,
        gap: float | None = None,
        residual: float | None = None,
        guard_excess: float | None = None,
    ) -> str:
        """Return the status with its figures, for people: "local optimum, reached from 7 of 24 starts".

        Arguments are those of :class:`olmix_jax.solver.solution.Solution`; those that are None are left out.
        """
        if self is Status.SEARCHED and starts is not None:
            return f"best of {starts:,} candidates"
        if self is Status.LOCAL_OPTIMUM and starts is not None:
            return f"{self.value}, {'best of' if agreeing is None else f'reached from {agreeing} of'} {starts} starts"
        if self is not Status.MAX_ITERATIONS:
            return self.value
        if guard_excess is not None and guard_excess > GUARD_TOLERANCE:
            return f"{self.value} (a guard is exceeded by {guard_excess:.3g} BPB)"
        if gap is not None:
            return f"{self.value} (gap {gap:.3g} BPB after {iterations} iterations)"
        if residual is not None:
            return f"{self.value} (residual {residual:.3g} after {iterations} iterations)"
        return self.value
