"""Fit a law to a swarm's table and measure its quality: the content of ``fit/``."""

import dataclasses
import hashlib
import importlib.metadata
import pathlib
import time
from typing import Any

import numpy as np

from olmix_jax import laws
from olmix_jax.laws import (
    cheap_runs,
    floored_gp,
    learning_curve,
    lightgbm,
    outliers,
    params_files,
    quality,
    two_fidelity,
)
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.laws.law import Fit, Law
from olmix_jax.laws.summary import summarise
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files, rng
from olmix_jax.utils.names import listed
from olmix_jax.utils.optional import LeftOut
from olmix_jax.utils.progress import counted, log

# A search for hyperparameters has ended early if one more step promises more than this [nats].
UNSETTLED = 1.0
# Largest number of starting points in the refits that measure quality; docs/log.md has the effect of more.
STARTS = 4


@dataclasses.dataclass(frozen=True)
class Options:
    """What a fit depends on, beside the table.

    Attributes:
      law: a key of :data:`olmix_jax.laws.LAWS`.
      starts: starting points per task, for families that need them.
      folds: folds of the cross-validation.
      resamples: number of parameter samples to keep; 0 for none.
      seed: of all random draws.
    """

    law: str
    starts: int
    folds: int
    resamples: int
    seed: int


def fit(table: SwarmTable, options: Options, folder: pathlib.Path) -> FitResult:
    """Fit ``table`` and write ``params.npz`` and, if asked for, ``samples.npz`` to ``folder``.

    A fit of the same data with the same options and code is taken from ``folder/cache``. The caller writes the returned
    result to ``fit.json``.

    Raises:
      UserError: too few runs, a library that is not installed, or a fit that fails.
    """
    check(table, options)
    law = laws.LAWS[options.law]
    cache = folder / "cache" / key(table, options)
    begun = time.monotonic()
    if not (cache / "fit.json").exists():
        _fit(law, table, options, cache)
    else:
        log.info("fit: taken from the cache %s; data, options and code are unchanged", cache)
    for name in (params_files.PARAMS, params_files.SAMPLES):
        (folder / name).unlink(missing_ok=True)
        if (cache / name).exists():
            with files.atomic_write(folder / name, "wb") as f:
                f.write((cache / name).read_bytes())
    return dataclasses.replace(FitResult.read(cache / "fit.json"), wall_s=time.monotonic() - begun)


def check(table: SwarmTable, options: Options) -> None:
    """Raise an error if the law cannot be fitted to as many runs as a table has.

    Raises:
      UserError: too few runs for the law or the folds, or a library that is not installed.
    """
    check_library(options.law)
    table.check_enough(laws.LAWS[options.law].parameters(len(table.domains)))
    quality.folds_of(table.ratios_KM, options.folds, options.seed)


def law_for(name: str, table: SwarmTable) -> str:
    """Return the law to fit to a table: with cheap runs, :mod:`~olmix_jax.laws.two_fidelity` instead of the default."""
    return two_fidelity.LAW.name if table.cheap is not None and name == floored_gp.LAW.name else name


def base_of(law: Law, table: SwarmTable, seed: int = 0) -> dict[str, Any]:
    """Return the argument ``base`` of a law's ``fit``, if the table has cheap runs and the law has a use for them."""
    if table.cheap is None:
        return {}
    runs = counted(len(table.cheap.runs), "cheap run")
    if law.base is None:
        log.warning("fit: %s leaves out %s; set fit.law=%s to use both kinds", law.name, runs, two_fidelity.LAW.name)
        return {}
    log.info("fit: %s from %s and %s", law.name, runs, counted(len(table.runs), "real run"))
    return {"base": law.base(table.cheap.ratios_JM, table.cheap.bpb_JN, seed=seed, tasks=table.tasks)}


def check_library(law: str) -> None:
    """Raise an error if a law needs a library that is not installed."""
    if law == lightgbm.LAW.name:
        lightgbm.load_library()


def key(table: SwarmTable, options: Options) -> str:
    """Return the name of a fit in the cache: a digest of the data, the options and the code."""
    data = [np.ascontiguousarray(x).tobytes() for x in (table.ratios_KM, table.bpb_KN)]
    natural = None if table.natural_M is None else table.natural_M.tolist()
    content = hashlib.sha256(b"".join(data)).hexdigest()
    names = table.runs, table.domains, table.tasks, natural
    inherited = None if table.inherited is None else [np.asarray(x).tolist() for x in table.inherited]
    lengths = None if table.lengths is None else [x.tolist() for x in table.lengths]
    cheap = [] if table.cheap is None else [table.cheap.ratios_JM.tolist(), table.cheap.bpb_JN.tolist()]
    return files.digest([code(), content, names, inherited, lengths, *cheap, dataclasses.asdict(options)])


