"""Compare the law in exposures on runs of two lengths with laws of weights, where the truth is known.

python -m experiments.laws_at_their_optimum.lengths --scale=cpu --workdir=runs/lengths

A world has four domains, two tasks, and 40 runs: half of 1e9 tokens and half of 4e9, half with the whole pools and half
with a quarter. ``results.json`` has a row per world and target for predictions of new mixtures, and one per world and
target for the gain of a proposal, far beyond the longest run too.
"""

import dataclasses
import pathlib
import time
from collections.abc import Callable

import numpy as np

from benchmarks.laws_page import table
from experiments import common
from experiments.laws_at_their_optimum import worlds
from olmix_jax.laws import LAWS, FittedLaw
from olmix_jax.propose import make_proposal
from olmix_jax.propose.options import Options
from olmix_jax.propose.swarm_facts import SwarmFacts
from olmix_jax.swarm.lengths import Lengths
from olmix_jax.utils.progress import log

UNIQUE_M = np.array([0.8, 0.4, 0.2, 0.4]) * 1e9
NATURAL_M = UNIQUE_M / UNIQUE_M.sum()
DOMAINS, TASKS = ("a", "b", "c", "d"), ("x", "y")
SHORT, LONG = 1e9, 4e9
# Noise of a score, relative; mixtures that predictions are judged on; draws behind the interval of a gain.
NOISE, NEW, SAMPLES = 0.002, 300, 100
# Half-width of a 90 % interval in standard deviations.
REACH = 1.645
# Training tokens of the targets of predictions and of proposals.
TARGETS, FAR = (4e9, 8e9), (4e9, 1.6e10, 6.4e10, 2.56e11)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Worlds per truth, for predictions and for gains, and runs in a swarm."""

    worlds: int
    gains: int
    runs: int


SCALES = {"smoke": Scale(1, 1, 12), "cpu": Scale(10, 3, 40)}


@dataclasses.dataclass(frozen=True)
class Row:
    """Predictions of new mixtures at a target with the whole pools [BPB].

    Attributes:
      truth, seed, target: the world, and training tokens.
      rmse: by law; the first is ``exposure`` with lengths.
      spread: RMSE without the mean error, by law.
      covers: share of the truth in the 90 % interval of the first law.
    """

    truth: str
    seed: int
    target: float
    rmse: dict[str, float]
    spread: dict[str, float]
    covers: float


@dataclasses.dataclass(frozen=True)
class GainRow:
    """Gain of a proposal over natural at a target whose pools are as much larger as it is longer [BPB]."""

    truth: str
    seed: int
    target: float
    expected: float
    low: float
    high: float
    true: float


def _benefit(help_NM, ratios_KM):
    return (1 - np.exp(-ratios_KM / 0.15)) @ help_NM.T


def _log(ratios_KM, tokens_K1, unique_KM, help_NM, harm_NM):
    return 0.7 + 0.6 * np.exp(-0.15 * np.log(tokens_K1 / 1e9) - _benefit(help_NM, ratios_KM))


def _harm(ratios_KM, tokens_K1, unique_KM, help_NM, harm_NM):
    log_KN = np.log1p((ratios_KM * tokens_K1 / unique_KM / 6) ** 2) @ harm_NM.T - 0.15 * np.log(tokens_K1 / 1e9)
    return 0.7 + 0.6 * np.exp(log_KN - _benefit(help_NM, ratios_KM))


def _apart(ratios_KM, tokens_K1, unique_KM, help_NM, harm_NM):
    return 0.7 + 0.25 * (tokens_K1 / 1e9) ** -0.2 + 0.6 * np.exp(-_benefit(help_NM, ratios_KM))


def _tokens(ratios_KM, tokens_K1, unique_KM, help_NM, harm_NM):
    return 0.7 + (1 + ratios_KM * tokens_K1 / 3e7) ** -0.3 @ help_NM.T


def _worn(ratios_KM, tokens_K1, unique_KM, help_NM, harm_NM):
    epochs_KM = ratios_KM * tokens_K1 / unique_KM
    more_KM = np.maximum(epochs_KM - 1, 0)
    worth_KM = np.minimum(epochs_KM, 1) + worlds.WORTH * (1 - np.exp(-more_KM / worlds.WORTH))
    return 0.7 + (1 + worth_KM * unique_KM / 3e7) ** -0.3 @ help_NM.T


# BPB from mixtures, tokens, unique tokens, and the coefficients of help and harm.
TRUTHS: dict[str, Callable] = {
    "log (f − c): benefit and −.15 log R": _log,
    "the same and harm": _harm,
    "c + .25 R^−.2 + .6 exp(−benefit)": _apart,
    "c + Σ a_j (1 + x_j)^−.3": _tokens,
    "the same, repeated tokens worth less": _worn,
}


@dataclasses.dataclass(frozen=True, eq=False)
class World:
    """A truth and a swarm that measured it."""

    truth: str
    ratios_KM: np.ndarray
    lengths: Lengths
    bpb_KN: np.ndarray
    coefficients: tuple[np.ndarray, np.ndarray]

    def true(self, ratios_KM, tokens: float | np.ndarray, unique_KM) -> np.ndarray:
        """Return BPB without noise."""
        ratios_KM = np.asarray(ratios_KM)
        tokens_K1 = np.broadcast_to(tokens, len(ratios_KM))[:, None]
        unique_KM = np.broadcast_to(unique_KM, ratios_KM.shape)
        return TRUTHS[self.truth](ratios_KM, tokens_K1, unique_KM, *self.coefficients)

    def measured(self, tokens, unique_KM, seed: int) -> np.ndarray:
        """Return noisy scores of the swarm's mixtures."""
        noise_KN = np.random.default_rng(seed).normal(size=(len(self.ratios_KM), len(TASKS)))
        return self.true(self.ratios_KM, tokens, unique_KM) * (1 + NOISE * noise_KN)


