"""What a swarm will need, before any of it is paid for: parameters, operations, memory, waves, hours.

Figures that follow from the config alone are arithmetic, written beside them. Memory is the compiler's word, for the
machine that is at hand or for a TPU topology that is not.
"""

import dataclasses
import math
import pathlib

import jax

from olmix_jax.config.schema import Config
from olmix_jax.corpus import store, tokenizer
from olmix_jax.proxy import aot, model, sharding, state
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import counted, log


@dataclasses.dataclass(frozen=True)
class Chip:
    """What a maker says of a device: memory [bytes], operations a second in bfloat16, bytes a second to its memory."""

    memory: float
    flops: float
    bandwidth: float


# As their makers publish them.
CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 1.2e12),
    "v5e": Chip(16 * 2**30, 197e12, 0.819e12),
    "v5p": Chip(95 * 2**30, 459e12, 2.765e12),
    "v6e": Chip(32 * 2**30, 918e12, 1.64e12),
    "NVIDIA A100": Chip(80 * 2**30, 312e12, 2.0e12),
    "NVIDIA H100": Chip(80 * 2**30, 989e12, 3.35e12),
    "NVIDIA H200": Chip(141 * 2**30, 989e12, 4.8e12),
}


# As JAX names the devices of a machine that has them; the longer of two names first.
KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}


def plan(config: Config, workdir: pathlib.Path, members: int | None = None) -> dict:
    """The content of ``plan/plan.json``.

    Args:
      config: all settings.
      workdir: for its domains and its tokenizer, if it has them.
      members: number of proxies if an update plan decides it; None: from the config or the number of domains.

    Raises:
      UserError: the number of members is not known, or the topology cannot be compiled for.
    """
    p, t = config.plan, config.train
    members = _members(config, workdir) if members is None else members
    vocabulary = _vocabulary(config, workdir)
    member = _member(config, vocabulary)
    devices = aot.devices_of(p.topology) if p.topology else jax.devices()
    chip = chip_of(p.topology or devices[0].device_kind)
    # What a device at hand says of itself goes before what its maker says.
    stats = {} if p.topology else devices[0].memory_stats() or {}
    limit = stats.get("bytes_limit", chip and chip.memory)
    shape = model.PRESETS[config.proxy.preset]
    size = dataclasses.asdict(shape) | {"vocabulary": vocabulary, "parameters": member.parameters}
    total = member.parameters + vocabulary * shape.width
    memory = None if limit is None else sharding.USABLE * limit
    one = sharding.lies_over_all(t, member.memory, memory, len(devices))
    if one:
        t = sharding.laid_over_all(t, len(devices))
        config = dataclasses.replace(config, train=t)
        member = _member(config, vocabulary)
    found, per_device = _compiled(config, member, members, devices, memory, one)
    need = aot.needed(found)
    if not math.isfinite(need):
        need, found = None, found | {"temporary": None}
    collectives = found.pop("collectives")
    flops = flops_per_token(shape, member.parameters, config.proxy.length)
    tokens = t.batch * config.proxy.length
    content = {
        "model": size | {"parameters_with_embedding": total},
        "topology": p.topology or f"{len(devices)} × {devices[0].device_kind}",
        "devices": len(devices),
        "members": members,
        "members_per_device": per_device,
        "waves": math.ceil(members / round(per_device * len(devices))),
        "steps": t.steps,
        "tokens_per_step": tokens,
        "tokens_per_member": tokens * t.steps,
        "flops_per_token": flops,
        "flops": flops * tokens * t.steps * members,
        "memory_per_device_bytes": need,
        "memory_parts_bytes": found | parts(total, per_device),
        # Of members in turn none speaks to another; what devices say is of the one.
        "collectives_across_members": 0 if one else collectives,
        "collectives_within_a_member": collectives if one else 0,
        "fits": _fits(need, memory),
    }
    if chip is not None:
        content |= _time(config, chip, content, total)
    log.info("plan: %s", summary(content))
    return content


def _member(config: Config, vocabulary: int) -> state.Member:
    return state.member(model.PRESETS[config.proxy.preset], vocabulary, config.train, config.proxy.dtype)


def _compiled(
    config: Config, member: state.Member, members: int, devices, memory: float | None, one: bool
) -> tuple[dict, float]:
    """What the compiler says of a step, and members on a device: of ``one`` over all devices, its share."""
    tokens_shape = 1, config.train.batch, config.proxy.length + 1
    if one:
        log.info("compiling one member over %d devices", len(devices))
        return aot.compile_steps(member, tokens_shape, 1, devices, sharding.ONE), 1 / len(devices)
    if config.swarm.members_per_device is None:
        return aot.fitting(member, tokens_shape, members, devices, memory)
    per_device = min(config.swarm.members_per_device, math.ceil(members / len(devices)))
    return aot.compile_steps(member, tokens_shape, per_device * len(devices), devices), per_device


