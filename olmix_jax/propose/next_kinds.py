"""The record of how many next runs are real and how many cheap, and why: ``next_kinds`` of ``proposal.json``."""

import dataclasses

from olmix_jax.utils.progress import counted


@dataclasses.dataclass(frozen=True)
class NextKinds:
    """Next runs by kind, of a swarm that has both.

    Attributes:
      real, cheap: how many are real runs, and cheap ones.
      used: whether the law uses cheap runs.
      cost: of a cheap run, as a share of a real one's; 0 for merged members, None if it is not known.
      left: share of the law's standard deviation that remains after all of them.
      left_alone: what would remain after real runs of the same cost.
    """

    real: int
    cheap: int
    used: bool
    cost: float | None
    left: float
    left_alone: float

    def __str__(self) -> str:
        if not self.used:
            return "all next runs are real, because the real runs do not confirm the cheap ones"
        if self.cost is None:
            return (
                "all next runs are real, because the cost of a cheap run is not known; if cheap runs train on fewer "
                "tokens, give the tokens of all runs in swarm.tokens"
            )
        if not self.cost:
            return (
                "all next runs are real, because merged members cost nearly nothing after their experts; for more of "
                "them, raise swarm.merged"
            )
        runs = f"{counted(self.real, 'real run')} and {counted(self.cheap, 'cheap run')}"
        if not self.cheap:
            return (
                f"all next runs are real: at {self.cost:.2g} of the cost of a real run, cheap ones would reduce the "
                "uncertainty less"
            )
        return (
            f"the next runs are {runs}, at {self.cost:.2g} of the cost of a real one; they leave "
            f"{100 * self.left:.0f} % of the law's standard deviation, and real runs alone would leave "
            f"{100 * self.left_alone:.0f} % at the same cost"
        )
