"""Compare chosen next runs with random ones at equal K. Writes benchmarks/next_runs.md and next_runs.png.

    python -m benchmarks.next_runs [--data=../shared/data] [--seeds=30] [--develop]

The candidates are the runs of a published swarm, which are trained already. Both methods start with the same 30 random
runs and add batches of 8: at random, or by `next_runs.choose` with all remaining runs as candidates and as reference.
`warped_gp` is fitted again after every batch and scored on runs outside the pool: RegMix's 256 test runs, or 42 of
the 127 runs of the OLMix swarm, drawn anew for every seed.

--develop also tries other ways of choosing. It scores on 160 runs that are taken out of RegMix's pool for every seed,
does not read the test runs, and writes nothing.
"""

import argparse
import os
import pathlib
import platform
import time

import jax
import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from olmix_jax.laws import evaluate, evaluate_each, scores, warped_gp
from olmix_jax.propose import next_runs
from olmix_jax.propose.covariances import exact_covariances
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import rng

HERE = pathlib.Path(__file__).parent
START, BATCH, LAST = 30, 8, 110
# Additional random runs, to find how many random runs reach the score of the chosen ones.
FURTHER = 48
SCORES = "Spearman, task mean", "Spearman of the task mean", "RMSE, task mean", "RMSE of the task mean"
COLOURS = {"random": "#8a8f98", "chosen": "#1f6fb4"}


def at_random(params, ratios_CM, number, seed):
    del params
    return np.random.default_rng(seed).permutation(len(ratios_CM))[:number]


def chosen(params, ratios_CM, number, seed):
    del seed
    return next_runs.choose(params, ratios_CM, ratios_CM, number)


def chosen_sampled(params, ratios_CM, number, seed):
    """Choose from 100 posterior draws, as for laws without a closed form."""
    predicted_RCN = evaluate_each(warped_gp.LAW, warped_gp.sample(params, 100, seed), ratios_CM)
    bpb_N = np.exp(params.offset_N)
    noise_N = np.exp(params.theta_NP[:, -2]) * (params.scale_N * bpb_N) ** 2
    return next_runs.choose_sampled(predicted_RCN, predicted_RCN, noise_N, number)


def least_variance(params, ratios_CM, number, seed):
    """Minimise the mean variance over tasks and mixtures; `choose` minimises the mean of its logarithm."""
    del seed
    beliefs, picked = exact_covariances(params, ratios_CM, ratios_CM), []
    covariance_NCC, noise_N = beliefs.cross_NCQ, beliefs.noise_N
    for _ in range(number):
        noisy_NC = np.einsum("ncc->nc", covariance_NCC) + noise_N[:, None]
        gain_C = ((covariance_NCC**2).mean(axis=2) / noisy_NC).sum(axis=0)
        gain_C[picked] = -np.inf
        picked.append(int(gain_C.argmax()))
        column_NC = covariance_NCC[:, :, picked[-1]] / np.sqrt(noisy_NC[:, picked[-1], None])
        covariance_NCC = covariance_NCC - column_NC[:, :, None] * column_NC[:, None, :]
    return np.array(picked)


def near_the_best(params, ratios_CM, number, seed):
    """Choose for mixtures that may be among the best 16, by 100 posterior draws with equal task weights."""
    predicted_RCN = evaluate_each(warped_gp.LAW, warped_gp.sample(params, 100, seed), ratios_CM)
    often_C = (predicted_RCN.mean(axis=2).argsort(axis=1).argsort(axis=1) < 16).mean(axis=0)
    drawn = np.random.default_rng(seed).choice(len(often_C), 256, p=often_C / often_C.sum())
    return next_runs.choose(params, ratios_CM, ratios_CM[drawn], number)


def space_filling(params, ratios_CM, number, seed):
    """Choose the candidate furthest from all runs so far, in √p."""
    del seed
    picked, root_CM = [], np.sqrt(ratios_CM)
    far_C = ((root_CM[:, None] - np.sqrt(params.ratios_KM)[None]) ** 2).sum(axis=2).min(axis=1)
    for _ in range(number):
        picked.append(int(far_C.argmax()))
        far_C = np.minimum(far_C, ((root_CM - root_CM[picked[-1]]) ** 2).sum(axis=1))
    return np.array(picked)


