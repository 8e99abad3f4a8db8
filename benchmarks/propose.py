"""Compare the solver with cvxpy on the same problems, in one run. Writes benchmarks/propose.md.

python -m benchmarks.propose
"""

import pathlib
import subprocess
import sys
import time
import warnings

import cvxpy as cp
import numpy as np

from benchmarks import laws_page
from olmix_jax.laws import log_linear
from olmix_jax.solver import batch
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
from olmix_jax.solver.status import Status
from olmix_jax.utils.progress import log

HERE = pathlib.Path(__file__).parent
DOMAINS, TASKS, PROBLEMS, REFEREED = 24, 52, 1000, 30
LARGE = 10_000, 100
LIBRARIES = "jax", "jaxlib", "numpy", "cvxpy", "clarabel", "scs"
OURS = """
import numpy as np
from olmix_jax.laws import log_linear
from olmix_jax.solver.bounds import box
from olmix_jax.solver.problem import Problem
from olmix_jax.solver.solve import solve
{problem}
params = log_linear.Params(log_c, coef)
print(solve(Problem(log_linear.LAW, params, weights, natural, box(0 * upper, upper), 0.05)).value)
"""
THEIRS = """
import cvxpy as cp, numpy as np
{problem}
p = cp.Variable(len(natural))
value = weights @ (np.exp(log_c) + cp.exp(coef @ p)) + 0.05 * cp.sum(cp.rel_entr(p, natural))
model = cp.Problem(cp.Minimize(value), [p >= 0, p <= upper, cp.sum(p) == 1])
model.solve(solver=cp.CLARABEL)
print(model.value)
"""
PROBLEM = """
rng = np.random.default_rng(0)
log_c, coef = np.log(rng.uniform(0.2, 0.6, {tasks})), rng.normal(size=({tasks}, {domains}))
natural, weights = rng.dirichlet(np.ones({domains})), np.full({tasks}, 1 / {tasks})
upper = np.minimum(1, 3 * natural)
"""


def problem(domains: int, tasks: int):
    """Return params, weights_N, natural_M and upper_M, as in PROBLEM."""
    rng = np.random.default_rng(0)
    params = log_linear.Params(np.log(rng.uniform(0.2, 0.6, tasks)), rng.normal(size=(tasks, domains)))
    natural_M, weights_N = rng.dirichlet(np.ones(domains)), np.full(tasks, 1 / tasks)
    return params, weights_N, natural_M, np.minimum(1, 3 * natural_M)


def seconds(work, repeats: int = 5) -> float:
    """Return the smallest time of several calls."""
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        times.append(time.perf_counter() - begun)
    return min(times)


def grid():
    """Time many problems in one call, and cvxpy on some of them.

    Returns:
      Seconds per problem of the first and of later calls, those of cvxpy by solver, and the largest relative difference
      in value.
    """
    params, weights_N, natural_M, _ = problem(DOMAINS, TASKS)
    kl_weight_P, repeats_P = np.geomspace(0.01, 0.3, PROBLEMS), np.linspace(1.5, 6, PROBLEMS)
    np.random.default_rng(1).shuffle(repeats_P)
    upper_PM = np.minimum(1, natural_M * repeats_P[:, None])
    shared = Problem(log_linear.LAW, params, weights_N, natural_M, box(np.zeros(DOMAINS), natural_M), 0.05)
    varying = batch.Varying(upper_M=upper_PM, kl_weight=kl_weight_P)

    def ours():
        return batch.solve_each(shared, varying)

    first, later, solution = seconds(ours, 1), seconds(ours), ours()
    p, cap, kl_weight = cp.Variable(DOMAINS), cp.Parameter(DOMAINS, nonneg=True), cp.Parameter(nonneg=True)
    kl = cp.Variable()
    value = weights_N @ (np.exp(params.log_c_N) + cp.exp(params.coef_NM @ p)) + kl_weight * kl
    within = [kl >= cp.sum(cp.rel_entr(p, natural_M)), p >= 0, p <= cap, cp.sum(p) == 1]
    model, theirs, off = cp.Problem(cp.Minimize(value), within), {}, 0.0
    for name in ("CLARABEL", "SCS"):
        times = []
        for i in np.linspace(0, PROBLEMS - 1, REFEREED).astype(int):
            cap.value, kl_weight.value = upper_PM[i], kl_weight_P[i]
            begun = time.perf_counter()
            model.solve(solver=name)
            times.append(time.perf_counter() - begun)
            if name == "CLARABEL":
                off = max(off, abs(model.value - solution.value[i]) / abs(solution.value[i]))
        theirs[name] = float(np.median(times[1:]))
    return first / PROBLEMS, later / PROBLEMS, theirs, off


