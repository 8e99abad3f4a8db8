"""Translate the sections of a published config that say how a mixture is proposed.

These are ``proposer`` and ``constraints``, and ``filtering.fixed_weight``. See :mod:`olmix_jax.config.olmix_yaml`.
"""

import difflib
import json
import math
from typing import Any

from olmix_jax.config.olmix_schema import Section
from olmix_jax.utils.progress import log

# The release's default. Its versions before publication had 5.
REPEATS = 4.0


def translated(sections: dict[str, Section]) -> dict[str, Any]:
    """Return the settings of a proposal, by dotted field.

    Raises:
      UserError: a field is invalid or cannot be translated.
    """
    return _proposer(sections) | _anchor(sections) | _fixed_weights(sections) | _constraints(sections)


def _proposer(sections: dict[str, Section]) -> dict[str, Any]:
    """Return the kind of proposal and the weight of KL."""
    proposer = sections["proposer"]
    kind, law = proposer.get("type", str, "exact"), sections["regression"].get("type", str, "log_linear")
    if kind not in ("exact", "simulation", "search"):
        raise proposer.fault("type", f"must be exact, simulation or search, not {kind!r}")
    if kind == "search" and law != "search":
        raise proposer.fault("type", "`search` proposes the swarm's best run, so it needs `regression.type: search`")
    worst, temperature = proposer.get("make_worst_mix", bool, False), proposer.number("temperature")
    settings = {"propose.worst": worst, "propose.kl_weight": proposer.number("kl_reg", 0.0)}
    if kind == "simulation":
        if worst:
            raise proposer.fault("make_worst_mix", "is not supported with `type: simulation`; use `type: exact`")
        if temperature not in (None, 1.0):
            raise proposer.fault(
                "temperature",
                f"{temperature} is not supported: candidates are drawn around the natural distribution. Remove it, or "
                "use `type: exact`, which needs no candidates",
            )
        # As in the release, candidates are judged by the law alone.
        return settings | {"propose.method": "simulation", "propose.kl_weight": 0.0}
    if temperature is not None:
        log.info("%s: `proposer.temperature` is not used; only simulation has one", proposer.path)
    return settings | {"propose.method": "exact"}


def _anchor(sections: dict[str, Section]) -> dict[str, Any]:
    """Return the mixture that KL pulls towards, if the file gives priors of the parts of collapsed sources.

    A source v with the mixture p̃ of its parts has KL(expanded p ‖ prior) = Σ_v p_v ln(p_v / n_v), with
    n_v = Π_j (prior_j / p̃_j)^p̃_j. Dividing n by its sum moves the objective by a constant, not its minimum.
    """
    priors, proposer = sections["priors"], sections["proposer"]
    prior, mixtures = priors.numbers("expanded_relative_sizes"), proposer.get("expanded_kl_source_mixtures", dict, {})
    if bool(prior) != bool(mixtures):
        raise priors.fault(
            "expanded_relative_sizes",
            "needs `proposer.expanded_kl_source_mixtures`, and the reverse; give both or neither",
        )
    if not prior or not proposer.number("kl_reg"):
        return {}
    anchor = {}
    for source in priors.numbers("relative_sizes") or priors.numbers("token_counts"):
        parts = {source: 1.0}
        if source in mixtures:
            parts = Section(proposer.path, "proposer.expanded_kl_source_mixtures", mixtures).numbers(source)
        used = {name: share for name, share in parts.items() if share > 0}
        if missing := [name for name in used if not prior.get(name, 0) > 0]:
            raise priors.fault("expanded_relative_sizes", f"has no positive number for {missing[0]}")
        anchor[source] = math.exp(sum(share * math.log(prior[name] / share) for name, share in used.items()))
    total = sum(anchor.values())
    return {"propose.anchor": json.dumps({source: weight / total for source, weight in anchor.items()})}


def _fixed_weights(sections: dict[str, Section]) -> dict[str, Any]:
    """Return ``propose.bounds`` for domains of fixed weight."""
    filtering, priors = sections["filtering"], sections["priors"]
    fixed = filtering.numbers("fixed_weight")
    domains = priors.numbers("relative_sizes") | priors.numbers("token_counts")
    for name in fixed:
        if name not in domains and any(domain.startswith(f"{name}:") for domain in domains):
            raise filtering.fault(
                "fixed_weight",
                f"{name} is a source of several domains, whose weights are not fixed each. Remove it, and set "
                f"--config.propose.bounds='{{\"{name}:*\": {fixed[name]:g}}}', which fixes their sum",
            )
        if name not in domains:
            near = difflib.get_close_matches(name, domains, n=1, cutoff=0.0)[0]
            raise filtering.fault("fixed_weight", f"{name} is no domain of `priors`; the nearest is {near}")
    return {"propose.bounds": json.dumps(fixed)} if fixed else {}


def _constraints(sections: dict[str, Section]) -> dict[str, Any]:
    """Return the limit on repetition."""
    constraints = sections["constraints"]
    repeats, target = constraints.number("repetition_factor", REPEATS), constraints.number("target_tokens")
    # Earlier versions of the release have a field that overrides the tokens of the target run.
    target = constraints.number("requested_tokens", target)
    assert repeats is not None
    if not constraints.get("enabled", bool, False):
        return {"propose.target_tokens": None}
    if target is None:
        raise constraints.fault("target_tokens", "missing, and `enabled` is true; give the tokens of the target run")
    if not sections["priors"].content.get("token_counts"):
        raise sections["priors"].fault(
            "token_counts", "missing, and `constraints.enabled` is true; give the tokens per domain"
        )
    return {"propose.target_tokens": float(target), "propose.max_repeats": float(repeats)}
