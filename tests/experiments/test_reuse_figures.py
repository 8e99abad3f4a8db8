"""The orderings in the paper's figures 13, 14 and 17, on solved updates.

With -s, the tests print the figures of docs/theory.md.
"""

import numpy as np

from experiments.reuse_theory import cost_bounds
from tests.experiments.solved_updates import (
    CENTRED,
    COLUMN,
    FIXED,
    NEW,
    capped,
    collapsed,
    minimise,
    optima,
    solve,
    spearman,
    wanted_case,
)


def test_source_moves_more_weight_when_its_cap_is_loose():
    """Figures 13 and 14: 300 sources, added for runs of 1T and 6T tokens. Lists are [all, 1T, 6T] or [1T, 6T]."""
    rng = np.random.default_rng(3)
    cases = [wanted_case(rng, int(rng.integers(1, NEW + 1)), 1.5)[0] for _ in range(300)]
    solutions = solve([capped(case, target) for target in (1, 6) for case in cases])
    gap_RP, loss_RP, moved_RP = (
        np.reshape(x, (2, -1))
        for x in (
            [s.gap for s in solutions],
            [s.loss for s in solutions],
            [cost_bounds.constants(s.update).moved for s in solutions],
        )
    )
    assert gap_RP.shape == (2, 300)
    figures = {
        "gap, loss": [spearman(gap_RP.ravel(), loss_RP.ravel()), *map(spearman, gap_RP, loss_RP)],
        "moved, gap": [spearman(moved_RP.ravel(), gap_RP.ravel()), *map(spearman, moved_RP, gap_RP)],
        "medians": [np.median(x, axis=1).tolist() for x in (moved_RP, gap_RP, loss_RP)],
        "M > 0": [
            sum(cost_bounds.constants(s.update).price > 1e-9 for s in half) / 300
            for half in (solutions[:300], solutions[300:])
        ],
        "more at 1T": [float((x[0] > x[1]).mean()) for x in (moved_RP, gap_RP, loss_RP)],
    }
    print("Figures 13, 14", figures)
    assert min(figures["gap, loss"] + figures["moved, gap"]) > 0.7
    assert figures["more at 1T"][0] > 0.95 and figures["more at 1T"][1] > 0.85


def test_coupling_is_least_without_the_domain_that_shares_tasks_with_the_new_one():
    """Figure 17: one unaffected domain helps the same tasks as the new one; 200 draws."""
    rng, cases, planted_P = np.random.default_rng(2), [], np.arange(200) % FIXED
    for planted in planted_P:
        case, helped = wanted_case(rng, 1, 1.5)
        case.coef_NM[helped, planted] -= 1.5
        cases.append(capped(case, 1))
    old, full = optima(cases, "gone_M"), optima(cases, "new_M")
    # First no domain is recomputed, then each one in turn.
    kept = [cases[0].fixed_M & (COLUMN != j) for j in range(-1, FIXED)]
    problems = [collapsed(case, q_M, kept_M) for kept_M in kept for case, q_M in zip(cases, old.weights_M)]
    value_PV = minimise(cases * len(kept), *zip(*problems)).value.reshape(len(kept), -1).T
    loss_PV = value_PV - full.value[: len(cases), None]
    loss_P, loss_PF = loss_PV[:, 0], loss_PV[:, 1:]
    assert (loss_PF <= loss_P[:, None] + 1e-12).all()
    rank_PF, planted_P1 = loss_PF.argsort(axis=1).argsort(axis=1), planted_P[:, None]
    rank_P = np.take_along_axis(rank_PF, planted_P1, 1)[:, 0]

    def recovered(choice_P):
        return float(1 - np.take_along_axis(loss_PF, choice_P[:, None], 1).sum() / loss_P.sum())

    figures = {"truly best, of the best two": [float((rank_P < best).mean()) for best in (1, 2)]}
    figures["recovered: best, mean"] = recovered(loss_PF.argmin(1)), float(1 - loss_PF.mean() / loss_P.mean())
    fixed_M = COLUMN[: FIXED + 1] < FIXED
    for centred in CENTRED:
        choice_P = np.array(
            [cost_bounds.coupling_without(c.coef_NM[:, : FIXED + 1], fixed_M, centred).argmin() for c in cases]
        )
        figures[centred] = float((choice_P == planted_P).mean()), recovered(choice_P)
        assert figures[centred][0] >= 0.9 and figures[centred][1] > 0.75
    print("Figure 17", figures)
    assert figures["truly best, of the best two"] >= [0.6, 0.8]
