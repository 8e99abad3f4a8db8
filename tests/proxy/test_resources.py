"""dry_run.py and proxy/ahead.py: what a swarm will need, by arithmetic and by the compiler's word."""

import dataclasses
import importlib.util
import math
import os
import pathlib
import re
import subprocess
import sys
import types

import jax
import pytest

from configs import paper
from olmix_jax import config
from olmix_jax.pipeline import runner
from olmix_jax.proxy import aot, model, resources, state
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="requirements-tpu.txt")


def settings(**changes):
    c = paper.get_config("smoke")
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


def test_a_plan_of_this_machine(tmp_path):
    made = settings(swarm_size=13, plan_price=2.0)
    runner.run(made, tmp_path, ("plan",))
    found = files.read_json(tmp_path / "plan/plan.json")
    assert found["members_per_device"] == math.ceil(13 / jax.device_count()) and found["waves"] == 1
    assert (found["steps"], found["tokens_per_member"], found["fits"]) == (20, 20 * 4 * 32, None)
    assert found["collectives_across_members"] == 0 and "hours" not in found
    parts, members = found["memory_parts_bytes"], found["members_per_device"]
    shape = model.PRESETS["1M"]
    everything = found["model"]["parameters_with_embedding"]
    assert everything == found["model"]["parameters"] + 384 * shape.width
    assert parts["weights"] == 4 * everything * members and parts["optimizer"] == 8 * everything * members
    # Weights and optimiser are what the program is given, but for the chunk of tokens and a few scalars.
    given = parts["weights"] + parts["optimizer"] + members * 4 * 33 * 4
    assert given <= parts["arguments"] <= given + 64 * (members + 1)
    assert found["memory_per_device_bytes"] == sum(parts[name] for name in ("arguments", "temporary", "outputs"))


@pytest.mark.parametrize(("memory", "fits"), [(2**40, True), (1000, False)])
def test_a_device_that_no_list_has_says_how_much_it_holds(tmp_path, monkeypatch, memory, fits):
    device = types.SimpleNamespace(device_kind="A card", process_index=0, memory_stats=lambda: {"bytes_limit": memory})
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(
        aot, "compile_steps", lambda *_: {"arguments": 1, "temporary": 2000, "outputs": 0, "collectives": 0}
    )
    found = resources.plan(settings(swarm_size=1), tmp_path)
    assert found["fits"] is fits and "hours" not in found
    assert ("which fits" if fits else "which does not fit") in resources.summary(found)


def test_operations_of_a_token_by_hand():
    """30M at 2048: 6 · 29,102,336 + 12 · 4 · 8 · 32 · 2048 (METHOD §4)."""
    assert resources.flops_per_token(model.PRESETS["30M"], 29_102_336, 2048) == 174_614_016 + 25_165_824
    assert resources.flops_per_token(model.PRESETS["1M"], 10, 4) == 60 + 12 * 4 * 4 * 4 * 4


# Of what says how large a member is at least, all that is asked here.
MEMBER = types.SimpleNamespace(memory=300)


def test_members_that_do_not_fit_go_in_waves(monkeypatch):
    needs = []

    def compiled(member, shape, members, devices):
        needs.append(members // len(devices))
        return {"arguments": 300 * needs[-1], "temporary": 100 + 50 * needs[-1], "outputs": 0, "collectives": 0}

    monkeypatch.setattr(aot, "compile_steps", compiled)
    found, per_device = aot.fitting(MEMBER, (1,), 32, [None, None], 1840)
    # 350 · 4 + 100 = 1500 is within 1840, and 350 · 5 + 100 = 1850 is not; of 7, the weights alone would be too large.
    assert per_device == 4 and found["arguments"] == 1200 and needs[0] == 6 and len(needs) <= 3
    # What not even one fits in is said, not hidden.
    assert aot.fitting(MEMBER, (1,), 32, [None, None], 300)[1] == 1


def test_hours_and_cost():
    chip = resources.Chip(1e12, 1e12, 1e12)
    content = {"members_per_device": 2, "flops_per_token": 1e6, "tokens_per_step": 1000, "waves": 3, "devices": 4}
    made = settings(plan_price=2.0, plan_utilisation=0.5, train_steps=3600)
    found = resources._time(made, chip, content, 1_000_000)
    # 2 · 10⁹ operations a step: 2 ms, 4 ms at half of the peak; 3 · 3600 steps.
    assert found["roofline_seconds_per_step"]["compute"] == pytest.approx(2e-3)
    assert found["hours"] == pytest.approx(3 * 4e-3) and found["cost"] == pytest.approx(2 * 4 * 3 * 4e-3)
    assert found["bound_by"] == "compute"
    # Where memory is what a step waits for, no utilisation helps.
    slow = resources._time(made, dataclasses.replace(chip, bandwidth=1e9), content, 1_000_000)
    assert slow["bound_by"] == "memory" and slow["hours"] == pytest.approx(3 * (28 + 12 * 2) * 2e-3)
    assert found["roofline_seconds_per_step"]["memory"] == pytest.approx((28 + 12 * 2) * 1e6 * 2 / 1e12)


def test_the_papers_trainer():
    """Of METHOD §4: tokens, steps, warm-up, learning rate."""
    made = config.from_dict(paper.get_config("30M"))
    assert made.train.batch * made.proxy.length * made.train.steps == 2_910_191_616 <= 2_910_233_600
    assert round(made.train.warmup * made.train.steps) == 54_792_448 // (64 * 4096) == 209
    for preset, number in paper.PARAMETERS.items():
        decoder = model.Decoder(model.PRESETS[preset], 100_352)
        params = jax.eval_shape(decoder.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 2), "int32"))
        assert sum(x.size for x in jax.tree.leaves(params)) == number
        made_of = config.from_dict(paper.get_config(preset)).train
        assert round(made_of.warmup * made_of.steps) == round(number / (made_of.batch * 4096))
    target = config.from_dict(paper.get_config("1B"))
    assert (target.train.batch, target.proxy.length, target.train.lr) == (512, 4096, 0.0018)
    assert 0 <= 100e9 - target.train.steps * 512 * 4096 < 512 * 4096
    from olmix_jax.proxy import optimizer

    assert optimizer.learning_rate(made.train, 29_102_336) == pytest.approx(0.00728, abs=5e-6)
    schedule = optimizer.schedule(made.train, 0.00728)
    rates = [float(schedule(step)) for step in (0, 208, 209, made.train.steps - 1)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.00728) and rates[3] == pytest.approx(0.000728, rel=1e-3)


