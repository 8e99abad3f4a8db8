"""Estimate what the training of a swarm needs: parameters, operations, memory, waves, hours.

Most figures are arithmetic on the config. Memory and collectives are measured by compiling the real training step, for
this machine's devices or for a TPU topology.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import jax

from olmix_jax.config import budget
from olmix_jax.config.schema import Config
from olmix_jax.corpus import store, tokenizer
from olmix_jax.corpus import vocabulary as vocabularies
from olmix_jax.proxy import aot, model, sharding, state, trainer
from olmix_jax.proxy.chips import Chip, find_chip
from olmix_jax.proxy.resource_plan import MemoryParts, ModelSize, ResourcePlan, Roofline
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log


def run(config: Config, workdir: pathlib.Path, members: int | None = None, validation_models: int = 0) -> None:
    """Run the stage ``plan``: write ``plan/plan.json``. Arguments are those of :func:`plan_resources`."""
    plan_resources(config, workdir, members, validation_models).write(workdir / "plan/plan.json")


def plan_resources(
    config: Config, workdir: pathlib.Path, members: int | None = None, validation_models: int = 0
) -> ResourcePlan:
    """Return what the config's swarm and its validation need on the config's topology, or on this machine.

    Args:
      config: all settings.
      workdir: folder whose domains and tokenizer are used, if they exist.
      members: number of proxies, if an update plan decides it. None takes it from the config or the number of domains.
      validation_models: number of validation models; 0 leaves them out.

    Raises:
      UserError: the number of members is unknown, or the topology cannot be compiled for.
    """
    members = _members(config, workdir) if members is None else members
    plan = _plan_models(config, workdir, members)
    if config.swarm.merged:
        experts = _plan_models(budget.experts(config), workdir, _domains(workdir))
        flops, plan = plan.flops + experts.flops, _with_hours(plan, experts)
        plan = dataclasses.replace(plan, flops=flops, experts=experts, merged=config.swarm.merged)
    if validation_models:
        plan = with_validation(plan, _plan_models(budget.validated(config), workdir, validation_models))
    _log(plan)
    return plan


def with_validation(plan: ResourcePlan, validation: ResourcePlan) -> ResourcePlan:
    """Return the plan of a swarm with that of its validation added, also to its hours and cost."""
    return dataclasses.replace(_with_hours(plan, validation), validation=validation)


def _with_hours(plan: ResourcePlan, more: ResourcePlan) -> ResourcePlan:
    """Return the plan with the hours and cost of further models added, where both are known."""
    if plan.hours is None or more.hours is None:
        return plan
    cost = None if plan.cost is None or more.cost is None else plan.cost + more.cost
    hours = plan.hours + more.hours
    return dataclasses.replace(plan, hours=hours, device_hours=hours * plan.devices, cost=cost)


def _plan_models(config: Config, workdir: pathlib.Path, members: int) -> ResourcePlan:
    """Return what the training of ``members`` models of a config needs."""
    topology = config.plan.topology
    vocabulary = _vocabulary(config, workdir)
    devices = aot.topology_devices(topology) if topology else jax.devices()
    chip = find_chip(topology or devices[0].device_kind)
    memory = _usable_memory(chip, None if topology else devices[0])

    member = _member(config, vocabulary)
    fsdp = sharding.needs_fsdp(config.train, member.memory_bytes, memory, len(devices))
    if fsdp:
        config = dataclasses.replace(config, train=sharding.with_fsdp(config.train, len(devices)))
        member = _member(config, vocabulary)
    compiled = _compile(config, member, members, devices, memory, fsdp)

    shape, t, trunk = model.PRESETS[config.proxy.preset], config.train, budget.trunk_steps(config)
    total_parameters = member.parameters + model.padded(vocabulary) * shape.width
    flops = flops_per_token(shape, member.parameters, config.proxy.length)
    tokens = t.batch * config.proxy.length
    has_figure = math.isfinite(compiled.memory)
    plan = ResourcePlan(
        model=ModelSize(
            **dataclasses.asdict(shape),
            vocabulary=vocabulary,
            padded_vocabulary=model.padded(vocabulary),
            parameters=member.parameters,
            parameters_with_embedding=total_parameters,
        ),
        topology=topology or f"{len(devices)} × {devices[0].device_kind}",
        devices=len(devices),
        members=members,
        members_per_device=compiled.members_per_device,
        waves=math.ceil(members / round(compiled.members_per_device * len(devices))),
        steps=t.steps,
        tokens_per_step=tokens,
        tokens_per_member=tokens * t.steps,
        flops_per_token=flops,
        flops=flops * tokens * (trunk + members * (t.steps - trunk)),
        memory_per_device_bytes=compiled.memory if has_figure else None,
        memory_parts_bytes=memory_parts(compiled, total_parameters),
        # Under FSDP members are trained one after another, so all communication is within one.
        collectives_across_members=0 if fsdp else compiled.collectives,
        collectives_within_a_member=compiled.collectives if fsdp else 0,
        fits=(None if memory is None else compiled.memory <= memory) if has_figure else False,
        # Weights and two moments, in float32.
        checkpoint_bytes=int(12 * total_parameters * min(members, compiled.members_per_device * len(devices))),
        settings=trainer.settings(config, vocabulary),
        trunk_steps=trunk,
    )
    return plan if chip is None else with_time(plan, chip, config)


def _log(plan: ResourcePlan) -> None:
    for field, setting in plan.settings.items():
        value = f"{setting.value:.4g}" if isinstance(setting.value, float) else setting.value
        log.info("plan: %-18s %-10s %s", field, value, setting.source)
    log.info("plan: %s", plan.describe())


def _usable_memory(chip: Chip | None, device: jax.Device | None) -> float | None:
    """Return the usable memory of a device [bytes]: what the device itself reports, else what its maker publishes."""
    reported = (device.memory_stats() or {}).get("bytes_limit") if device is not None else None
    if reported is not None:
        return sharding.USABLE * reported
    return None if chip is None else sharding.USABLE * chip.memory


def _member(config: Config, vocabulary: int) -> state.Member:
    train = trainer.resolved(config, vocabulary)
    return state.member(model.PRESETS[config.proxy.preset], vocabulary, train, config.proxy.dtype)


def _compile(
    config: Config, member: state.Member, members: int, devices: Sequence, memory: float | None, fsdp: bool
) -> aot.CompiledStep:
    """Compile one training step with as many members per device as the config asks for, or as fit."""
    tokens_shape = 1, config.train.batch, config.proxy.length + 1
    if fsdp:
        log.info("compiling one member sharded over %d devices", len(devices))
        return aot.compile_steps(member, tokens_shape, 1, devices, sharding.FSDP)
    if config.swarm.members_per_device is None:
        return aot.largest_fit(member, tokens_shape, members, devices, memory)
    per_device = min(config.swarm.members_per_device, math.ceil(members / len(devices)))
    return aot.compile_steps(member, tokens_shape, per_device * len(devices), devices)


def flops_per_token(shape: model.Shape, parameters: int, length: int) -> float:
    """Return the operations to train on one token.

    6 per parameter without the input embedding, and 12 · layers · heads · head · L for attention. By convention the
    causal mask is ignored.
    """
    head = shape.head if shape.head is not None else shape.width // shape.heads
    return 6.0 * parameters + 12.0 * shape.layers * shape.heads * head * length


def memory_parts(compiled: aot.CompiledStep, parameters: int) -> MemoryParts:
    """Return the memory of a device by use. ``parameters`` counts one member's parameters with the embedding."""
    weights = int(4 * parameters * compiled.members_per_device)
    return MemoryParts(
        arguments=compiled.arguments,
        temporary=compiled.temporary if math.isfinite(compiled.temporary) else None,
        outputs=compiled.outputs,
        weights=weights,
        optimizer=2 * weights,
        gradients=weights,
    )


