"""proxy/resources.py: what training a swarm needs."""

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
from olmix_jax.proxy import aot, model, optimizer, resources
from olmix_jax.proxy.chips import Chip
from olmix_jax.proxy.resource_plan import ResourcePlan
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils.errors import UserError

needs_libtpu = pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs requirements-tpu.txt")


def settings(**changes):
    c = paper.get_config("smoke")
    for name, value in changes.items():
        section, field = name.split("_", 1)
        c[section][field] = value
    return config.from_dict(c)


def test_plan_of_this_machine(tmp_path, monkeypatch):
    shape = model.Shape(8, 1, 2, 16)
    monkeypatch.setitem(model.PRESETS, "tiny", shape)
    made = settings(swarm_size=13, plan_price=2.0, proxy_preset="tiny", proxy_dtype="float32", validate_steps=7)
    resources.run(made, tmp_path, validation_models=3)
    plan = ResourcePlan.read(tmp_path / "plan/plan.json")
    assert (plan.validation.members, plan.validation.steps) == (3, 7)
    assert plan.members_per_device == math.ceil(13 / jax.device_count()) and plan.waves == 1
    assert (plan.steps, plan.tokens_per_member, plan.fits) == (20, 20 * 4 * 32, None)
    assert plan.collectives_across_members == 0 and plan.hours is None and plan.cost is None
    parts, members = plan.memory_parts_bytes, plan.members_per_device
    parameters = plan.model.parameters_with_embedding
    assert parameters == plan.model.parameters + 384 * shape.width
    assert plan.checkpoint_bytes == 12 * parameters * 13
    assert parts.weights == 4 * parameters * members and parts.optimizer == 8 * parameters * members
    # The arguments of the program are weights, optimiser, the tokens of one dispatch and a few scalars.
    arguments = parts.weights + parts.optimizer + members * 4 * 33 * 4
    assert arguments <= parts.arguments <= arguments + 64 * (members + 1)
    assert plan.memory_per_device_bytes == parts.arguments + parts.temporary + parts.outputs


@pytest.mark.parametrize(("memory", "fits"), [(2**40, True), (1000, False)])
def test_plan_of_an_unlisted_device_uses_the_memory_it_reports(tmp_path, monkeypatch, memory, fits):
    device = types.SimpleNamespace(device_kind="A card", process_index=0, memory_stats=lambda: {"bytes_limit": memory})
    monkeypatch.setattr(jax, "devices", lambda: [device])
    monkeypatch.setattr(aot, "compile_steps", lambda *_: aot.CompiledStep(1, 1, 2000, 0, 0))
    plan = resources.plan_resources(settings(swarm_size=1), tmp_path)
    assert plan.fits is fits and plan.hours is None
    assert ("which fits" if fits else "which does not fit") in plan.describe()


def test_flops_per_token_by_hand():
    """30M at 2048: 6 · 29,102,336 + 12 · 4 · 8 · 32 · 2048 (METHOD §4)."""
    assert resources.flops_per_token(model.PRESETS["30M"], 29_102_336, 2048) == 174_614_016 + 25_165_824
    assert resources.flops_per_token(model.PRESETS["1M"], 10, 4) == 60 + 12 * 4 * 4 * 4 * 4


def test_hours_and_cost_of_a_compute_bound_plan(plan):
    chip = Chip(1e12, 1e12, 1e12)
    timed = resources.with_time(plan, chip, settings(plan_price=2.0, plan_utilisation=0.5, train_steps=3600))
    # 2 · 10⁹ operations per step take 2 ms, or 4 ms at half of the peak; 3 · 3600 steps.
    assert timed.roofline_seconds_per_step.compute == pytest.approx(2e-3)
    assert timed.roofline_seconds_per_step.memory == pytest.approx((28 + 12 * 2) * 1e6 * 2 / 1e12)
    assert timed.hours == pytest.approx(3 * 4e-3) and timed.cost == pytest.approx(2 * 4 * 3 * 4e-3)
    assert timed.bound_by == "compute" and "hours at 50 % of peak, 0 for 0 device hours" in timed.describe()


def test_utilisation_does_not_change_the_hours_of_a_memory_bound_plan(plan):
    chip = Chip(1e12, 1e12, 1e9)
    timed = resources.with_time(plan, chip, settings(plan_utilisation=0.5, train_steps=3600))
    assert timed.bound_by == "memory" and timed.hours == pytest.approx(3 * (28 + 12 * 2) * 2e-3)
    assert timed.cost is None and timed.describe().endswith("hours limited by memory bandwidth")