WAYS = {"random": at_random, "chosen": chosen}
OTHERS = {
    "least variance": least_variance,
    "by 100 samples": chosen_sampled,
    "near the best": near_the_best,
    "space-filling": space_filling,
}


def score_batches(way, pool, held_out, first: int, last: int, seed: int) -> np.ndarray:
    """Return SCORES after every batch, [T, S]. The function ``way`` chooses each batch from the pool."""
    (ratios_KM, bpb_KN), scores_TS = pool, []
    have_K = np.arange(len(ratios_KM)) < first
    while True:
        params = warped_gp.fit(ratios_KM[have_K], bpb_KN[have_K]).params
        scores_TS.append(score(params, *held_out))
        if have_K.sum() + BATCH > last:
            return np.array(scores_TS)
        rest = np.flatnonzero(~have_K)
        have_K[rest[way(params, ratios_KM[rest], BATCH, rng.derive(seed, f"batch {have_K.sum()}"))]] = True


def score(params, ratios_KM, bpb_KN) -> tuple[float, ...]:
    predicted_KN = evaluate(warped_gp.LAW, params, ratios_KM)
    quality = scores.score(predicted_KN, bpb_KN)
    error_K = (predicted_KN - bpb_KN).mean(axis=1)
    return quality.spearman_N.mean(), quality.spearman_of_mean, quality.rmse_N.mean(), np.sqrt((error_K**2).mean())


def compare(ways, table, test, held_out: int, seeds: int, last: int, further: int) -> dict[str, np.ndarray]:
    """Return {way: scores_WTS} for W seeds, scored on ``test`` or, if it is None, on ``held_out`` runs of the table."""
    scores = {name: [] for name in ways}
    for seed in range(seeds):
        order_K = rng.generator(seed, "benchmarks.next_runs").permutation(len(table.runs))
        pool_K = order_K[held_out:]
        pool = table.ratios_KM[pool_K], table.bpb_KN[pool_K]
        out_K = order_K[:held_out]
        scored = (table.ratios_KM[out_K], table.bpb_KN[out_K]) if test is None else (test.ratios_KM, test.bpb_KN)
        for name, way in ways.items():
            limit = last + further * (name == "random")
            scores[name].append(score_batches(way, pool, scored, START, limit, seed))
        print(f"{len(table.runs)} runs: seed {seed + 1} of {seeds}", flush=True)
    return {name: np.array(scores_W) for name, scores_W in scores.items()}


def equal_runs(random_TS, score: float, column: int) -> float:
    """Return the number of random runs that reach ``score``, interpolated between batches; inf if none does."""
    better_T = random_TS[:, column] * (1 if column < 2 else -1)
    score = score * (1 if column < 2 else -1)
    runs_T = START + BATCH * np.arange(len(better_T))
    reached = np.flatnonzero(better_T >= score)
    if not len(reached):
        return np.inf
    t = reached[0]
    if t == 0:
        return float(runs_T[0])
    share = (score - better_T[t - 1]) / (better_T[t] - better_T[t - 1])
    return float(runs_T[t - 1] + share * BATCH)


def lines(scores: dict[str, np.ndarray], other: str = "chosen", every: int = 2) -> list[str]:
    """Return a Markdown table: for each K, both scores, their difference, and the random runs for the same score."""
    random_WTS, other_WTS = scores["random"], scores[other]
    seeds, times, _ = other_WTS.shape
    text = [
        "| K | score | random | " + other + " | difference ± s.e. | random runs for the same score |",
        "|---|---|---|---|---|---|",
    ]
    for t in range(every, times, every):
        for column, name in enumerate(SCORES):
            gap_W = other_WTS[:, t, column] - random_WTS[:, t, column]
            means = random_WTS[:, t, column].mean(), other_WTS[:, t, column].mean()
            same = equal_runs(random_WTS.mean(axis=0), means[1], column)
            same = f"{same:.0f}" if np.isfinite(same) else f"> {START + BATCH * (random_WTS.shape[1] - 1)}"
            text.append(
                f"| {START + BATCH * t} | {name} | {means[0]:.4f} | {means[1]:.4f} | {gap_W.mean():+.4f} ± "
                f"{gap_W.std(ddof=1) / np.sqrt(seeds):.4f} | {same} |"
            )
    return text