def drawn(truth: str, runs: int, seed: int) -> World:
    """Draw a world."""
    draw, shape = np.random.default_rng(seed), (len(TASKS), len(DOMAINS))
    coefficients = draw.uniform(0.05, 0.5, shape), draw.uniform(0.03, 0.12, shape)
    ratios_KM = draw.dirichlet(np.full(len(DOMAINS), 0.7), size=runs)
    tokens_K = draw.permutation(np.resize([SHORT, LONG], runs))
    lengths = Lengths(tokens_K, UNIQUE_M / draw.permutation(np.resize([1, 4], runs))[:, None])
    world = World(truth, ratios_KM, lengths, np.zeros((runs, len(TASKS))), coefficients)
    return dataclasses.replace(world, bpb_KN=world.measured(*lengths, seed + 1))


def predictions(world: World, seed: int) -> list[Row]:
    """Return a row for each target."""
    exposure, warped = LAWS["exposure"], LAWS["warped_gp"]
    swarm, long_K = (world.ratios_KM, world.bpb_KN), world.lengths.tokens_K == LONG
    ours = FittedLaw(exposure, exposure.fit(*swarm, lengths=world.lengths).params)
    of_weights = exposure.fit(*swarm).params
    of_long = warped.fit(*(x[long_K] for x in swarm)).params
    new_KM = np.random.default_rng(seed + 2).dirichlet(np.full(len(DOMAINS), 0.7), size=NEW)
    rows = []
    for target in TARGETS:
        true_KN, aimed = world.true(new_KM, target, UNIQUE_M), ours.aimed(target, UNIQUE_M)
        of_target = warped.fit(world.ratios_KM, world.measured(target, UNIQUE_M, seed + 3)).params
        spread_KN = aimed.spread(new_KM)
        assert spread_KN is not None
        error = {
            "`exposure` with lengths": aimed.predict(new_KM) - true_KN,
            "`exposure`, weights alone": FittedLaw(exposure, of_weights).predict(new_KM) - true_KN,
            "`warped_gp`, the long runs": FittedLaw(warped, of_long).predict(new_KM) - true_KN,
            "`warped_gp`, as many runs at the target": FittedLaw(warped, of_target).predict(new_KM) - true_KN,
        }
        first_KN = next(iter(error.values()))
        rmse = {name: float((of_KN**2).mean() ** 0.5) for name, of_KN in error.items()}
        spread = {name: float(of_KN.var(axis=0).mean() ** 0.5) for name, of_KN in error.items()}
        covers = float((np.abs(first_KN) <= REACH * spread_KN).mean())
        rows.append(Row(world.truth, seed, target, rmse, spread, covers))
    return rows