def cold() -> tuple[float, float]:
    """Return the seconds of a new process that solves one problem, with our solver and with cvxpy: the best of five."""
    problem = PROBLEM.format(domains=DOMAINS, tasks=TASKS)
    pairs = [(process(OURS.format(problem=problem)), process(THEIRS.format(problem=problem))) for _ in range(5)]
    return min(ours for ours, _ in pairs), min(theirs for _, theirs in pairs)


def process(code: str) -> float:
    return seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True, capture_output=True), 1)


def large() -> list[tuple[float, float]]:
    """Return the seconds of the first call and of a later one on a large problem, with λ = 0.05 and λ = 0."""
    params, weights_N, natural_M, upper_M = problem(*LARGE)
    times = []
    for kl_weight in (0.05, 0.0):

        def work(kl_weight=kl_weight):
            end = solve(Problem(log_linear.LAW, params, weights_N, natural_M, box(0 * upper_M, upper_M), kl_weight))
            assert end.status is Status.OPTIMAL, end.describe()

        times.append((seconds(work, 1), seconds(work, 2)))
    return times


def main() -> None:
    warnings.simplefilter("ignore")  # cvxpy warns about accuracy
    log.info("benchmarks: cold")
    ours, cvxpy = cold()
    log.info("benchmarks: grid")
    first, later, theirs, off = grid()
    fastest = min(theirs, key=theirs.get)
    log.info("benchmarks: large")
    (large_first, large_again), (flat_first, flat_again) = large()
    ratio, reached = theirs[fastest] / later, {True: "reached", False: "missed"}
    size = f"{LARGE[0]:,} domains × {LARGE[1]} tasks"
    rows = [
        (
            f"one solve in a new process, {DOMAINS} domains × {TASKS} tasks",
            "no slower than cvxpy's",
            f"{ours:.2f} s, cvxpy {cvxpy:.2f} s",
            reached[ours <= cvxpy],
        ),
        (
            f"{PROBLEMS:,} problems (λ × caps) in one call after the first, per problem",
            f"≥ 50 × the rate of cvxpy ({fastest})",
            f"{1e3 * later:.3f} ms, cvxpy {1e3 * theirs[fastest]:.2f} ms: {ratio:.0f} ×",
            reached[ratio >= 50],
        ),
        (
            f"{size}, λ = 0.05, first call",
            "< 10 s",
            f"{large_first:.1f} s, later {large_again:.2f} s",
            reached[large_first < 10],
        ),
        (
            f"{size}, λ = 0, first call",
            "< 10 s",
            f"{flat_first:.1f} s, later {flat_again:.2f} s",
            reached[flat_first < 10],
        ),
    ]
    others = ", ".join(f"{name} {1e3 * value:.2f} ms" for name, value in theirs.items())
    page = [
        "# Proposals: seconds",
        laws_page.provenance("`python -m benchmarks.propose`", LIBRARIES),
        laws_page.table(("figure", "target", "measured", ""), rows),
        f"cvxpy solves one problem with caps and λ as parameters, so that it is compiled once ({others}, medians of "
        f"{REFEREED}). The first call with {PROBLEMS:,} problems takes {PROBLEMS * first:.1f} s, nearly all of it "
        f"compilation. Values agree with cvxpy's to {off:.1g} relative. The laws are random and log-linear, the caps 3 "
        "times natural. Times are the smallest of five calls, and for new processes of five processes in alternation.",
    ]
    (HERE / "propose.md").write_text("\n\n".join(page) + "\n", encoding="utf-8")
    print("\n".join(f"{what}: {measured} ({verdict})" for what, _, measured, verdict in rows))


if __name__ == "__main__":
    main()
