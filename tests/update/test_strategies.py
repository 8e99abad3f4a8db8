"""What each strategy keeps and recomputes, and how many runs it takes (METHOD §3)."""

import numpy as np
import pytest

from olmix_jax.propose import blocks
from olmix_jax.update import changes, strategies
from olmix_jax.update.strategies import Strategy
from olmix_jax.utils.errors import UserError

# The paper's scenario of five updates, with the number of domains in each (Table 5).
DCLM = tuple(f"dclm:{i}" for i in range(24))
STACK = tuple(f"stack-edu:{i}" for i in range(15))
MORE = ("arxiv", "finemath", "pdfs", "wikipedia", "algebraic-stack", "pes2o")
PDFS = tuple(f"pdfs:{i}" for i in range(21))
STEPS = (
    changes.add(*STACK),
    changes.add(*MORE),
    changes.revise("pdfs"),
    changes.remove("algebraic-stack"),
    changes.partition("pdfs", *PDFS),
)
FIRST_SWARM = blocks.swarm_size(len(DCLM))


def apply_uniform(strategy, change, **options):
    """A strategy on a change, with uniform old and natural mixtures."""
    uniform_M = np.full(len(change.new), 1 / len(change.new))
    return strategies.apply(strategy, change.new, change.affected, uniform_M, uniform_M, **options)


def runs_of_scenario(strategy, recompute=((),) * 5):
    """Runs of each of the five updates."""
    domains, runs = DCLM, []
    for step, names in zip(STEPS, recompute):
        change = changes.change(domains, [step])
        runs.append(apply_uniform(strategy, change, recompute=names).proxies)
        domains = change.new
    return runs


def test_full_recomputation_takes_832_runs_in_the_papers_scenario():
    assert FIRST_SWARM == 64
    runs = runs_of_scenario(Strategy.FULL)
    assert runs == [128, 128, 128, 128, 256] and FIRST_SWARM + sum(runs) == 832


def test_full_reuse_takes_216_runs_in_the_papers_scenario():
    runs = runs_of_scenario(Strategy.FULL_REUSE)
    assert runs == [64, 16, 8, 0, 64] and FIRST_SWARM + sum(runs) == 216


def test_partial_reuse_takes_272_runs_in_the_papers_scenario():
    """The paper recomputes software_development beside Stack-Edu, and does not name the others.

    The other 56 runs must belong to updates 2 and 3. Ten more weights in update 2 and three in update 3 give 272.
    """
    runs = runs_of_scenario(Strategy.PARTIAL_REUSE, ((DCLM[7],), DCLM[:10], DCLM[:3], (), ()))
    assert runs == [64, 64, 16, 0, 64] and FIRST_SWARM + sum(runs) == 272


@pytest.mark.parametrize(("lost", "total"), [(0, 256), (12, 268)])
def test_swarm_reuse_completes_the_swarm_with_new_runs(lost, total):
    """All runs together are a swarm of 256 over the last domains.

    The paper counts 268. That would be twelve old runs that the last domains cannot express; the paper does not say
    which. Runs with most of their weight on revised or removed domains are such runs.
    """
    domains, usable, trained = DCLM, 64, [64]
    for step in STEPS:
        change = changes.change(domains, [step])
        usable -= lost if step is STEPS[-1] else 0
        reuse = apply_uniform(Strategy.SWARM_REUSE, change, old_runs=usable)
        trained, usable, domains = [*trained, reuse.proxies], usable + reuse.proxies, change.new
    assert trained == [64, 64, 16, 8, 0, 104 + lost] and sum(trained) == total


DOMAINS, OLD_WEIGHTS, NATURAL = ("a", "b", "c", "new"), [0.6, 0.3, 0.1, 9.0], [0.2, 0.2, 0.4, 0.2]


def apply(strategy, **options):
    """A strategy on the old domains a, b, c and an added domain."""
    return strategies.apply(strategy, DOMAINS, ("new",), OLD_WEIGHTS, NATURAL, **options)


def test_full_recomputes_every_domain():
    full = apply(Strategy.FULL)
    assert full.blocks.names == DOMAINS == full.recomputed and full.proxies == 16


def test_full_reuse_keeps_unaffected_domains_in_one_block():
    reuse = apply(Strategy.FULL_REUSE)
    assert reuse.blocks.names == ("kept", "new") and reuse.recomputed == ("new",) and reuse.proxies == 8
    np.testing.assert_allclose(reuse.blocks.ratios_DM[0], [0.6, 0.3, 0.1, 0])


def test_partial_reuse_takes_named_domains_out_of_the_block():
    reuse = apply(Strategy.PARTIAL_REUSE, recompute=("b",))
    assert reuse.blocks.names == ("kept", "b", "new") and reuse.recomputed == ("b", "new")
    np.testing.assert_allclose(reuse.blocks.ratios_DM[0], [6 / 7, 0, 1 / 7, 0])


def test_swarm_reuse_subtracts_old_runs_down_to_those_of_affected_domains():
    assert apply(Strategy.SWARM_REUSE, old_runs=6).proxies == 10
    assert apply(Strategy.SWARM_REUSE, old_runs=90).proxies == 8
    assert apply(Strategy.SWARM_REUSE).blocks.names == DOMAINS


def test_carry_keeps_old_ratios_and_gives_affected_domains_their_natural_share():
    carry = apply(Strategy.CARRY)
    np.testing.assert_allclose(blocks.expand([1.0], carry.blocks), [0.48, 0.24, 0.08, 0.2])
    assert carry.proxies == 0 and carry.recomputed == ()


def test_natural_strategy_needs_no_runs():
    natural = apply(Strategy.NATURAL)
    np.testing.assert_allclose(blocks.expand([1.0], natural.blocks), NATURAL)
    assert natural.proxies == 0


def test_recomputing_an_affected_domain_is_an_error():
    with pytest.raises(UserError, match="update.recompute: new is not an unaffected domain; choose from a, b, c"):
        apply(Strategy.PARTIAL_REUSE, recompute=("new",))
