"""Prior over laws of a changed domain set, from the law of the old set (METHOD §3)."""

import jax
import numpy as np

from olmix_jax.laws import FittedLaw, log_linear
from olmix_jax.utils import rng

# Random mixtures per domain; log-linear laws are fitted to the predictions there.
POINTS_PER_DOMAIN = 6
# Starting points of each log-linear fit.
STARTS = 2
# Distance of a part's or a revised domain's coefficient from the old one, in differences between two old domains.
DISTANCE = 0.5


def to_log_linear(fitted: FittedLaw, ratios_KM, seed: int = 0) -> log_linear.Params:
    """Translate the samples of a law to log-linear laws, one for each sample.

    Each log-linear law is fitted to a sample's predictions at the swarm's mixtures and at Dirichlet draws around their
    mean.

    Args:
      fitted: a law with S samples.
      ratios_KM: mixtures of the swarm.
      seed: seed of the Dirichlet draws and the fits.

    Returns:
      Log-linear parameters with a leading axis S.
    """
    if fitted.law == log_linear.LAW:
        return jax.tree.map(np.asarray, fitted.samples)
    ratios_KM = np.asarray(ratios_KM, np.float64)
    domains = ratios_KM.shape[1]
    draw, mean_M = rng.generator(seed, "recompute.distil"), np.maximum(np.mean(ratios_KM, axis=0), 1e-3)
    drawn_QM = draw.dirichlet(mean_M / mean_M.sum() * domains, size=POINTS_PER_DOMAIN * domains)
    points_QM = np.concatenate([ratios_KM, drawn_QM])
    bpb_SQN = fitted.predict_samples(points_QM)
    number, _, tasks = bpb_SQN.shape
    # A fit treats tasks independently, so all samples are fitted in one call as S·N tasks.
    bpb_QT = bpb_SQN.transpose(1, 0, 2).reshape(len(points_QM), -1)
    params = log_linear.fit(points_QM, np.maximum(bpb_QT, 1e-6), starts=STARTS, seed=seed).params
    return jax.tree.map(lambda x: x.reshape(number, tasks, *x.shape[1:]), params)


def sample_laws(old: log_linear.Params, matrix_OM, revised_M, likeness_MO=None, *, seed: int = 0) -> log_linear.Params:
    """Sample laws of the new domain set, one for each sample of the old law.

    The coefficients of a new domain, for all tasks of a sample at once:

    - unaffected: those of the old domain.
    - added: those of an old domain that is drawn at random.
    - part: those of the whole, plus DISTANCE times the difference between two old domains drawn at random. The
      differences of all parts of a domain cancel, so that the whole keeps its coefficients.
    - revised: as a part, but the differences do not have to cancel.

    Args:
      old: samples of the old law, coef_SNO.
      matrix_OM: expresses old mixtures on the new set (:meth:`olmix_jax.update.changes.Change.mixture_matrix`).
        Columns of added and revised domains are 0.
      revised_M: index of the old domain that a new one is a revision of, or −1.
      likeness_MO: probabilities of the old domain that is drawn for a new one; None: uniform.
      seed: seed of the draws.

    Returns:
      Log-linear parameters, coef_SNM.
    """
    matrix_OM, (samples, _, olds) = np.asarray(matrix_OM, np.float64), old.coef_NM.shape
    draw, rows = rng.generator(seed, "recompute.truths"), np.arange(samples)
    coef_SNM = np.einsum("sno,om->snm", old.coef_NM, (matrix_OM > 0).astype(float))
    for m in range(matrix_OM.shape[1]):
        probability_O = None if likeness_MO is None else likeness_MO[m]
        one_S, other_S = (draw.choice(olds, size=samples, p=probability_O) for _ in range(2))
        difference_SN = DISTANCE * (old.coef_NM[rows, :, one_S] - old.coef_NM[rows, :, other_S])
        sources = np.flatnonzero(matrix_OM[:, m])
        if revised_M[m] >= 0:
            coef_SNM[:, :, m] = old.coef_NM[:, :, revised_M[m]] + difference_SN
        elif not len(sources):
            coef_SNM[:, :, m] = old.coef_NM[rows, :, one_S]
        elif matrix_OM[sources[0], m] < 1:
            coef_SNM[:, :, m] += difference_SN
    for o, share_M in enumerate(matrix_OM):
        parts_M = (share_M > 0) & (share_M < 1)
        if parts_M.any():
            excess_SN = coef_SNM[:, :, parts_M] @ share_M[parts_M] - old.coef_NM[:, :, o]
            coef_SNM[:, :, parts_M] -= excess_SN[:, :, None]
    return old._replace(coef_NM=coef_SNM)
