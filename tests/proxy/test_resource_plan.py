"""proxy/resource_plan.py: the content of plan/plan.json."""

import dataclasses

from olmix_jax.proxy.resource_plan import ResourcePlan, Roofline
from olmix_jax.utils import files


def test_plan_is_described_in_one_sentence(plan):
    assert plan.describe() == (
        "24 members of 900,000 parameters on 4 × chip: 2 per device, 3 waves of 3,600 steps, 1.00 GiB per device, "
        "which fits; 0 collectives across members"
    )
    fsdp = dataclasses.replace(plan, members_per_device=0.25, memory_per_device_bytes=None, fits=False)
    assert "one sharded over 4 devices" in fsdp.describe() and "more memory than a device has" in fsdp.describe()


def test_plan_survives_writing_and_reading(plan, tmp_path):
    timed = dataclasses.replace(plan, roofline_seconds_per_step=Roofline(1.0, 2.0), bound_by="memory", hours=3.0)
    timed = dataclasses.replace(timed, validation=plan)
    for written in (plan, timed):
        written.write(tmp_path / "plan.json")
        assert ResourcePlan.read(tmp_path / "plan.json") == written
    assert (
        list(files.read_json(tmp_path / "plan.json"))
        == (
            "schema model topology devices members members_per_device waves steps tokens_per_step tokens_per_member "
            "flops_per_token flops memory_per_device_bytes memory_parts_bytes collectives_across_members "
            "collectives_within_a_member fits roofline_seconds_per_step bound_by hours validation"
        ).split()
    )