def _fits(need: float | None, memory: float | None) -> bool | None:
    """Whether a program that needs so much has a place, None for one that the compiler gave up without a figure; None
    where it is not known how much there is."""
    if need is None:
        return False
    return None if memory is None else need <= memory


def flops_per_token(shape: model.Shape, parameters: int, length: int) -> float:
    """Operations to train on a token: 6 for every parameter but the input embedding, and 12·layers·heads·head·L for
    attention, whose causal half is counted whole by convention."""
    head = shape.head if shape.head is not None else shape.width // shape.heads
    return 6.0 * parameters + 12.0 * shape.layers * shape.heads * head * length


def parts(total: int, members: float) -> dict:
    """What of the memory is a member's weights, optimiser and gradient, all in float32 [bytes on a device]."""
    weights = int(4 * total * members)
    return {"weights": weights, "optimizer": 2 * weights, "gradients": weights}


def _members(config: Config, workdir: pathlib.Path) -> int:
    if config.swarm.size is not None:
        return config.swarm.size
    if (workdir / "domains.json").is_file():
        return 3 * (len(DomainSet.read(workdir / "domains.json")) + 1)
    raise UserError("plan: the number of members is not known; set swarm.size, or run --stages=prepare first")


def _vocabulary(config: Config, workdir: pathlib.Path) -> int:
    made = store.tokenizer_path(workdir)
    path = made if made.is_file() else config.corpus.tokenizer
    return tokenizer.Tokenizer.read(path).size if path else config.corpus.vocabulary


def chip_of(name: str) -> Chip | None:
    """By a topology's name before the colon, or how a device's own begins; None for what is not known."""
    name = next((key for kind, key in KINDS.items() if name.startswith(kind)), name.split(":")[0])
    return next((chip for known, chip in CHIPS.items() if name.startswith(known)), None)


def _time(config: Config, chip: Chip, content: dict, total: int) -> dict:
    """Seconds a step that the device's arithmetic and its memory allow at least, and hours at the utilisation given."""
    p, t, per_device = config.plan, config.train, content["members_per_device"]
    compute = content["flops_per_token"] * content["tokens_per_step"] * per_device / chip.flops
    micro = t.batch // (t.micro_batch or t.batch)
    # AdamW reads weights, two moments and the gradient, and writes the first three, in float32: 28 bytes a parameter.
    # Every micro-batch reads the weights forward and backward, in bfloat16, and adds to the gradient: 4 + 8.
    traffic = (28 + 12 * micro) * total * per_device / chip.bandwidth
    hours = content["waves"] * t.steps * max(compute / p.utilisation, traffic) / 3600
    found = {
        "roofline_seconds_per_step": {"compute": compute, "memory": traffic},
        "bound_by": "compute" if compute >= traffic else "memory",
        "utilisation_assumed": p.utilisation,
        "hours": hours,
        "device_hours": hours * content["devices"],
    }
    return found | ({} if p.price is None else {"cost": hours * content["devices"] * p.price})


def summary(content: dict) -> str:
    """A plan in a sentence."""
    need, talk = content["memory_per_device_bytes"], content["collectives_across_members"]
    gib = "more than there is" if need is None else f"{need / 2**30:.2f} GiB"
    each = content["members_per_device"]
    held = f"{each} on a device" if each >= 1 else f"one over {round(1 / each)} devices"
    tight = "which does not fit: lower train.micro_batch, or set train.remat"
    room = {True: "which fits", False: tight, None: "whose memory is not known"}[content["fits"]]
    said = (
        f"{counted(content['members'], 'member')} of {content['model']['parameters']:,} parameters "
        f"on {content['topology']}: "
        f"{held}, {counted(content['waves'], 'wave')} of {content['steps']:,} steps, "
        f"{gib} a device, {room}"
    )
    said += "" if talk is None else f"; {talk} collectives across members"
    if "hours" in content:
        floor, share = content["roofline_seconds_per_step"], content["utilisation_assumed"]
        slower = floor["memory"] > floor["compute"] / share
        said += f"; {content['hours']:.1f} hours "
        said += "at the memory's full speed, which bounds it" if slower else f"at {100 * share:.0f} % of peak"
    return said + (
        f", {content['cost']:,.0f} for {content['device_hours']:,.0f} device hours" if "cost" in content else ""
    )


def run(config: Config, workdir: pathlib.Path, members: int | None = None) -> None:
    """Runs the stage ``plan``; ``members`` as in :func:`plan`."""
    files.write_json(workdir / "plan/plan.json", plan(config, workdir, members))
