"""Sample results of an update of every kind, for the tests of the report."""

import dataclasses
import pathlib

from olmix_jax.laws.fit_result import FitResult, Over
from olmix_jax.propose.proposal_parts import ReuseCost
from olmix_jax.report.results import Results
from olmix_jax.update.strategies import Strategy
from olmix_jax.update.update_plan import Candidate, Interval, OldRuns, PastUpdate, PredictedGain, UpdatePlan
from tests.report import samples
from tests.report.samples import HOSTILE

OLD = {"web": 0.3, "code": 0.2, "books": 0.1, "wiki": 0.25, "forum": 0.05, HOSTILE: 0.1}
NATURAL = {"web": 0.5, "source": 0.1, "books": 0.1, "wiki:a": 0.12, "wiki:b": 0.04, HOSTILE: 0.1, "new": 0.04}
NEW = {"web": 0.36, "source": 0.24, "books": 0.1, "wiki:a": 0.1, "wiki:b": 0.05, HOSTILE: 0.05, "new": 0.1}
AFFECTED = ("books", "wiki:a", "wiki:b", "new")
UPDATES = (
    {"rename": {"code": "source"}},
    {"revise": ["books"]},
    {"partition": {"wiki": ["wiki:a", "wiki:b"]}},
    {"remove": ["forum"]},
    {"add": ["new"]},
)


def interval(mean: float) -> Interval:
    """Return an interval from half to twice the mean."""
    return Interval(mean, mean / 2, 2 * mean)


def plan() -> UpdatePlan:
    """Return an update of every kind. It keeps the ratio of web and source, and recomputes one unaffected domain."""
    recomputed = (*AFFECTED, HOSTILE)
    first = PastUpdate("/somewhere/parent", "first swarm", (), True, 1.0, 0.9, OLD, 20, 20)
    candidates = (
        Candidate(AFFECTED, 8, interval(0.02)),
        Candidate(tuple(NEW), 32, interval(0.015)),
        Candidate(recomputed, 16, interval(0.01)),
    )
    return UpdatePlan(
        **{"strategy": Strategy.AUTO, "parent": "/somewhere/parent", "updates": UPDATES, "why": "the reason <is> this"},
        **{"old": tuple(OLD), "new": tuple(NEW), "kept": {"kept": {"web": 0.3, "source": 0.2}}},
        **{"unaffected": ("web", "source", HOSTILE), "affected": AFFECTED, "lost": ("books", "forum")},
        **{"recomputed": recomputed, "proxies": 16, "proxies_full": 32, "predicted_loss": interval(0.01)},
        **{"predicted_gain": PredictedGain(0.05, 0.01, 0.09), "old_runs": (OldRuns(1, 20),)},
        **{"candidates": candidates, "history": (first,)},
    )


def update(**changes) -> Results:
    """Return an update's results up to the proposal; ``changes`` are fields of the plan."""
    results = samples.small_run()
    fit: FitResult = dataclasses.replace(results.fit, over=Over.DOMAINS, trust=0.3, learning_curve=None)
    names = dict.fromkeys(NEW, 0.0)
    proposal = dataclasses.replace(
        results.proposal,
        **{"weights": NEW, "natural": NATURAL, "caps": dict.fromkeys(NEW), "lower": names, "capped_by": names},
        **{"objective": 0.96, "objective_natural": 1.0, "shadow_prices": names, "repeats": dict.fromkeys(NEW, 1.0)},
        predicted=dict.fromkeys(fit.tasks, 0.95),
        predicted_natural=dict.fromkeys(fit.tasks, 1.0),
        reuse=ReuseCost({"mean": 0.01, "low": 0.005, "high": 0.02}, loss=0.002, free=NEW, by="law"),
    )
    proposal = dataclasses.replace(proposal, capped_by=dict.fromkeys(NEW))
    return Results(
        workdir=pathlib.Path("nowhere"),
        fit=fit,
        proposal=proposal,
        update=dataclasses.replace(plan(), **changes),
    )


def update_without_runs() -> Results:
    """Return the results of an update that only removes a domain and needs no runs."""
    new = {name: weight / 0.95 for name, weight in OLD.items() if name != "forum"}
    changes = {"updates": ({"remove": ["forum"]},), "new": tuple(new), "kept": {}, "recomputed": tuple(new)}
    changes |= {"unaffected": tuple(new), "affected": (), "lost": ("forum",), "proxies": 0, "old_runs": ()}
    results = update(**changes, candidates=(Candidate(tuple(new), 0, interval(0.01)),))
    reuse = ReuseCost({"mean": 0.01, "low": 0.005, "high": 0.02}, loss=0.0)
    by_domain = {"weights": new, "natural": new, "caps": dict.fromkeys(new), "lower": dict.fromkeys(new, 0.0)}
    by_domain |= {"capped_by": dict.fromkeys(new), "shadow_prices": None, "repeats": None}
    return dataclasses.replace(samples.with_proposal(results, **by_domain, reuse=reuse), fit=None)


def with_reuse(results: Results, **changes) -> Results:
    """Return the results with another cost of the kept ratios."""
    return samples.with_proposal(results, reuse=dataclasses.replace(results.proposal.reuse, **changes))
