"""Laws that predict BPB from a mixture. Each family is one file, which ends in its ``LAW``."""

from olmix_jax.laws import (
    autoscale,
    bimix,
    exposure,
    floored_gp,
    gp,
    lightgbm,
    log_linear,
    search,
    two_fidelity,
    warped_gp,
)
from olmix_jax.laws.fitted import FittedLaw
from olmix_jax.laws.law import Fit, Law, evaluate, evaluate_each

__all__ = ["LAWS", "Fit", "FittedLaw", "Law", "evaluate", "evaluate_each"]

# Families by name, the values of ``fit.law``.
LAWS: dict[str, Law] = {
    law.name: law
    for law in (
        warped_gp.LAW,
        log_linear.LAW,
        floored_gp.LAW,
        exposure.LAW,
        two_fidelity.LAW,
        bimix.LAW,
        autoscale.LAW,
        gp.LAW,
        lightgbm.LAW,
        search.LAW,
    )
}