def test_hours_of_branches_are_those_of_their_steps_and_of_one_trunk(plan):
    chip, made = Chip(1e12, 1e12, 1e12), settings(plan_utilisation=0.5, train_steps=3600)
    branched = resources.with_time(dataclasses.replace(plan, trunk_steps=2700), chip, made)
    # 4 ms per step of two members on each device; a step of the trunk is one of one member. There are 3 waves.
    assert branched.hours == pytest.approx((3 * 900 * 4e-3 + 2700 * 2e-3) / 3600)
    assert branched.full_proxies == (2700 + 24 * 900) / 3600
    assert "3 waves of 900 steps" in branched.describe()
    assert "a trunk of 2,700 steps on one device before: with it the tokens of 6.8 of 24 full" in branched.describe()
    assert plan.full_proxies == 24 and "trunk" not in plan.describe()
    # Sharded over all devices, members and trunk take the same time per step.
    sharded = dataclasses.replace(plan, members_per_device=0.25, waves=24)
    full, branched = (
        resources.with_time(dataclasses.replace(sharded, trunk_steps=steps), chip, made) for steps in (0, 2700)
    )
    assert branched.hours == pytest.approx(full.hours * branched.full_proxies / 24)


@pytest.mark.slow
def test_plan_of_a_branched_swarm(tmp_path, monkeypatch):
    monkeypatch.setitem(model.PRESETS, "tiny", model.Shape(8, 1, 2, 16))
    made = {"proxy_preset": "tiny", "proxy_dtype": "float32", "swarm_size": 12}
    full, branched = (
        resources.plan_resources(settings(**made, swarm_trunk=share), tmp_path, validation_models=3)
        for share in (0.0, 0.75)
    )
    assert (full.trunk_steps, branched.trunk_steps, branched.steps) == (0, 15, 20)
    assert branched.flops == pytest.approx(full.flops * branched.full_proxies / 12) and branched.full_proxies == 3.75
    assert branched.validation == full.validation


def test_plan_of_merged_members_adds_their_experts(tmp_path, monkeypatch):
    monkeypatch.setitem(model.PRESETS, "tiny", model.Shape(8, 1, 2, 16))
    made = {"proxy_preset": "tiny", "proxy_dtype": "float32", "swarm_size": 5}
    merged = settings(**made, swarm_trunk=0.75, swarm_merged=40)
    with pytest.raises(UserError, match="the number of members is unknown. Run --stages=prepare first"):
        resources.plan_resources(merged, tmp_path)
    names = tuple("abcdefgh")
    DomainSet(names, (100,) * 8).write(tmp_path / "domains.json")
    plan, full = resources.plan_resources(merged, tmp_path), resources.plan_resources(settings(**made), tmp_path)
    assert (plan.trunk_steps, plan.members, plan.full_proxies) == (0, 5, 5)
    assert (plan.experts.members, plan.experts.trunk_steps, plan.experts.full_proxies) == (8, 15, 2.75)
    assert plan.flops == pytest.approx(full.flops * (5 + 2.75) / 5)
    assert "40 merged members of 8 experts for the tokens of 2.75 full proxies more" in plan.describe()
    assert full.experts is None and "merged" not in full.describe()


def test_hours_and_cost_include_the_validation(plan):
    chip, priced = Chip(1e12, 1e12, 1e12), settings(plan_price=2.0, plan_utilisation=0.5, train_steps=3600)
    swarm = resources.with_time(plan, chip, priced)
    models = resources.with_time(dataclasses.replace(plan, members=9, waves=2), chip, priced)
    whole = resources.with_validation(swarm, models)
    assert whole.hours == pytest.approx((3 + 2) * 4e-3) and whole.device_hours == pytest.approx(4 * whole.hours)
    assert whole.cost == pytest.approx(2 * whole.device_hours) and whole.validation.hours == pytest.approx(2 * 4e-3)
    assert "validation of 9 models of 900,000 parameters, 2 waves of 3,600 steps" in whole.describe()
    assert "of them for validation" in whole.describe()
    assert (
        "lower train.micro_batch"
        in resources.with_validation(swarm, dataclasses.replace(models, fits=False)).describe()
    )


