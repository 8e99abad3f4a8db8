"""The record of cheap runs in ``fit.json``, and its sentence."""

import dataclasses

from olmix_jax.utils.progress import counted


@dataclasses.dataclass(frozen=True)
class CheapRuns:
    """What the cheap runs of a swarm bring to the law. Scores are of real runs, held out, and means over tasks.

    Attributes:
      runs: number of cheap runs.
      used: whether the real runs confirm them. If not, the law is that of the real runs alone.
      slope: change of the log BPB of a real run per change of that of cheap runs, shared by all tasks.
      slope_error: its standard error.
      rmse_cv, rmse_cv_alone: RMSE with the cheap runs and of the real runs alone [BPB].
      spearman_cv, spearman_cv_alone: rank correlation, likewise.
      real_worth, cheap_worth: shares by which one more real run, and ten more cheap ones, would lower the variance of
        predicted effects.
    """

    runs: int
    used: bool
    slope: float
    slope_error: float
    rmse_cv: float
    rmse_cv_alone: float
    spearman_cv: float
    spearman_cv_alone: float
    real_worth: float
    cheap_worth: float

    def __str__(self) -> str:
        runs, slope = counted(self.runs, "cheap run"), f"{self.slope:.2f} ± {self.slope_error:.2f}"
        if not self.used:
            return (
                f"the real runs do not confirm the {runs} (an effect is {slope} times theirs), so the law is that of "
                "the real runs alone; add real runs, or cheap runs that are closer to them"
            )
        return (
            f"the real runs confirm the {runs}: an effect is {slope} times theirs; held-out RMSE {self.rmse_cv:.4f} "
            f"BPB with them and {self.rmse_cv_alone:.4f} without; one more real run would lower the variance of "
            f"predicted effects by {100 * self.real_worth:.0f} %, ten more cheap ones by {100 * self.cheap_worth:.0f} %"
        )
