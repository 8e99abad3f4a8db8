"""The content of ``plan/plan.json``: what training a swarm needs."""

import dataclasses
import os

from olmix_jax.config.presets import Setting
from olmix_jax.utils import records
from olmix_jax.utils.progress import counted

_TOO_LARGE = "which does not fit: lower train.micro_batch, or set train.remat"


@dataclasses.dataclass(frozen=True)
class ModelSize:
    """Sizes of one member, as in :class:`olmix_jax.proxy.model.Shape`.

    ``parameters`` leaves out the input embedding, ``parameters_with_embedding`` includes it. Both count the embeddings
    with padding, of ``padded_vocabulary`` entries each.
    """

    width: int
    layers: int
    heads: int
    hidden: int
    head: int | None
    vocabulary: int
    padded_vocabulary: int
    parameters: int
    parameters_with_embedding: int


@dataclasses.dataclass(frozen=True)
class MemoryParts:
    """Memory of one device by use [bytes].

    ``arguments``, ``temporary`` and ``outputs`` come from the compiler and add up to the total. ``temporary`` is None
    if the compiler ran out of memory without reporting a size. ``weights``, ``optimizer`` and ``gradients`` are
    arithmetic: all members' parameters in float32.
    """

    arguments: int
    temporary: float | None
    outputs: int
    weights: int
    optimizer: int
    gradients: int


@dataclasses.dataclass(frozen=True)
class Roofline:
    """Lower bounds on the time of one step from arithmetic and from memory bandwidth [seconds]."""

    compute: float
    memory: float


@dataclasses.dataclass(frozen=True)
class ResourcePlan:
    """Devices, memory, steps, operations and time that training a swarm needs.

    Attributes:
      model: sizes of a member.
      topology: TPU topology, or number and kind of this machine's devices.
      devices: number of devices.
      members: number of members.
      members_per_device: members on a device at once; below 1 if one member is sharded over all devices.
      waves: groups of members trained one after another.
      steps: training steps of a member, including those of the trunk.
      tokens_per_step, tokens_per_member: tokens of one member, per step and in total.
      flops_per_token: operations to train one member on one token.
      flops: operations of the whole swarm, with its trunk and experts.
      memory_per_device_bytes: memory of one device; None if the compiler gave up without a figure.
      memory_parts_bytes: that memory by use.
      collectives_across_members: operations that communicate between members; None if the compiler gave up.
      collectives_within_a_member: operations that communicate within a member sharded over all devices.
      fits: whether the program fits into the device's memory; None if the device's memory is unknown.
      roofline_seconds_per_step: lower bounds on the time of a step. This and the following are None for unknown chips.
      bound_by: which lower bound is larger, "compute" or "memory".
      utilisation_assumed: assumed share of the chip's peak.
      hours, device_hours: wall time of swarm and validation, and that times the number of devices.
      cost: price of the device hours, in the currency of ``plan.price``; None without a price.
      checkpoint_bytes: one checkpoint of all members that are trained at once.
      settings: values of the settings that follow from others, and their sources, by field.
      validation: what the validation models need; None without validation.
      trunk_steps: steps that all members share and that are trained once, on one device; 0 for full proxies.
      experts: what the branches need that members are merged from, and their trunk; None without merged members.
      merged: number of merged members.
    """

    SCHEMA = 1

    model: ModelSize
    topology: str
    devices: int
    members: int
    members_per_device: float
    waves: int
    steps: int
    tokens_per_step: int
    tokens_per_member: int
    flops_per_token: float
    flops: float
    memory_per_device_bytes: float | None
    memory_parts_bytes: MemoryParts
    collectives_across_members: int | None
    collectives_within_a_member: int | None
    fits: bool | None
    roofline_seconds_per_step: Roofline | None = None
    bound_by: str | None = None
    utilisation_assumed: float | None = None
    hours: float | None = None
    device_hours: float | None = None
    cost: float | None = None
    checkpoint_bytes: int | None = None
    settings: dict[str, Setting] = dataclasses.field(default_factory=dict)
    validation: "ResourcePlan | None" = None
    trunk_steps: int = 0
    experts: "ResourcePlan | None" = None
    merged: int = 0

    @property
    def full_proxies(self) -> float:
        """Tokens of the swarm with its trunk, in those of proxies that are trained from their first step."""
        return (self.trunk_steps + self.members * (self.steps - self.trunk_steps)) / self.steps

    @classmethod
    def read(cls, path: str | os.PathLike) -> "ResourcePlan":
        """Read ``plan.json``.

        Raises:
          UserError: a field is missing or invalid; the message names it.
        """
        return records.read(path, cls, "plan")

    def write(self, path: str | os.PathLike) -> None:
        """Write ``plan.json`` atomically."""
        records.write(path, self)

    def describe(self) -> str:
        """Return the plan in one sentence."""
        per_device = self.members_per_device
        placement = (
            f"{per_device} per device" if per_device >= 1 else f"one sharded over {round(1 / per_device)} devices"
        )
        memory = self.memory_per_device_bytes
        size = "more memory than a device has" if memory is None else f"{memory / 2**30:.2f} GiB per device"
        verdict = {True: "which fits", False: _TOO_LARGE, None: "on devices of unknown memory"}[self.fits]
        parts = [
            f"{counted(self.members, 'member')} of {self.model.parameters:,} parameters on {self.topology}: "
            f"{placement}, {counted(self.waves, 'wave')} of {self.steps - self.trunk_steps:,} steps, {size}, {verdict}"
        ]
        if self.trunk_steps:
            parts.append(
                f"a trunk of {self.trunk_steps:,} steps on one device before: with it the tokens of "
                f"{self.full_proxies:.1f} of {self.members} full proxies"
            )
        if self.experts is not None:
            parts.append(
                f"{self.merged} merged members of {counted(self.experts.members, 'expert')} for the tokens of "
                f"{self.experts.full_proxies:.2f} full proxies more"
            )
        if self.collectives_across_members is not None:
            parts.append(f"{self.collectives_across_members} collectives across members")
        if self.checkpoint_bytes is not None:
            parts.append(f"checkpoints of {self.checkpoint_bytes / 1e9:.2g} GB")
        if self.validation is not None:
            models, misfit = self.validation, "" if self.validation.fits is not False else f", {_TOO_LARGE}"
            parts.append(
                f"validation of {counted(models.members, 'model')} of {models.model.parameters:,} parameters, "
                f"{counted(models.waves, 'wave')} of {models.steps:,} steps{misfit}"
            )
        if self.hours is not None:
            parts.append(self._describe_time())
        return "; ".join(parts)

    def _describe_time(self) -> str:
        floor, utilisation = self.roofline_seconds_per_step, self.utilisation_assumed
        assert floor is not None and utilisation is not None
        memory_bound = floor.memory > floor.compute / utilisation
        speed = "limited by memory bandwidth" if memory_bound else f"at {100 * utilisation:.0f} % of peak"
        cost = "" if self.cost is None else f", {self.cost:,.0f} for {self.device_hours:,.0f} device hours"
        inside = "" if self.validation is None else f", {self.validation.hours:.1f} of them for validation"
        return f"{self.hours:.1f} hours {speed}{inside}{cost}"
