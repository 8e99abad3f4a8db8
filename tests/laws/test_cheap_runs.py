"""Fits of tables with cheap runs: the law that is chosen, the record of what the cheap runs bring, and its sentence."""

import dataclasses

import numpy as np
import pytest

from olmix_jax import laws
from olmix_jax.laws import cheap_runs, fitting, params_files, two_fidelity
from olmix_jax.laws.cheap_result import CheapRuns
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.swarm.fidelity import Cheap
from olmix_jax.swarm.table import SwarmTable
from tests.laws.test_two_fidelity import DOMAINS, TASKS, world


def swarm(seed=0, real=8, cheap=40, **options):
    """Return a table of real and cheap runs over domains of equal sizes."""
    runs, (cheap_JM, cheap_JN), _ = world(seed, real, cheap, **options)
    ids = [tuple(f"{kind}{k}" for k in range(number)) for kind, number in (("real", real), ("cheap", cheap))]
    domains, tasks = tuple("abcde"), tuple(f"t{i}" for i in range(TASKS))
    natural_M = np.full(DOMAINS, 1 / DOMAINS)
    facts = ids[0], domains, tasks, *runs, natural_M, None, ids[0]
    return SwarmTable(*facts, cheap=Cheap(ids[1], cheap_JM, cheap_JN))


def options(law="two_fidelity", **changes):
    return fitting.Options(**({"law": law, "starts": 4, "folds": 4, "resamples": 5, "seed": 0} | changes))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fit")
    fitting.fit(swarm(), options(), path).write(path / "fit.json")
    return path


def test_fit_of_both_kinds_is_scored_on_real_runs_and_read_back(folder):
    result = FitResult.read(folder / "fit.json")
    assert result.law == "two_fidelity" and result.runs == swarm().runs and len(result.fold) == 8
    found = result.cheap
    assert (found.runs, found.used) == (40, True) and found.rmse_cv == pytest.approx(result.rmse_cv_mean)
    assert abs(found.slope - 2) < 4 * found.slope_error < 1
    assert found.rmse_cv < 0.5 * found.rmse_cv_alone and found.spearman_cv > found.spearman_cv_alone
    fitted = params_files.load_fitted(folder, laws.LAWS["two_fidelity"])
    held_out_KM, true_KN = world(0, 8)[2]
    assert np.abs(fitted.predict(held_out_KM) / true_KN - 1).mean() < 0.02
    assert fitted.predict_samples(held_out_KM).shape == (5, 60, TASKS)


def test_unconfirmed_cheap_runs_are_named_and_leave_the_law_of_the_real_runs(tmp_path):
    table = swarm(1, 12, related=False)
    result = fitting.fit(table, options(), tmp_path)
    alone = fitting.fit(dataclasses.replace(table, cheap=None), options("floored_gp"), tmp_path / "alone")
    assert not result.cheap.used and result.cheap.cheap_worth == 0
    for task in table.tasks:
        np.testing.assert_allclose(result.predicted_cv[task], alone.predicted_cv[task], rtol=1e-9)
    assert result.cheap.rmse_cv == pytest.approx(result.cheap.rmse_cv_alone, rel=1e-9)
    assert "do not confirm the 40 cheap runs" in str(result.cheap)
    assert str(result.cheap).endswith("add real runs, or cheap runs that are closer to them")


def test_cache_key_has_the_cheap_runs():
    table = swarm()
    other = dataclasses.replace(table, cheap=table.cheap._replace(bpb_JN=table.cheap.bpb_JN + 1e-9))
    keys = {fitting.key(of, options()) for of in (table, other, dataclasses.replace(table, cheap=None), swarm())}
    assert len(keys) == 3


def test_cheap_runs_replace_the_default_law_only(caplog):
    table = swarm()
    without = dataclasses.replace(table, cheap=None)
    chosen = [fitting.law_for(name, table) for name in ("floored_gp", "two_fidelity", "log_linear")]
    assert chosen == ["two_fidelity", "two_fidelity", "log_linear"]
    assert fitting.law_for("floored_gp", without) == "floored_gp"
    assert fitting.base_of(laws.LAWS["two_fidelity"], without) == {}
    assert not caplog.text
    assert fitting.base_of(laws.LAWS["log_linear"], table) == {}
    assert "log_linear leaves out 40 cheap runs; set fit.law=two_fidelity" in caplog.text


def test_worth_follows_from_the_parts_of_the_variance():
    table = swarm()
    params = two_fidelity.LAW.fit(table.ratios_KM, table.bpb_KN, **fitting.base_of(two_fidelity.LAW, table)).params
    real, cheap = cheap_runs.worth(params, table, 0)
    # Shares of a ninth for a ninth real run, and of 10/50 for ten more cheap runs.
    assert 0 < real < 1 / 9 and 0 < cheap < 0.2 and 9 * real + 5 * cheap == pytest.approx(1)
    # A cheap law without errors leaves nothing to further cheap runs; exact slopes leave little to real ones.
    sure = params.cheap._replace(scale_N=1e-9 * params.cheap.scale_N)
    assert cheap_runs.worth(params._replace(cheap=sure), table, 0)[1] < 0.01
    unsure = params._replace(common_error_N=params.common_error_N + 1)
    assert cheap_runs.worth(unsure, table, 0)[0] > 0.9 / 9


def test_sentence_has_both_scores_and_what_further_runs_are_worth():
    record = CheapRuns(40, True, 2.0, 0.05, 0.012, 0.034, 0.9, 0.5, 0.06, 0.11)
    assert str(record) == (
        "the real runs confirm the 40 cheap runs: an effect is 2.00 ± 0.05 times theirs; held-out RMSE 0.0120 BPB with "
        "them and 0.0340 without; one more real run would lower the variance of predicted effects by 6 %, ten more "
        "cheap ones by 11 %"
    )
