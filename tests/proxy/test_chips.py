"""proxy/chips.py: which chip a topology or a device is."""

from olmix_jax.proxy.chips import CHIPS, find_chip


def test_chips_are_found_by_topology_and_by_device_kind():
    assert find_chip("v5e:16x16") is find_chip("TPU v5 lite") is CHIPS["v5e"]
    assert find_chip("TPU v5p") is find_chip("TPU v5") is CHIPS["v5p"]
    assert find_chip("NVIDIA H100 80GB HBM3") is CHIPS["NVIDIA H100"] and find_chip("cpu") is None