def draw(scores_of: dict[str, dict]) -> Figure:
    """Plot Spearman and RMSE against runs, one row per swarm; bands are ± one standard error."""
    figure = Figure(figsize=(9, 3.2 * len(scores_of)), layout="constrained")
    axes = figure.subplots(len(scores_of), 2, squeeze=False)
    for row, (swarm, by_way) in zip(axes, scores_of.items()):
        for axis, column in zip(row, (0, 2)):
            for way, scores_WTS in by_way.items():
                scores_WT = scores_WTS[:, : by_way["chosen"].shape[1], column]
                runs_T = START + BATCH * np.arange(scores_WT.shape[1])
                mean_T, error_T = scores_WT.mean(axis=0), scores_WT.std(axis=0, ddof=1) / np.sqrt(len(scores_WT))
                axis.plot(runs_T, mean_T, color=COLOURS[way], label=way, marker="o", markersize=3)
                axis.fill_between(runs_T, mean_T - error_T, mean_T + error_T, color=COLOURS[way], alpha=0.2, lw=0)
            axis.set(title=swarm, xlabel="runs K", ylabel=f"{SCORES[column]}, held-out runs")
            axis.grid(color="#e4e4e4")
        row[0].legend(frameon=False)
    return figure


def regmix(data: pathlib.Path, part: str) -> SwarmTable:
    folder = data / "regmix_1m"
    return SwarmTable.read(folder / f"{part}_mixture_1m.csv", folder / f"{part}_pile_loss_1m.csv")


def develop(data: pathlib.Path, seeds: int) -> None:
    scores = compare(WAYS | OTHERS, regmix(data, "train"), None, 160, seeds, LAST - 16, FURTHER)
    for name in list(scores)[1:]:
        print("\n".join(["", name, *lines(scores, name)]))


def report(data: pathlib.Path, seeds: int) -> None:
    begun = time.perf_counter()
    scores_of = {"RegMix, 1M": compare(WAYS, regmix(data, "train"), regmix(data, "test"), 0, seeds, LAST, FURTHER)}
    folder = data / "olmix_dclm"
    dclm = SwarmTable.read(*(folder / name for name in ("ratios.csv", "metrics.csv", "meta.json")))
    scores_of["OLMix, DCLM topics"] = compare(WAYS, dclm, None, 42, max(seeds // 3, 2), 70, 8)
    text = [
        "# Chosen next runs compared with random ones",
        "",
        f"`python -m benchmarks.next_runs --seeds={seeds}`: {(time.perf_counter() - begun) / 60:.0f} min on "
        f"{os.cpu_count()} CPU cores ({platform.machine()}), JAX {jax.__version__}. {START} random runs, then "
        f"batches of {BATCH}. After each batch `warped_gp` is fitted again and scored on held-out runs. RMSE is in "
        "the units of the swarm's losses. Standard errors are over seeds. A seed draws the starting runs and, for "
        "DCLM, the held-out runs; RegMix's test runs are always the same.",
    ]
    for swarm, by_way in scores_of.items():
        text += ["", f"## {swarm}, {len(by_way['chosen'])} seeds", "", *lines(by_way)]
    (HERE / "next_runs.md").write_text("\n".join([*text, "", "![scores against runs](next_runs.png)", ""]))
    print("\n".join(text))
    with mpl.rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        draw(scores_of).savefig(HERE / "next_runs.png", dpi=144, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("OLMIX_DATA", HERE.parents[1] / "shared" / "data")
    parser.add_argument("--data", type=pathlib.Path, default=default, help="the folder with olmix_dclm and regmix_1m")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument(
        "--develop", action="store_true", help="compare more ways of choosing, on RegMix's training runs"
    )
    args = parser.parse_args()
    (develop if args.develop else report)(pathlib.Path(args.data), args.seeds)


if __name__ == "__main__":
    main()