def test_what_is_not_known_is_said(tmp_path):
    with pytest.raises(UserError, match="set swarm.size, or run --stages=prepare first"):
        runner.run(settings(swarm_size=None), tmp_path, ("plan",))


@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_tpu_topologies_compile_without_one(tmp_path, topology):
    found = resources.plan(settings(swarm_size=8, plan_topology=topology, plan_price=1.0), tmp_path)
    assert found["devices"] in (4, 8) and found["collectives_across_members"] == 0 and found["fits"]
    assert found["hours"] > 0 and found["cost"] == pytest.approx(found["device_hours"])


@needs_libtpu
@pytest.mark.slow
def test_512_proxies_of_30m_on_256_chips(tmp_path):
    """The plan of docs/scale.md, by its command."""
    here = pathlib.Path(__file__).parents[2]
    (command,) = re.findall(
        r"^    python (run.py .*--stages=plan.*\\\n.*v5e:16x16.*)$", (here / "docs/scale.md").read_text(), re.M
    )
    arguments = command.replace("\\\n", " ").replace("runs/dry", str(tmp_path)).split()
    # The compiler is to be as users have it.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    subprocess.run([sys.executable, *arguments], cwd=here, env=environment, check=True)
    found = files.read_json(tmp_path / "plan/plan.json")
    assert (found["members"], found["devices"], found["members_per_device"], found["waves"]) == (512, 256, 2, 1)
    assert found["model"]["parameters"] == 29_102_336 and found["collectives_across_members"] == 0
    assert found["fits"] and found["memory_per_device_bytes"] == pytest.approx(3.23 * 2**30, rel=0.02)
    assert found["hours"] == pytest.approx(4.1, rel=0.02)
    assert found["roofline_seconds_per_step"]["compute"] == pytest.approx(0.27, rel=0.02)


@needs_libtpu
def test_what_the_compiler_gives_up_is_no_traceback(tmp_path):
    """Attention's scores of 256 sequences of 2048 are twice what a chip has: the plan says so, and what to lower."""
    more = {"proxy_length": 2048, "proxy_preset": "30M", "train_batch": 256, "train_micro_batch": None}
    found = resources.plan(settings(swarm_size=8, plan_topology="v5e:2x2", **more), tmp_path)
    assert not found["fits"] and found["members_per_device"] == 1 and found["collectives_across_members"] is None
    assert found["memory_per_device_bytes"] > 16 * 2**30 and "lower train.micro_batch" in resources.summary(found)


def test_members_that_do_not_compile_are_halved(monkeypatch):
    def compiled(member, shape, members, devices):
        fits = members // len(devices) <= 3
        return {"arguments": 1, "temporary": 1 if fits else math.inf, "outputs": 0, "collectives": 0 if fits else None}

    monkeypatch.setattr(aot, "compile_steps", compiled)
    assert aot.fitting(MEMBER, (1,), 32, [None, None], 100 * 300)[1] == 2


@needs_libtpu
def test_a_topology_that_is_none_is_named(tmp_path):
    with pytest.raises(UserError, match="plan.topology.*v9z:2x2.*none that the compiler knows"):
        resources.plan(settings(plan_topology="v9z:2x2"), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="it is installed")
def test_without_the_compiler_the_way_to_it_is_named(tmp_path):
    with pytest.raises(UserError, match="pip install -r requirements-tpu.txt"):
        resources.plan(settings(plan_topology="v5e:2x2"), tmp_path)


def test_collectives_are_counted():
    """A program that does communicate is found out: the count is no constant."""
    from jax.sharding import NamedSharding, PartitionSpec

    from olmix_jax.proxy import sharding

    mesh = sharding._mesh()
    if len(mesh.devices) < 2:
        pytest.skip("one device cannot communicate")
    where = NamedSharding(mesh, PartitionSpec("member"))
    x = jax.ShapeDtypeStruct((len(mesh.devices), 4), "float32", sharding=where)
    text = jax.jit(lambda x: x - x.mean(axis=0, keepdims=True)).lower(x).compile().as_text()
    assert len(aot._COLLECTIVE.findall(text)) > 0


@pytest.mark.slow
def test_the_step_is_the_one_that_is_trained():
    """What is compiled ahead is a member's own code, mapped as training maps it."""
    train = dataclasses.replace(settings().train, micro_batch=None)
    member = state.member(model.PRESETS["1M"], 384, train)
    found = aot.compile_steps(member, (1, 4, 33), 2 * jax.device_count(), jax.devices())
    assert found["collectives"] == 0 and found["temporary"] > 0
