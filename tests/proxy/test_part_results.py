"""proxy/part_results.py: a swarm trained in parts, and its merged results."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from olmix_jax.config import part
from olmix_jax.config.part import Part
from olmix_jax.proxy import part_results, proxy_swarm, train
from olmix_jax.proxy.train_result import TrainResult
from olmix_jax.utils import records
from olmix_jax.utils.errors import UserError
from tests.xla import fast_compile_options

PARTS = (Part(1, 3), Part(2, 3), Part(3, 3))


def write_parts(workdir, swarm, tasks, results):
    """Write a part's rows of the results of the whole swarm, for each part."""
    for piece in PARTS[::-1]:
        members = slice(piece.number - 1, None, 3)
        info = dataclasses.replace(results.info, members=len(results.died_K[members]), wall_s=float(piece.number))
        arrays = (x[members] for x in (results.bpb_KN, results.loss_KT, results.died_K))
        selected = part_results.select(swarm, piece)
        part_results.write(workdir, piece, selected, tasks.names, TrainResult(*arrays, info))


def test_merged_parts_are_the_results_of_the_whole_swarm(trained, toy_tasks, tmp_path):
    swarm, _, whole = trained
    assert part_results.merge(tmp_path, swarm, toy_tasks.names) is None
    write_parts(tmp_path, swarm, toy_tasks, whole)
    assert [part_results.select(swarm, piece).runs.names for piece in PARTS] == [
        ("run-0", "run-3"),
        ("run-1", "run-4"),
        ("run-2",),
    ]
    merged = part_results.merge(tmp_path, swarm, toy_tasks.names)
    np.testing.assert_array_equal(merged.bpb_KN, whole.bpb_KN)
    np.testing.assert_array_equal(merged.loss_KT, whole.loss_KT)
    np.testing.assert_array_equal(merged.died_K, whole.died_K)
    assert merged.info.members == 5 and [info.members for info in merged.info.parts] == [2, 2, 1]
    assert merged.info.wall_s == 3.0 and merged.info.tokens_per_second == pytest.approx(
        3 * whole.info.tokens_per_second
    )
    assert list(records.plain(merged.info))[-1] == "parts"


def test_merged_parts_have_the_scores_along_the_run(trained, toy_tasks, tmp_path):
    swarm, _, whole = trained
    along = dataclasses.replace(swarm, score_steps=(2, 3))
    bpb_KPN = np.arange(20.0).reshape(5, 2, 2)
    for piece in PARTS:
        members = slice(piece.number - 1, None, 3)
        arrays = (x[members] for x in (whole.bpb_KN, whole.loss_KT, whole.died_K))
        result = TrainResult(*arrays, whole.info, bpb_KPN[members])
        part_results.write(tmp_path, piece, part_results.select(along, piece), toy_tasks.names, result)
    np.testing.assert_array_equal(part_results.merge(tmp_path, along, toy_tasks.names).bpb_KPN, bpb_KPN)
    with pytest.raises(UserError, match="belongs to another swarm"):
        part_results.merge(tmp_path, swarm, toy_tasks.names)


@pytest.fixture
def compiled_as_for_users(monkeypatch):
    """Undo tests/xla.py: in programs that it compiles, the last bit depends on the number of members."""
    options = {option: not value for option, value in fast_compile_options().items()}
    monkeypatch.setattr(jax, "jit", functools.partial(jax.jit, compiler_options=options))
    proxy_swarm.map_members.cache_clear()
    yield
    proxy_swarm.map_members.cache_clear()


def test_training_a_part_gives_the_results_of_its_members(trained, toy_tasks, tmp_path, compiled_as_for_users):
    swarm, _, _ = trained
    whole = train.train(swarm, toy_tasks, tmp_path / "whole", "toy")
    result = train.train(part_results.select(swarm, Part(1, 3)), toy_tasks, tmp_path / "part", "toy")
    np.testing.assert_array_equal(result.bpb_KN, whole.bpb_KN[[0, 3]])
    np.testing.assert_array_equal(result.loss_KT, whole.loss_KT[[0, 3]])


def test_parts_of_another_swarm_or_other_tasks_are_refused(trained, toy_tasks, tmp_path):
    swarm, _, whole = trained
    write_parts(tmp_path, swarm, toy_tasks, whole)
    other = dataclasses.replace(swarm, train=dataclasses.replace(swarm.train, lr=0.5))
    for arguments in ((other, toy_tasks.names), (swarm, ("t", "v")), (swarm, toy_tasks.names, "another digest")):
        with pytest.raises(UserError, match=r"belongs to another swarm, or was scored on other tasks\. Delete it"):
            part_results.merge(tmp_path, *arguments)


def test_missing_or_damaged_part_raises_an_error_that_names_it(trained, toy_tasks, tmp_path):
    swarm, _, whole = trained
    write_parts(tmp_path, swarm, toy_tasks, whole)
    path = part.result_path(tmp_path, PARTS[1])
    path.write_bytes(b"damaged")
    with pytest.raises(UserError, match=r"0002-of-0003.npz: cannot be read .*train that part again"):
        part_results.merge(tmp_path, swarm, toy_tasks.names)
    path.unlink()
    with pytest.raises(UserError, match=r"1 of 3 parts are missing: 2/3\. .*--config.swarm.part=2/3"):
        part_results.merge(tmp_path, swarm, toy_tasks.names)


def test_more_parts_than_members_raise_an_error(make_swarm):
    with pytest.raises(UserError, match="5 members cannot be divided into 7 parts"):
        part_results.select(make_swarm(), Part(6, 7))