def warnings(law: Law, table: SwarmTable) -> tuple[str, ...]:
    """Return a sentence if runs differ in length or in their pools, and the law cannot read that."""
    if table.lengths is None or law.aim is not None:
        return ()
    tokens_K = table.lengths.tokens_K
    return (
        f"the runs differ in training tokens ({tokens_K.min():.3g} to {tokens_K.max():.3g}) or unique tokens, but "
        f"fit.law={law.name} reads weights only and takes the difference for noise; set fit.law=exposure",
    )


def code() -> str:
    """Return a digest of the code behind a fit: the files of this package, ``rng.py``, and the libraries' versions."""
    paths = [pathlib.Path(rng.__file__), *sorted(pathlib.Path(__file__).parent.glob("*.py"))]
    versions = [(name, _version(name)) for name in ("jax", "jaxlib", "numpy", "scipy", "lightgbm")]
    return files.digest([hashlib.sha256(path.read_bytes()).hexdigest() for path in paths] + versions)


def _version(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fit(law: Law, table: SwarmTable, options: Options, cache: pathlib.Path) -> None:
    """Fit the law, measure its quality, and write all files to ``cache``."""
    data = table.ratios_KM, table.bpb_KN
    common: dict[str, Any] = {"seed": options.seed, "tasks": table.tasks}
    ratios_KM, bpb_KN, (weight_K,) = quality.joined(*data, np.ones((1, len(table.runs))), table.inherited)
    base, reads = base_of(law, table, options.seed), law.reads(table.lengths)
    fitted = law.fit(ratios_KM, bpb_KN, starts=options.starts, **common, **reads, **base, weight_K=weight_K)
    sizes = counted(len(ratios_KM), "run"), counted(len(table.domains), "domain"), counted(len(table.tasks), "task")
    log.info("fit: %s on %s × %s, %s: %s", options.law, *sizes, listed(table.tasks, 20))
    _warn_of_early_end(fitted, table.tasks)
    common |= {"inherited": table.inherited, "lengths": table.lengths}
    from_full = common | {"begin": fitted.params}
    starts, repeats = min(options.starts, STARTS), 2 if law.cheap_refits else 1
    held_out = quality.cross_validate(law, *data, folds=options.folds, starts=starts, **from_full)
    left_out_KN = quality.leave_one_out(law, fitted.params, *data, **common) if law.cheap_refits else None
    params_files.save(cache / params_files.PARAMS, fitted.params)
    curve, left_out = None, LeftOut()
    with left_out.unless_fails("fit", "learning curves"):
        curve = learning_curve.measure(law, *data, held_out, starts=starts, repeats=repeats, **from_full)
    if options.resamples and law.cheap_refits:
        with left_out.unless_fails("fit", "samples of the law, and so error bars,"):
            if law.sample is None:
                drawn = samples(law, fitted.params, ratios_KM, bpb_KN, options.resamples, options.seed, weight_K)
                params_files.save(cache / params_files.SAMPLES, drawn)
            else:
                params_files.save_draws(cache / params_files.SAMPLES, options.resamples, options.seed)
    arrays = hashlib.sha256((cache / params_files.PARAMS).read_bytes()).hexdigest()
    digest = files.digest([options.law, table.tasks, arrays])
    result = summarise(law, table, fitted, held_out, left_out_KN, curve, folds=options.folds, digest=digest)
    if base:
        judged = cheap_runs.measure(fitted.params, table, held_out, folds=options.folds, seed=options.seed)
        result = dataclasses.replace(result, cheap=judged)
    if table.lengths is None:
        # Outliers are judged by mixtures alone, and would be the runs of another length.
        result = dataclasses.replace(result, outliers=outliers.find(*data, table.runs, table.tasks))
    # Last, because its presence marks the other files as complete.
    result.write(cache / "fit.json")


def _warn_of_early_end(fitted: Fit, tasks: tuple[str, ...]) -> None:
    """Warn of tasks whose search for hyperparameters ended before it converged, if the law can tell."""
    if fitted.promised_N is None:
        return
    names = ", ".join(task for task, promised in zip(tasks, fitted.promised_N) if promised > UNSETTLED)
    if names:
        log.warning("fit: the search for hyperparameters ended early for %s; rely on the held-out scores", names)


def samples(law: Law, params: Any, ratios_KM, bpb_KN, number: int, seed: int = 0, weight_K=None) -> Any:
    """Return Params with a leading axis S: drawn from the posterior if the law has one, else refits to bootstraps."""
    if law.sample is not None:
        return law.sample(params, number, seed)
    runs = len(ratios_KM)
    counts_RK = rng.generator(seed, "fitting.bootstrap").multinomial(runs, np.full(runs, 1 / runs), size=number)
    weight_RK = counts_RK * (1.0 if weight_K is None else weight_K)
    return law.fit_weighted(ratios_KM, bpb_KN, weight_RK, seed=seed, near=params)
