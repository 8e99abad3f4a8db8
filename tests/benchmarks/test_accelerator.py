"""benchmarks/accelerator.py and accelerator_page.py: figures from separate processes, failures, and the page."""

import json

import pytest

from benchmarks import accelerator_page


@pytest.mark.slow
def test_each_figure_is_measured_in_a_new_process():
    memory = [accelerator_page.measure("member_memory", members, JAX_PLATFORMS="cpu") for members in (1, 2)]
    assert 0 < memory[0]["states"] < memory[0]["needed"] < memory[1]["needed"]
    assert memory[0]["states"] < memory[0]["gradient"] == memory[1]["gradient"] < memory[0]["needed"]
    assert accelerator_page.measure("reader_memory", 4, JAX_PLATFORMS="cpu")["bytes"] > 0


def test_failed_part_becomes_a_cell_beside_the_others(monkeypatch, capsys):
    """A part may need more memory than the device has; the page still gets all other parts."""
    results = {
        "simulated_devices": {"loss_KT": [[1.0, 2.0]], "collectives": 0},
        "member_memory": {"needed": 3e6, "states": 1e6, "gradient": 4e6},
        "first_step": {"seconds": 12.0, "at_once": 7},
        "reader_memory": {"bytes": 2e8},
    }

    def measure(part, *arguments, **environment):
        if part == "speed":
            raise RuntimeError("python -m benchmarks.accelerator:\nTraceback\nRESOURCE_EXHAUSTED: out | of memory")
        return json.loads(json.dumps(results[part]))

    monkeypatch.setattr(accelerator_page, "measure", measure)
    page = accelerator_page.section("")
    assert "| tokens per second | failed: RESOURCE_EXHAUSTED: out / of memory |" in page
    assert "| 1.0 + 4.0 |" in page and "| 0.0 (0.00), 0.0 (0.00) |" in page
    assert "128 members on one device, 7 at once" in page and "| 12, 12 |" in page and "0.0e+00" in page
    assert "Traceback" in capsys.readouterr().err


def test_section_of_a_device_is_replaced_in_place():
    first = accelerator_page.page("", "## cpu\n\nold\n")
    both = accelerator_page.page(first, "## H100\n\nfast\n")
    assert both == "# The swarm engine on a device\n\n## H100\n\nfast\n\n## cpu\n\nold\n"
    assert accelerator_page.page(both, "## cpu\n\nnew\n") == both.replace("old", "new")