def with_time(plan: ResourcePlan, chip: Chip, config: Config) -> ResourcePlan:
    """Add lower bounds on the time per step, and hours and cost at the utilisation ``plan.utilisation``."""
    t, utilisation, price = config.train, config.plan.utilisation, config.plan.price
    compute = plan.flops_per_token * plan.tokens_per_step * plan.members_per_device / chip.flops
    micro_batches = t.batch // (t.micro_batch or t.batch)
    # AdamW reads weights, two moments and the gradient, and writes the first three, in float32: 28 bytes a parameter.
    # Every micro-batch reads the weights forward and backward in bfloat16 (4 bytes), and adds to the gradient (8).
    bytes_per_parameter = 28 + 12 * micro_batches
    parameters = plan.model.parameters_with_embedding
    traffic = bytes_per_parameter * parameters * plan.members_per_device / chip.bandwidth
    # A step of the trunk is that of one member: on one device, or sharded as members are.
    trunk = plan.trunk_steps * min(1, plan.members_per_device) / plan.members_per_device
    hours = (plan.waves * (t.steps - plan.trunk_steps) + trunk) * max(compute / utilisation, traffic) / 3600
    return dataclasses.replace(
        plan,
        roofline_seconds_per_step=Roofline(compute, traffic),
        bound_by="compute" if compute >= traffic else "memory",
        utilisation_assumed=utilisation,
        hours=hours,
        device_hours=hours * plan.devices,
        cost=None if price is None else hours * plan.devices * price,
    )


def _members(config: Config, workdir: pathlib.Path) -> int:
    """Return the number of proxies: ``swarm.size``, or the default for the workdir's number of domains."""
    return config.swarm.size if config.swarm.size is not None else 3 * (_domains(workdir, "Set swarm.size, or run") + 1)


def _domains(workdir: pathlib.Path, advice: str = "Run") -> int:
    """Return the workdir's number of domains."""
    if (workdir / "domains.json").is_file():
        return len(DomainSet.read(workdir / "domains.json"))
    raise UserError(f"plan: the number of members is unknown. {advice} --stages=prepare first")


def _vocabulary(config: Config, workdir: pathlib.Path) -> int:
    prepared = store.tokenizer_path(workdir)
    path = prepared if prepared.is_file() else config.corpus.tokenizer
    full = tokenizer.Tokenizer.read(path) if path else None
    return vocabularies.size(config.proxy.vocabulary, full, config.corpus.vocabulary)
