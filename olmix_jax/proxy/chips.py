"""Memory, speed and bandwidth of accelerators, as published by their makers."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published figures of one device.

    Attributes:
      memory: bytes.
      flops: operations per second in bfloat16.
      bandwidth: bytes per second to its memory.
    """

    memory: float
    flops: float
    bandwidth: float


CHIPS = {
    "v4": Chip(32 * 2**30, 275e12, 1.2e12),
    "v5e": Chip(16 * 2**30, 197e12, 0.819e12),
    "v5p": Chip(95 * 2**30, 459e12, 2.765e12),
    "v6e": Chip(32 * 2**30, 918e12, 1.64e12),
    "NVIDIA A100": Chip(80 * 2**30, 312e12, 2.0e12),
    "NVIDIA H100": Chip(80 * 2**30, 989e12, 3.35e12),
    "NVIDIA H200": Chip(141 * 2**30, 989e12, 4.8e12),
}

# Prefixes of JAX's `device_kind` → name in CHIPS. If two prefixes match, the longer one comes first.
KINDS = {"TPU v4": "v4", "TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e"}


def find_chip(name: str) -> Chip | None:
    """Return the chip of a topology such as ``v5e:16x16`` or of a ``device_kind``, or None if it is not listed."""
    name = next((chip for kind, chip in KINDS.items() if name.startswith(kind)), name.split(":")[0])
    return next((chip for prefix, chip in CHIPS.items() if name.startswith(prefix)), None)
