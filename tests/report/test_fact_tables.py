"""Facts about the run as name–value pairs."""

import dataclasses

from olmix_jax.laws.fit_result import SwarmScores
from olmix_jax.propose.proposal_parts import Certificate
from olmix_jax.report import fact_tables
from olmix_jax.report.results import Results
from olmix_jax.solver.status import Status
from tests.report import samples


def test_groups_without_facts_are_left_out(results):
    captions = [table.caption for table in fact_tables.fact_tables(results)]
    assert captions == ["Data and swarm", "Law", "Solver", "Validation"]
    everything = dataclasses.replace(results, proposal=samples.explored(results.proposal))
    captions = [table.caption for table in fact_tables.fact_tables(everything)]
    assert captions == ["Data and swarm", "Law", "Solver", "Validation", "Guard", "Tail", "Amounts"]
    assert fact_tables.fact_tables(Results(results.workdir)) == ()


def test_swarm_facts_state_size_and_training(results):
    facts = dict(fact_tables.swarm_facts(results))
    assert facts["runs K"] == "26, plus 1 diverged" and facts["domains M"] == "8"
    assert facts["proxy"] == "1M, 412k parameters" and facts["throughput"] == "51,234 tokens/s, all proxies"
    assert facts["seed"] == "0" and facts["training time"] == "123.4 s"


def test_swarm_facts_state_the_cost_of_branches_against_full_proxies(results):
    assert not [name for name, _ in fact_tables.swarm_facts(results) if "trunk" in name or "tokens of" in name]
    info = dataclasses.replace(results.training, members=45, tokens_per_member=512_000, trunk_tokens=384_000)
    facts = dict(fact_tables.swarm_facts(dataclasses.replace(results, training=info)))
    assert facts["tokens per proxy"] == "512k" and facts["of them in the trunk of all proxies"] == "384k"
    assert facts["tokens of the swarm"] == "6.14M, of 12.0 of 45 full proxies"
    assert "training time of branches" in facts and "training time" not in facts


def test_swarm_facts_state_what_is_counted_in_which_tokens(results):
    assert "vocabulary of proxies" not in dict(fact_tables.swarm_facts(results))
    proxy = dataclasses.replace(results.config.proxy, vocabulary=16384)
    config = dataclasses.replace(results.config, proxy=proxy)
    facts = dict(fact_tables.swarm_facts(dataclasses.replace(results, config=config)))
    assert facts["vocabulary of proxies"].startswith("16,384 entries, in which tokens of models are counted; weights, ")


def test_swarm_facts_state_the_cost_of_merged_members(results):
    assert not [name for name, _ in fact_tables.swarm_facts(results) if "experts" in name]
    info = dataclasses.replace(results.training, members=8, tokens_per_member=512_000, trunk_tokens=384_000)
    facts = dict(fact_tables.swarm_facts(dataclasses.replace(results, experts=info)))
    assert facts["tokens of 8 experts for merged members, with their trunk"] == "1.41M, of 2.75 full proxies"


def test_law_facts_include_the_test_swarm(results):
    fit = dataclasses.replace(results.fit, test=SwarmScores(7, 0, 0.812, 0.9, 0.88, {}))
    facts = dict(fact_tables.law_facts(fit))
    assert facts["Spearman, test swarm, mean over tasks"] == "0.812"
    assert facts["inside the 90 % intervals, test swarm"] == "88.0 %"
    assert facts["loss, in-sample, sum over tasks"] == "0.12" and facts["wall time"] == "1.5 s"


def test_solver_facts_of_a_law_that_is_not_convex(results):
    certificate = Certificate(gap=None, no_gap="the law is not convex", starts=8)
    proposal = dataclasses.replace(results.proposal, status=Status.LOCAL_OPTIMUM, certificate=certificate)
    facts = dict(fact_tables.solver_facts(proposal))
    assert (
        facts["status"] == "local optimum, best of 8 starts"
        and facts["starting points"] == "8"
        and "iterations" not in facts
    )
    assert facts["duality gap, BPB"] == "unknown: the law is not convex"
    assert dict(fact_tables.solver_facts(results.proposal))["duality gap, BPB"] == "1e−09"


def test_guard_tail_and_amounts_are_formatted(results):
    proposal = samples.explored(results.proposal)
    assert dict(fact_tables.guard_facts(proposal.guard))["guards that bind"].endswith("(multiplier 0.4)")
    assert ("worst 10 % of samples, proposed, BPB", "1.3000") in fact_tables.tail_facts(proposal.tail)
    assert dict(fact_tables.count_facts(proposal.counts)) == {
        "sequences in the target run": "24",
        "tokens per sequence": "128",
    }


def test_value_text_keeps_small_whole_numbers():
    expected = {1200: "1,200", 2_457_600: "2.46M", 1234.5: "1.23k", 0.0716101: "0.0716101"}
    assert [fact_tables.value_text(value) for value in expected] == list(expected.values())


def test_validation_facts_name_a_mixture_with_fewer_seeds(results):
    validation = results.validation
    assert ("seeds per mixture", str(validation.seeds)) in fact_tables.validation_facts(validation)
    score = validation.mixtures["uniform"]
    short = dataclasses.replace(score, per_seed=score.per_seed[:2])
    fewer = dataclasses.replace(validation, mixtures={**validation.mixtures, "uniform": short})
    assert ("seeds per mixture", f"{validation.seeds}, uniform: 2") in fact_tables.validation_facts(fewer)