def gains(world: World, seed: int) -> list[GainRow]:
    """Return a row for each target, at the longest run and beyond it."""
    law, rows = LAWS["exposure"], []
    params = law.fit(world.ratios_KM, world.bpb_KN, lengths=world.lengths).params
    fitted = FittedLaw(law, params, law.sample(params, SAMPLES, seed))
    facts = SwarmFacts(TASKS, DOMAINS, NATURAL_M, ratios_KM=world.ratios_KM, bpb_KN=world.bpb_KN, lengths=world.lengths)
    for target in FAR:
        unique_M = UNIQUE_M * target / LONG
        options = Options(kl_weight=0.01, target_tokens=target, max_repeats=worlds.REPEATS, explore=False)
        proposal = make_proposal.propose(fitted, dataclasses.replace(facts, tokens_M=unique_M), options, seed=seed)
        mixtures_2M = np.array([NATURAL_M, list(proposal.weights.values())])
        natural, proposed = world.true(mixtures_2M, target, unique_M).mean(axis=1).tolist()
        gain = proposal.gain
        assert gain is not None
        rows.append(GainRow(world.truth, seed, target, gain.mean, gain.low, gain.high, natural - proposed))
    return rows


def summary(rows: list[Row], gain_rows: list[GainRow]) -> str:
    """Return the two tables."""
    lines, gain_lines = [], []
    for truth in TRUTHS:
        for target in TARGETS:
            of = [row for row in rows if (row.truth, row.target) == (truth, target)]
            cells = [_means(of, name) for name in of[0].rmse]
            lines.append((truth, f"{target:.0e}", cells[0], f"{np.mean([row.covers for row in of]):.2f}", *cells[1:]))
        for target in FAR:
            there = [row for row in gain_rows if (row.truth, row.target) == (truth, target)]
            expected, true = (np.mean([getattr(row, name) for row in there]) for name in ("expected", "true"))
            holds = f"{sum(row.low <= row.true <= row.high for row in there)} of {len(there)}"
            gain_lines.append((truth, f"{target / LONG:g}", f"{expected:.4f}", f"{true:.4f}", holds))
    first, *others = rows[0].rmse
    tables = table(("truth", "R*", first, "covers", *others), lines)
    return f"{tables}\n\n{table(('truth', 'R* / longest run', 'expected gain', 'true', '5–95 % holds it'), gain_lines)}"


def _means(rows: list[Row], name: str) -> str:
    """Return the mean over worlds of RMSE and, in brackets, of RMSE without the mean error."""
    both = ([getattr(row, field)[name] for row in rows] for field in ("rmse", "spread"))
    total, spread = (float(np.mean(values)) for values in both)
    return f"{total:.4f} ({spread:.4f})"


def run(scale: Scale, workdir: pathlib.Path, seed: int) -> tuple[list[Row], list[GainRow]]:
    """Judge the law in all worlds of a scale, and write the rows."""
    rows, gain_rows, begun = [], [], time.process_time()
    for truth in TRUTHS:
        for number in range(1000 * seed + 100, 1000 * seed + 100 + scale.worlds):
            world = drawn(truth, scale.runs, number)
            rows += predictions(world, number)
            gain_rows += gains(world, number) if number % 100 < scale.gains else []
        log.info("%s, %.0f CPU s", truth, time.process_time() - begun)
    results = {"rows": [dataclasses.asdict(row) for row in rows], "gains": [dataclasses.asdict(r) for r in gain_rows]}
    common.write_results(workdir, results | {"cpu_seconds": time.process_time() - begun})
    return rows, gain_rows


def main() -> None:
    flags = common.arguments(__doc__, tuple(SCALES))
    print(summary(*run(SCALES[flags.scale], flags.workdir, flags.seed)))


if __name__ == "__main__":
    main()
