"""From a swarm's table to a law and all that is reported of it: the content of ``fit/``."""

import dataclasses
import hashlib
import importlib.metadata
import pathlib
import time

import numpy as np

from olmix_jax import laws
from olmix_jax.laws import params_files, quality
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files, rng
from olmix_jax.utils.progress import log

# Effects are of this much of the mixture going to one domain.
EFFECT_STEP = 0.1
# Nats that a further step would promise where hyperparameters are said not to be settled.
UNSETTLED = 1.0
# Starting points of the fits that quality comes from, at most; docs/log.md has what more of them change.
STARTS = 4
NOMINAL = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)


@dataclasses.dataclass(frozen=True)
class Options:
    """What a fit depends on, beside the table.

    Attributes:
      law: a key of :data:`olmix_jax.laws.LAWS`.
      starts: starting points per task, for families that need them.
      folds: of the cross-validation.
      resamples: parameter samples to keep; 0 for none.
      seed: of all that is random.
    """

    law: str
    starts: int
    folds: int
    resamples: int
    seed: int


def fit(table: SwarmTable, options: Options, folder: pathlib.Path) -> dict:
    """Fits ``table`` and writes ``folder``: ``fit.json``, ``params.npz`` and, if asked for, ``samples.npz``.

    A fit of the same data with the same options by the same code is taken from ``folder``/cache.

    Returns:
      What is to go into ``fit.json``.

    Raises:
      UserError: too few runs, a library that is not installed, or a fit that fails.
    """
    law = laws.LAWS[options.law]
    table.check_enough(law.parameters(len(table.domains)))
    kept = folder / "cache" / key(table, options)
    begun = time.monotonic()
    if not (kept / "fit.json").exists():
        _fit(law, table, options, kept)
    else:
        log.info("fit: the same data, options and code as before; taken from %s", kept)
    for name in ("params.npz", "samples.npz"):
        (folder / name).unlink(missing_ok=True)
        if (kept / name).exists():
            with files.atomic_write(folder / name, "wb") as f:
                f.write((kept / name).read_bytes())
    return {**files.read_json(kept / "fit.json"), "wall_s": time.monotonic() - begun}


def key(table: SwarmTable, options: Options) -> str:
    """A name for a fit: a digest of the data, the options and the code."""
    data = [np.ascontiguousarray(x).tobytes() for x in (table.ratios_KM, table.bpb_KN)]
    natural = None if table.natural_M is None else table.natural_M.tolist()
    content = hashlib.sha256(b"".join(data)).hexdigest()
    names = table.runs, table.domains, table.tasks, natural
    inherited = None if table.inherited is None else [np.asarray(x).tolist() for x in table.inherited]
    return files.digest([code(), content, names, inherited, dataclasses.asdict(options)])


def code() -> str:
    """A digest of all code that a fit comes from: this package's, and the versions of the libraries that compute."""
    here = pathlib.Path(__file__).parent
    paths = [pathlib.Path(rng.__file__), *sorted(here.glob("*.py"))]
    versions = [(name, _version(name)) for name in ("jax", "jaxlib", "numpy", "scipy", "lightgbm")]
    return files.digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] + versions)


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fit(law, table: SwarmTable, options: Options, kept: pathlib.Path) -> None:
    data = table.ratios_KM, table.bpb_KN
    common = {"seed": options.seed, "tasks": table.tasks}
    ratios_KM, bpb_KN, (weight_K,) = quality.joined(*data, np.ones((1, len(table.runs))), table.inherited)
    # What cannot be split is said before anything is fitted.
    quality.folds_of(table.ratios_KM, options.folds, options.seed)
    fitted = law.fit(ratios_KM, bpb_KN, starts=options.starts, **common, weight_K=weight_K)
    log.info("fit: %s on %d runs × %d domains, %d tasks", options.law, *ratios_KM.shape, len(table.tasks))
    _warn_of_unfinished(fitted, table.tasks)
    common["inherited"] = table.inherited
    starts = min(options.starts, STARTS)
    held_out = quality.cross_validate(law, *data, folds=options.folds, starts=starts, **common)
    refits = law.cheap_refits
    left_out = quality.leave_one_out(law, fitted.params, *data, **common) if refits else None
    curve = quality.learning_curve(law, *data, held_out, starts=starts, repeats=2 if refits else 1, **common)
    content = _content(law, table, fitted, held_out, left_out)
    content |= {"law": options.law, "folds": options.folds, "learning_curve": curve}
    params_files.save(kept / "params.npz", fitted.params)
    if options.resamples and refits:
        drawn = samples(law, fitted.params, ratios_KM, bpb_KN, options.resamples, options.seed, weight_K)
        params_files.save(kept / "samples.npz", drawn)
    arrays = hashlib.sha256((kept / "params.npz").read_bytes()).hexdigest()
    content["digest"] = files.digest([options.law, table.tasks, arrays])
    # Last, for it says that the others are complete.
    files.write_json(kept / "fit.json", content)


def _warn_of_unfinished(fitted, tasks) -> None:
    """Says of which tasks the hyperparameters are not settled, for laws that know it."""
    if fitted.promised_N is None:
        return
    open_N = fitted.promised_N > UNSETTLED
    if open_N.any():
        names = ", ".join(task for task, is_open in zip(tasks, open_N) if is_open)
        log.warning("fit: the search for hyperparameters ended early for %s; trust held-out quality, as ever", names)