def test_presets_have_the_budgets_and_schedules_of_the_paper():
    """METHOD §4: tokens, steps, warm-up, learning rate."""
    proxy = config.from_dict(paper.get_config("30M"))
    assert proxy.train.batch * proxy.proxy.length * proxy.train.steps == 2_910_191_616 <= 2_910_233_600
    assert optimizer.warmup_steps(proxy.train, 54_792_448) == 54_792_448 // (64 * 4096) == 209
    target = config.from_dict(paper.get_config("1B"))
    assert (target.train.batch, target.proxy.length, target.train.lr) == (512, 4096, 0.0018)
    assert 0 <= 100e9 - target.train.steps * 512 * 4096 < 512 * 4096
    assert optimizer.learning_rate(proxy.train, 29_102_336) == pytest.approx(0.00728, abs=5e-6)
    schedule = optimizer.schedule(proxy.train, 0.00728, 54_792_448)
    rates = [float(schedule(step)) for step in (0, 208, 209, proxy.train.steps - 1)]
    assert rates[0] < rates[1] < rates[2] == pytest.approx(0.00728) and rates[3] == pytest.approx(0.000728, rel=1e-3)


def test_unknown_number_of_members_raises_an_error(tmp_path):
    with pytest.raises(UserError, match="Set swarm.size, or run --stages=prepare first"):
        resources.run(settings(swarm_size=None), tmp_path)


@needs_libtpu
@pytest.mark.parametrize("topology", ["v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"])
def test_tpu_topologies_compile_without_a_tpu(tmp_path, topology):
    plan = resources.plan_resources(settings(swarm_size=8, plan_topology=topology, plan_price=1.0), tmp_path)
    assert plan.devices in (4, 8) and plan.collectives_across_members == 0 and plan.fits
    assert plan.hours > 0 and plan.cost == pytest.approx(plan.device_hours)


@needs_libtpu
def test_unpadded_vocabulary_has_the_plan_of_the_padded_one(tmp_path):
    """dolma2 has 100,278 tokens. Only the memory that masks the padding differs."""
    changes = {"proxy_preset": "14M", "proxy_length": 256, "proxy_dtype": "bfloat16", "plan_topology": "v5e:2x2"}
    unpadded, padded = (
        resources.plan_resources(settings(swarm_size=8, corpus_vocabulary=v, **changes), tmp_path)
        for v in (100_278, 100_352)
    )
    assert unpadded.model == dataclasses.replace(padded.model, vocabulary=100_278)
    assert unpadded.memory_per_device_bytes == pytest.approx(padded.memory_per_device_bytes, rel=0.03)
    same = [dataclasses.asdict(plan) for plan in (unpadded, padded)]
    for plan in same:
        for name in ("model", "settings", "memory_per_device_bytes", "memory_parts_bytes"):
            plan.pop(name)
    assert same[0] == same[1] and unpadded.fits


@needs_libtpu
@pytest.mark.slow
def test_512_proxies_of_30m_on_256_chips(tmp_path):
    """The plan in docs/scale.md, made with the command there."""
    root = pathlib.Path(__file__).parents[2]
    (command,) = re.findall(
        r"^    python (run.py .*--stages=plan.*\\\n.*v5e:16x16.*)$", (root / "docs/scale.md").read_text(), re.M
    )
    arguments = command.replace("\\\n", " ").replace("runs/dry", str(tmp_path)).split()
    # Without the tests' settings of the compiler.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "XLA_"))}
    subprocess.run([sys.executable, *arguments], cwd=root, env=environment, check=True)
    plan = ResourcePlan.read(tmp_path / "plan/plan.json")
    assert (plan.members, plan.devices, plan.members_per_device, plan.waves) == (512, 256, 2, 1)
    assert plan.model.parameters == 29_102_336 and plan.collectives_across_members == 0
    assert plan.fits and plan.memory_per_device_bytes == pytest.approx(3.23 * 2**30, rel=0.02)
    assert plan.hours - plan.validation.hours == pytest.approx(4.1, rel=0.02)
    assert plan.roofline_seconds_per_step.compute == pytest.approx(0.27, rel=0.02)


@needs_libtpu
def test_plan_reports_what_the_compiler_cannot_fit(tmp_path):
    """Attention scores of 256 sequences of 2048 tokens need twice a chip's memory."""
    changes = {"proxy_length": 2048, "proxy_preset": "30M", "train_batch": 256, "train_micro_batch": None}
    plan = resources.plan_resources(settings(swarm_size=8, plan_topology="v5e:2x2", **changes), tmp_path)
    assert not plan.fits and plan.members_per_device == 1 and plan.collectives_across_members is None
    assert plan.memory_per_device_bytes > 16 * 2**30 and "lower train.micro_batch" in plan.describe()
