"""Comparison of two domain sets by name and content: infers the steps between them and checks given ones."""

import itertools

from olmix_jax.swarm.domains import CONTENT_MODULUS, DomainSet
from olmix_jax.update.changes import Change, Update, add, partition, remove, rename, revise
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# With at most this many new domains, every subset is tried as the parts of an old domain.
MAX_FOR_SUBSETS = 12


def infer(old: DomainSet, new: DomainSet) -> list[Update]:
    """Infer the steps that lead from one domain set to another.

    A domain with the same name and the same (or unknown) content is unchanged. For the others, content counts before
    names:

    1. An old domain whose content is now under another name was renamed. Two domains may have swapped names.
    2. An old domain whose content is now spread over several new ones was partitioned.
    3. A remaining domain that keeps its name was revised.
    4. All others were removed or added. Merged domains are removed, and their union is added.
    """
    content_old, content_new = _content(old), _content(new)
    same = {
        name
        for name in set(old.names) & set(new.names)
        if name not in content_old or name not in content_new or content_old[name] == content_new[name]
    }
    gone, created = [n for n in old.names if n not in same], [n for n in new.names if n not in same]
    renamed, divided = {}, {}
    for name in [n for n in gone if n in content_old]:
        into = next((n for n in created if content_new.get(n) == content_old[name]), None)
        if into is not None:
            renamed[name] = into
            created.remove(into)
    for name in [n for n in gone if n in content_old and n not in renamed]:
        parts = _find_parts(name, content_old[name], {n: content_new[n] for n in created if n in content_new})
        if parts:
            divided[name] = parts
            created = [n for n in created if n not in parts]
    remaining = [n for n in gone if n not in renamed and n not in divided]
    removed = [n for n in remaining if n not in created]
    revised = [n for n in remaining if n in created]
    added = [n for n in created if n not in revised]
    steps = [remove(*removed)] if removed else []
    steps += _order_moves({name: [into] for name, into in renamed.items()} | divided)
    steps += [revise(*revised)] if revised else []
    return steps + ([add(*added)] if added else [])


def check_content(change: Change, old: DomainSet, new: DomainSet) -> None:
    """Check a change against the content of the domains, where it is known.

    A revised domain with unchanged content is only a warning.

    Raises:
      UserError: an unaffected domain has other content, or the parts of a partition do not add up to the whole.
    """
    content_old, content_new = _content(old), _content(new)
    for name, before in change.revised.items():
        if before in content_old and content_old[before] == content_new.get(name):
            log.warning(
                "update: %s is marked as revised, but its text is unchanged; remove that step to save runs",
                name,
            )
    for name, before in change.origin.items():
        if before in content_old and name in content_new and content_old[before] != content_new[name]:
            raise UserError(
                f"the text of {name} changed since the parent was trained; add `revise: [{name}]` to the update file, "
                "or restore the old text"
            )
    for whole in dict.fromkeys(change.parts.values()):
        parts = [part for part, old_name in change.parts.items() if old_name == whole]
        if whole in content_old and all(part in content_new for part in parts):
            if sum(content_new[part] for part in parts) % CONTENT_MODULUS != content_old[whole]:
                raise UserError(
                    f"the texts of {', '.join(parts)} do not add up to the text of {whole}; use "
                    f"`remove: [{whole}]` and `add: [{', '.join(parts)}]` in the update file, or correct the parts"
                )


def _order_moves(moves: dict[str, list[str]]) -> list[Update]:
    """Return renamings and partitions in an order in which every new name is free.

    In a cycle of names one domain gets a temporary name first.
    """
    steps, pending = [], dict(moves)
    while pending:
        name = next((n for n, into in pending.items() if not any(m in pending and m != n for m in into)), None)
        if name is None:
            name = next(iter(pending))
            temporary = f"{name} (before)"
            steps.append(rename(name, temporary))
            pending[temporary] = pending.pop(name)
            continue
        into = pending.pop(name)
        steps.append(rename(name, *into) if len(into) == 1 else partition(name, *into))
    return steps


def _content(domains: DomainSet) -> dict[str, int]:
    """Content hashes of the domains that have one."""
    return {name: int(text, 16) for name, text in zip(domains.names, domains.content) if text}


def _find_parts(name: str, content: int, candidates: dict[str, int]) -> list[str]:
    """Return the candidates that together have the content of the domain ``name``, or an empty list.

    It tries the candidates named after the domain, then all, then every subset if there are few.
    """
    named = [n for n in candidates if n == name or n.startswith(f"{name}:")]
    subsets = [named, list(candidates)]
    if len(candidates) <= MAX_FOR_SUBSETS:
        subsets += [list(s) for k in range(2, len(candidates)) for s in itertools.combinations(candidates, k)]
    return next((s for s in subsets if len(s) > 1 and sum(candidates[n] for n in s) % CONTENT_MODULUS == content), [])
