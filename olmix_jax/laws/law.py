"""What a family of laws offers to the rest of the program, and how its predictions are computed."""

import dataclasses
import functools
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from olmix_jax.laws import cpu
from olmix_jax.swarm.lengths import Lengths, rows


class Fit(NamedTuple):
    """A fitted law.

    Attributes:
      params: the family's Params, float64, without leading axes.
      loss_N: the family's objective at the minimum, per task. In-sample.
      unseen: columns of domains that no run samples. The family's ``fit`` says what it predicts for them.
      steps: Levenberg–Marquardt steps of the slowest start; None for families that take none.
      promised_N: estimated decrease of ``loss_N`` by one more step [nats]; None for families that do not estimate it.
    """

    params: Any
    loss_N: np.ndarray
    unseen: tuple[int, ...]
    steps: int | None = None
    promised_N: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Law:
    """A family of laws: functions from mixtures to BPB, how to fit them, and what the family is capable of.

    The functions do not depend on tables, files or proposals. Two laws are equal if all their functions are the same,
    so a law can be the key of a cache or a static argument.

    Attributes:
      name: its key in :data:`olmix_jax.laws.LAWS` and the value of ``fit.law``.
      Params: a NamedTuple of arrays, the law's parameters for all N tasks. Resamples (R) and samples (S) are leading
        axes of every array.
      fit: ``(ratios_KM, bpb_KN, *, starts=, seed=, tasks=, weight_K=) → Fit``. Fits every task on all runs; see
        :func:`olmix_jax.laws.log_linear.fit` for the arguments and errors.
      fit_weighted: ``(ratios_KM, bpb_KN, weight_RK, *, starts=, seed=, tasks=, near=) → Params`` with a leading axis R,
        and ``begin=`` if ``begins``. Fits every task R times, with other run weights each time. ``near``, the Params of
        a fit on all runs, makes every refit start there.
      predict: ``(params, ratios_QM) → bpb_QN`` [BPB].
      parameters: ``(domains) → int``. The number of free parameters per task; a fit needs more runs than that.
      describe: ``(params, task, domains) → dict``. The parameters of one task (a row number) by name, for people.
      differentiable: ``predict`` and ``spread`` are pure JAX, and ``predict`` has useful slopes.
      convex: ``predict`` is convex in the mixture for all parameters that ``fit`` returns.
      rise: ``(params, ratios_QM) → rise_QN`` [BPB], a prediction minus the task's constant, with all its digits where
        it is far smaller than the constant. It is positive, and its logarithm is convex in the mixture at least up to
        the worst prediction for a run. None if the family has no such constant.
      cheap_refits: a refit with ``near`` costs much less than a fit. Without it, quality comes from cross-validation
        alone and there are no samples.
      spread: ``(params, ratios_QM) → std_QN`` [BPB], the standard deviation of a new run's measurement; None if the
        family has no model of its errors.
      sample: ``(params, number, seed) → Params`` with a leading axis S, drawn from the posterior; None if the family
        has no posterior. Bootstrap refits serve instead.
      leave_one_out: ``(params) → predicted_KN`` [BPB], each run predicted by all others in closed form; None if there
        is no closed form.
      prepare: ``(params) → prepared``, from which ``predict`` computes the same, up to rounding, in much less time:
        for many calls, such as those of the solver. It may take more memory. None if there is nothing to gain.
      begins: ``fit_weighted`` takes ``begin``, Params of a fit to other runs, and learns everything again from there.
      aim: ``(params, tokens, unique_M) → params``, which read mixtures at R training tokens and N_j unique ones. Such a
        family also fits runs that differ in length: ``fit`` and ``fit_weighted`` take ``lengths``, and ``predict`` and
        ``spread`` read mixtures or :func:`olmix_jax.swarm.lengths.rows`. None if the family reads mixtures only.
      base: ``(ratios_JM, bpb_JN, *, seed=, tasks=) → base``, what ``fit`` takes as ``base=`` from cheap runs. Refits
        take it from ``near`` or ``begin``. None if the family fits one kind of run.
    """

    name: str
    Params: type[Any]
    fit: Callable[..., Fit]
    fit_weighted: Callable[..., Any]
    predict: Callable[[Any, Any], Any]
    parameters: Callable[[int], int]
    describe: Callable[[Any, int, tuple[str, ...]], dict[str, Any]]
    differentiable: bool
    convex: bool = False
    rise: Callable[[Any, Any], Any] | None = None
    cheap_refits: bool = True
    spread: Callable[[Any, Any], Any] | None = None
    sample: Callable[[Any, int, int], Any] | None = None
    leave_one_out: Callable[[Any], np.ndarray] | None = None
    prepare: Callable[[Any], Any] | None = None
    begins: bool = False
    aim: Callable[[Any, float, Any], Any] | None = None
    base: Callable[..., Any] | None = None

    def refit(self, ratios_KM: Any, bpb_KN: Any, weight_RK: Any, *, begin: Any = None, **options: Any) -> Any:
        """Return ``fit_weighted``, started at ``begin``, the Params of an earlier fit, if the family can do that."""
        begin = {"begin": begin} if self.begins and begin is not None else {}
        return self.fit_weighted(ratios_KM, bpb_KN, weight_RK, **begin, **options)

    def reads(self, lengths: Lengths | None) -> dict[str, Lengths]:
        """Return the argument of ``fit`` and ``fit_weighted`` with the runs' lengths, if there are any to read."""
        return {} if self.aim is None or lengths is None else {"lengths": lengths}

    def rows(self, ratios_KM: Any, lengths: Lengths | None) -> np.ndarray:
        """Return what ``predict`` reads of runs: their mixtures, and their lengths if there are any to read."""
        return np.asarray(ratios_KM) if self.aim is None or lengths is None else rows(ratios_KM, lengths)

    def prepared(self, params: Any) -> Any:
        """Return the parameters in the form in which ``predict`` is fastest."""
        return params if self.prepare is None else self.prepare(params)


