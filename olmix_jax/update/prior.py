"""Laws that may be true of a changed domain set, as far as the old swarm's law tells (METHOD §3)."""

import jax
import numpy as np

from olmix_jax.laws import evaluate_each, log_linear
from olmix_jax.utils import rng

# Mixtures per domain that a law is translated to log-linear at, and starts of each descent.
POINTS, STARTS = 6, 2
# How far a part's, or a revised domain's, coefficient is from the old one, in differences between two domains.
APART = 0.5


def distil(law, samples, domains_M: int, ratios_KM, seed: int = 0) -> log_linear.Params:
    """A law's samples as log-linear laws, one each: Params with a leading axis S.

    Each is fitted to what its sample predicts at the swarm's mixtures and at Dirichlet draws around their mean.
    """
    if law == log_linear.LAW:
        return jax.tree.map(np.asarray, samples)
    draw, mean_M = rng.generator(seed, "recompute.distil"), np.maximum(np.mean(ratios_KM, axis=0), 1e-3)
    drawn_QM = draw.dirichlet(mean_M / mean_M.sum() * domains_M, size=POINTS * domains_M)
    points_QM = np.concatenate([ratios_KM, drawn_QM])
    bpb_SQN = evaluate_each(law, samples, points_QM)
    number, _, tasks = bpb_SQN.shape
    side_by_side = bpb_SQN.transpose(1, 0, 2).reshape(len(points_QM), -1)
    params = log_linear.fit(points_QM, np.maximum(side_by_side, 1e-6), starts=STARTS, seed=seed).params
    return log_linear.Params(params.log_c_N.reshape(number, tasks), params.coef_NM.reshape(number, tasks, -1))


def truths(old: log_linear.Params, matrix_OM, revised_M, resembles_MO=None, *, seed: int = 0) -> log_linear.Params:
    """Laws that may be true of the new set, one for each sample of the old one.

    A domain that is unaffected has its old coefficients. An added one is like some old domain, with all tasks, drawn
    for each sample; a part is like its whole, and a revised domain like itself, but for APART of the difference
    between two domains drawn so; parts' differences cancel over their whole.

    Args:
      old: samples, coef_SNO.
      matrix_OM: old mixtures on the new set (:meth:`olmix_jax.update.changes.Change.expressed`); columns of zeros
        are added.
      revised_M: index of the old domain that a new one is a revision of, or −1.
      resembles_MO: probabilities of which old domain an added one is like; alike without it.
      seed: of the draws.
    """
    matrix_OM, (samples, _, olds) = np.asarray(matrix_OM, np.float64), old.coef_NM.shape
    draw, rows = rng.generator(seed, "recompute.truths"), np.arange(samples)
    coef_SNM = np.einsum("sno,om->snm", old.coef_NM, (matrix_OM > 0).astype(float))
    for m in range(matrix_OM.shape[1]):
        chances_O = None if resembles_MO is None else resembles_MO[m]
        one_S, other_S = (draw.choice(olds, size=samples, p=chances_O) for _ in range(2))
        difference_SN = APART * (old.coef_NM[rows, :, one_S] - old.coef_NM[rows, :, other_S])
        of = np.flatnonzero(matrix_OM[:, m])
        if revised_M[m] >= 0:
            coef_SNM[:, :, m] = old.coef_NM[:, :, revised_M[m]] + difference_SN
        elif not len(of):
            coef_SNM[:, :, m] = old.coef_NM[rows, :, one_S]
        elif matrix_OM[of[0], m] < 1:
            coef_SNM[:, :, m] += difference_SN
    for o, share_M in enumerate(matrix_OM):
        parts_M = (share_M > 0) & (share_M < 1)
        if parts_M.any():
            off_SN = coef_SNM[:, :, parts_M] @ share_M[parts_M] - old.coef_NM[:, :, o]
            coef_SNM[:, :, parts_M] -= off_SN[:, :, None]
    return log_linear.Params(old.log_c_N, coef_SNM)