def samples(law, params, ratios_KM, bpb_KN, number: int, seed: int = 0, weight_K=None):
    """Params with a leading axis: drawn from the posterior where the law has one, else refits to resampled runs."""
    if law.sample is not None:
        return law.sample(params, number, seed)
    runs = len(ratios_KM)
    counts_RK = rng.generator(seed, "fitting.bootstrap").multinomial(runs, np.full(runs, 1 / runs), size=number)
    weight_RK = counts_RK * (1.0 if weight_K is None else weight_K)
    return law.fit_weighted(ratios_KM, bpb_KN, weight_RK, seed=seed, near=params)


def _content(law, table: SwarmTable, fitted, held_out: quality.Quality, left_out) -> dict:
    """All of fit.json but what comes from the options."""
    in_sample = quality.scores(laws.evaluate(law, fitted.params, table.ratios_KM), table.bpb_KN)
    columns = {
        "loss": fitted.loss_N,
        "spearman_cv": held_out.spearman_N,
        "r2_cv": held_out.r2_N,
        "rmse_cv": held_out.rmse_N,
        "coverage_cv": held_out.coverage_N,
        "stretch": held_out.stretch_N,
        "spearman_in_sample": in_sample[0],
        "rmse_in_sample": in_sample[2],
    }
    content = {
        "spearman_cv_mean": held_out.spearman_N.mean(),
        "spearman_of_mean_cv": held_out.spearman_of_mean,
        "r2_cv_mean": held_out.r2_N.mean(),
        "rmse_cv_mean": held_out.rmse_N.mean(),
        "coverage_cv_mean": held_out.coverage_N.mean(),
        "spearman_in_sample_mean": in_sample[0].mean(),
    }
    if left_out is not None:
        one_out = quality.scores(left_out, table.bpb_KN)
        columns |= {"spearman_loo": one_out[0], "rmse_loo": one_out[2]}
        content |= {"spearman_loo_mean": one_out[0].mean(), "spearman_of_mean_loo": one_out[3]}
    base_M, effect_MN = effects(law, fitted.params, table)
    about = "natural mixture" if table.natural_M is not None else "average run's mixture"
    tasks = {
        task: {
            **{name: value_N[i] for name, value_N in columns.items()},
            "parameters": law.describe(fitted.params, i, table.domains),
            "effects": dict(zip(table.domains, effect_MN[:, i])),
        }
        for i, task in enumerate(table.tasks)
    }
    low_KN, high_KN = held_out.predicted_KN - held_out.reach_KN, held_out.predicted_KN + held_out.reach_KN
    by_task = {"measured": table.bpb_KN, "predicted_cv": held_out.predicted_KN, "low_cv": low_KN, "high_cv": high_KN}
    return {
        "tasks": tasks,
        **content,
        "level": quality.LEVEL,
        "effect": f"change in BPB when a tenth of the {about} is replaced by the domain",
        "base": dict(zip(table.domains, base_M)),
        "runs": table.runs,
        **{name: dict(zip(table.tasks, x_KN.T)) for name, x_KN in by_task.items()},
        "average": _average(held_out, table.bpb_KN),
        "coverage_curve": _coverage_curve(held_out, table.bpb_KN),
        "unseen": [table.domains[j] for j in fitted.unseen],
        "barely_sampled": table.barely_sampled(),
    }


def effects(law, params, table: SwarmTable) -> tuple[np.ndarray, np.ndarray]:
    """(base_M, effect_MN): a mixture, and the change in BPB when EFFECT_STEP of it goes to a domain instead."""
    base_M = table.natural_M if table.natural_M is not None else table.ratios_KM.mean(axis=0)
    changed_MM = (1 - EFFECT_STEP) * base_M[None, :] + EFFECT_STEP * np.eye(len(base_M))
    asked_CM = np.concatenate([base_M[None, :], changed_MM])
    # As many rows as runs, where these are more: a program for that many is there already.
    padded_CM = np.concatenate([asked_CM, np.tile(base_M, (max(0, len(table.runs) - len(asked_CM)), 1))])
    bpb_CN = laws.evaluate(law, params, padded_CM)[: len(asked_CM)]
    return base_M, bpb_CN[1:] - bpb_CN[:1]


def _average(held_out: quality.Quality, bpb_KN) -> dict:
    """Held-out predictions of the average over tasks, with intervals calibrated on averages, not averaged ones."""
    predicted_K1, bpb_K1 = held_out.predicted_KN.mean(axis=1)[:, None], bpb_KN.mean(axis=1)[:, None]
    spread_K1, reach_K = held_out.spread_KN.mean(axis=1)[:, None], np.empty(len(bpb_KN))
    for fold in np.unique(held_out.fold_K):
        mine_K = held_out.fold_K == fold
        reach_K[mine_K] = (quality.stretch(predicted_K1, bpb_K1, spread_K1, ~mine_K) * spread_K1[mine_K])[:, 0]
    predicted_K, bpb_K = predicted_K1[:, 0], bpb_K1[:, 0]
    return {
        "measured": bpb_K,
        "predicted_cv": predicted_K,
        "low_cv": predicted_K - reach_K,
        "high_cv": predicted_K + reach_K,
        "coverage_cv": (np.abs(predicted_K - bpb_K) <= reach_K).mean(),
    }


def _coverage_curve(held_out: quality.Quality, bpb_KN) -> dict:
    """Share of held-out measurements inside intervals of each nominal level, calibrated on the other folds."""
    covered = []
    for level in NOMINAL:
        inside = 0
        for fold in np.unique(held_out.fold_K):
            mine_K = held_out.fold_K == fold
            data = held_out.predicted_KN, bpb_KN, held_out.spread_KN
            reach_KN = quality.stretch(*data, ~mine_K, level) * held_out.spread_KN[mine_K]
            inside += (np.abs(held_out.predicted_KN - bpb_KN)[mine_K] <= reach_KN).sum()
        covered.append(inside / bpb_KN.size)
    return {"nominal": NOMINAL, "covered": covered}
