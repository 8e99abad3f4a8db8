"""proxy/aot.py: compiling the training step to measure its memory and communication."""

import dataclasses
import importlib.util
import math
import types

import jax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from olmix_jax.proxy import aot, model, sharding, state
from olmix_jax.utils.errors import UserError
from tests import toy

MEMBER = types.SimpleNamespace(memory_bytes=300)


def test_largest_fit_searches_downwards_from_the_weights_alone(monkeypatch):
    tried = []

    def compile_steps(member, shape, members, devices):
        tried.append(members // len(devices))
        return aot.CompiledStep(tried[-1], 300 * tried[-1], 100 + 50 * tried[-1], 0, 0)

    monkeypatch.setattr(aot, "compile_steps", compile_steps)
    compiled = aot.largest_fit(MEMBER, (1,), 32, [None, None], 1840)
    # Four members need 350 · 4 + 100 = 1500 ≤ 1840 bytes, five need 1850. The weights of seven exceed the memory.
    assert compiled.members_per_device == 4 and compiled.arguments == 1200 and tried[0] == 6 and len(tried) <= 3
    # If not even one member fits, its figures are returned.
    alone = aot.largest_fit(MEMBER, (1,), 32, [None, None], 300)
    assert alone.members_per_device == 1 and alone.memory == 450


def test_largest_fit_halves_the_members_if_the_compiler_gives_no_figure(monkeypatch):
    def compile_steps(member, shape, members, devices):
        per_device = members // len(devices)
        if per_device > 3:
            return aot.CompiledStep(per_device, 1, math.inf, 0, None)
        return aot.CompiledStep(per_device, 1, 1, 0, 0)

    monkeypatch.setattr(aot, "compile_steps", compile_steps)
    assert aot.largest_fit(MEMBER, (1,), 32, [None, None], 100 * 300).members_per_device == 2


def test_out_of_memory_while_compiling_gives_the_requested_memory(monkeypatch):
    def fail(lowered, devices):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: memory required for HLO temporaries (1.5G) exceeds 1G")

    monkeypatch.setattr(aot, "compile_for_analysis", fail)
    member = toy.make_swarm().member
    compiled = aot.compile_steps(member, (1, 4, 9), 2, jax.devices())
    assert compiled.temporary == 1.5 * 2**30 and compiled.collectives is None
    # One member's parameters and two moments in float32, tokens and a few scalars.
    assert 0 <= compiled.arguments - 12 * member.memory_bytes // 16 - 4 * 4 * 9 < 64


def test_collectives_are_counted():
    mesh = sharding.member_mesh()
    assert len(mesh.devices) == 2
    x = jax.ShapeDtypeStruct((2, 4), "float32", sharding=NamedSharding(mesh, PartitionSpec("member")))
    program = jax.jit(lambda x: x - x.mean(axis=0, keepdims=True)).lower(x).compile().as_text()
    assert aot.count_collectives(program) > 0


@pytest.mark.slow
def test_step_of_a_preset_compiles_without_collectives():
    """The 1M preset, on all devices of this machine."""
    train = dataclasses.replace(toy.make_swarm().train, checkpoint_every=20)
    member = state.member(model.PRESETS["1M"], 384, train)
    compiled = aot.compile_steps(member, (1, 4, 33), 2 * jax.device_count(), jax.devices())
    assert compiled.members_per_device == 2 and compiled.collectives == 0 and compiled.temporary > 0


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs requirements-tpu.txt")
def test_unknown_topology_raises_an_error_that_names_it():
    with pytest.raises(UserError, match="plan.topology.*does not know 'v9z:2x2'"):
        aot.topology_devices("v9z:2x2")


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is not None, reason="libtpu is installed")
def test_missing_compiler_raises_an_error_with_the_command_to_install_it():
    with pytest.raises(UserError, match="pip install -r requirements-tpu.txt"):
        aot.topology_devices("v5e:2x2")