def evaluate(law: Law, params: Any, ratios_KM: Any) -> np.ndarray:
    """Return a law's predictions as a float64 array, bpb_KN [BPB]."""
    return _evaluate(law.predict, law.differentiable, params, ratios_KM)


def evaluate_each(law: Law, params_R: Any, ratios_KM: Any) -> np.ndarray:
    """Return the predictions of every resample, bpb_RKN [BPB].

    Resamples run through one program, as many at a time as there are cores, which bounds memory.

    Args:
      law: the family.
      params_R: Params with a leading axis R.
      ratios_KM: mixtures for all resamples, or ratios_RKM with different mixtures for each.
    """
    return _evaluate_each(law.predict, law.differentiable, params_R, ratios_KM)


def evaluate_spread(law: Law, params: Any, ratios_KM: Any) -> np.ndarray | None:
    """Return the standard deviation of a new run's measurement, std_KN [BPB]; None if the law has no ``spread``."""
    return None if law.spread is None else _evaluate(law.spread, law.differentiable, params, ratios_KM)


def evaluate_spread_each(law: Law, params_R: Any, ratios_KM: Any) -> np.ndarray | None:
    """Return :func:`evaluate_spread` of every resample, std_RKN [BPB]; None if the law has no ``spread``."""
    return None if law.spread is None else _evaluate_each(law.spread, law.differentiable, params_R, ratios_KM)


def _evaluate(function: Callable, differentiable: bool, params, ratios_KM) -> np.ndarray:
    ratios_KM = np.asarray(ratios_KM, np.float64)
    with cpu.float64():
        return np.asarray((_compiled(function) if differentiable else function)(params, ratios_KM))


def _evaluate_each(function: Callable, differentiable: bool, params_R, ratios_KM) -> np.ndarray:
    ratios_KM, params_R = np.asarray(ratios_KM, np.float64), jax.tree.map(np.asarray, params_R)
    resamples = len(jax.tree.leaves(params_R)[0])
    ratios_RKM = ratios_KM if ratios_KM.ndim == 3 else [ratios_KM] * resamples

    def one(r: int) -> np.ndarray:
        return _evaluate(function, differentiable, jax.tree.map(operator.itemgetter(r), params_R), ratios_RKM[r])

    return np.stack(cpu.in_threads(one, range(resamples)) if differentiable else list(map(one, range(resamples))))


@functools.lru_cache(maxsize=32)
def _compiled(function: Callable) -> Callable:
    return jax.jit(function, compiler_options=cpu.STEADY)
