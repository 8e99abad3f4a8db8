"""How a domain set changes, as values, and what of old evidence the new set can express (METHOD §3).

    add        domains that were not there
    remove     domains that are no more
    revise     domains whose content changed under their names
    partition  one domain into several that hold its content between them
    rename     a domain under another name

A :class:`Change` is what some of these come to, one after another: which domains of the new set are *unaffected*, so
that their old relative ratios mean something, and which are *affected*.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax.swarm.domains import CONTENT_MODULUS, DomainSet
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

KINDS = ("add", "remove", "revise", "partition", "rename")
# Of so many new domains all subsets are looked at for the parts of an old one.
SUBSETS = 12


@dataclasses.dataclass(frozen=True)
class Update:
    """One step of a change.

    Attributes:
      kind: one of :data:`KINDS`.
      domains: the domains that are added, removed or revised; the one that is partitioned or renamed.
      parts: what it is partitioned into, or its new name; empty for other kinds.
    """

    kind: str
    domains: tuple[str, ...]
    parts: tuple[str, ...] = ()

    def plain(self) -> dict:
        """As an update file has it: ``{"add": ["a", "b"]}``, ``{"partition": {"a": ["a:x", "a:y"]}}``."""
        if self.kind == "partition":
            return {self.kind: {self.domains[0]: list(self.parts)}}
        return {self.kind: {self.domains[0]: self.parts[0]} if self.kind == "rename" else list(self.domains)}

    def __str__(self) -> str:
        into = {"partition": " into ", "rename": " to "}.get(self.kind, "")
        return f"{self.kind} {', '.join(self.domains)}{into}{', '.join(self.parts)}"


def add(*domains: str) -> Update:
    """Domains that were not there."""
    return Update("add", domains)


def remove(*domains: str) -> Update:
    """Domains that are no more."""
    return Update("remove", domains)


def revise(*domains: str) -> Update:
    """Domains whose content changed under their names."""
    return Update("revise", domains)


def partition(domain: str, *parts: str) -> Update:
    """A domain into several that hold its content between them."""
    return Update("partition", (domain,), parts)


def rename(domain: str, name: str) -> Update:
    """A domain under another name."""
    return Update("rename", (domain,), (name,))


@dataclasses.dataclass(frozen=True)
class Change:
    """What updates come to.

    Attributes:
      old: the domains before.
      new: the domains after, in the order in which they came; :meth:`ordered` has another.
      origin: {new name: its old name} of the unaffected domains.
      parts: {part: the old domain that it is a part of}, for parts that hold all of that domain between them.
      revised: {new name: its old name} of the domains whose content alone changed.
      updates: the updates, in order.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    origin: Mapping[str, str]
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    revised: Mapping[str, str] = dataclasses.field(default_factory=dict)
    updates: tuple[Update, ...] = ()

    @property
    def unaffected(self) -> tuple[str, ...]:
        """Domains of the new set that are what they were."""
        return tuple(name for name in self.new if name in self.origin)

    @property
    def affected(self) -> tuple[str, ...]:
        """Domains of the new set that are not: added, revised, or parts."""
        return tuple(name for name in self.new if name not in self.origin)

    @property
    def lost(self) -> tuple[str, ...]:
        """Old domains that the new set cannot express: removed or revised ones."""
        kept = {*self.origin.values(), *self.parts.values()}
        return tuple(name for name in self.old if name not in kept)

    def ordered(self, new: Sequence[str]) -> "Change":
        """The same with the new domains in the order of ``new``, the columns that a table has.

        Raises:
          UserError: these are other domains.
        """
        if set(new) != set(self.new):
            lacking, more = sorted(set(self.new) - set(new)), sorted(set(new) - set(self.new))
            parts = [f"has no {', '.join(lacking)}"] * bool(lacking) + [f"has also {', '.join(more)}"] * bool(more)
            raise UserError(
                f"the update leads to other domains than there are: the new set {' and '.join(parts)}; correct the "
                "update file or the data"
            )
        return dataclasses.replace(self, new=tuple(new))

    def expressed(self, tokens_M) -> np.ndarray:
        """matrix_OM: old mixtures @ matrix are new ones; rows of lost domains are 0.

        A part has the share of the whole that it has of its tokens: a run that sampled the whole evenly saw just that.

        Args:
          tokens_M: unique tokens of the new domains, in the order of ``new``.
        """
        matrix_OM, tokens = np.zeros((len(self.old), len(self.new))), dict(zip(self.new, tokens_M))
        whole = {}
        for part, old in self.parts.items():
            whole[old] = whole.get(old, 0.0) + tokens[part]
        for m, name in enumerate(self.new):
            if name in self.origin:
                matrix_OM[self.old.index(self.origin[name]), m] = 1.0
            elif name in self.parts:
                old = self.parts[name]
                matrix_OM[self.old.index(old), m] = tokens[name] / whole[old]
        return matrix_OM


def change(old: Sequence[str], updates: Sequence[Update]) -> Change:
    """What ``updates`` make of the domains ``old``, one after another.

    Raises:
      UserError: an update names a domain that is not there, or adds one that is; or no domain would be left.
    """
    now = Change(tuple(old), tuple(old), {name: name for name in old})
    for update in updates:
        _check(update, now.new)
        now = dataclasses.replace(_after(now, update), updates=(*now.updates, update))
    if not now.new:
        raise UserError("the updates leave no domain; a mixture needs at least one")
    return now


def _check(update: Update, now: tuple[str, ...]) -> None:
    fresh = update.domains if update.kind == "add" else update.parts
    missing = [name for name in update.domains if name not in now and update.kind != "add"]
    if missing:
        raise UserError(f"update `{update}`: no domain {missing[0]}; there are {', '.join(now)}")
    if update.kind == "partition" and len(fresh) < 2:
        raise UserError(
            f"update `{update}`: a partition has two parts or more; a domain under another name is `rename`"
        )
    # It may keep the whole's name for one of its parts.
    allowed = update.domains if update.kind == "partition" else ()
    taken = [name for name in fresh if (name in now and name not in allowed) or fresh.count(name) > 1]
    if taken:
        raise UserError(f"update `{update}`: {taken[0]} is there already, or twice; give it another name")


def _after(now: Change, update: Update) -> Change:
    origin, parts, revised = dict(now.origin), dict(now.parts), dict(now.revised)
    if update.kind == "add":
        return dataclasses.replace(now, new=now.new + update.domains)
    if update.kind in ("remove", "revise"):
        for name in update.domains:
            source = origin.pop(name, revised.pop(name, None))
            revised |= {name: source} if source and update.kind == "revise" else {}
            # Where one part is not what it was, the others do not hold the whole.
            whole = parts.get(name)
            parts = {part: of for part, of in parts.items() if of != whole}
        left = tuple(name for name in now.new if update.kind == "revise" or name not in update.domains)
        return dataclasses.replace(now, new=left, origin=origin, parts=parts, revised=revised)
    (name,) = update.domains
    at = now.new.index(name)
    new = now.new[:at] + update.parts + now.new[at + 1 :]
    source, whole, was = origin.pop(name, None), parts.pop(name, None), revised.pop(name, None)
    if update.kind == "rename" and (source or was):
        (origin if source else revised)[update.parts[0]] = source or was
    elif source or whole:
        parts |= {part: source or whole for part in update.parts}
    return dataclasses.replace(now, new=new, origin=origin, parts=parts, revised=revised)


def infer(old: DomainSet, new: DomainSet) -> list[Update]:
    """The updates that lead from one set to the other, by names and, where both have it, by content.

    What is the same under its name is let be. Then content goes before names: an old domain's under another name is a
    renaming (two may change names), an old domain's split over several is a partition; what is left of other content
    under its old name is revised, and the rest removed or added. Domains that were merged are removed, and their union
    added.
    """
    content_old, content_new = _content(old), _content(new)
    same = [n for n in old.names if n in new.names and content_old.get(n) == content_new.get(n)]
    same += [n for n in old.names if n in new.names and (n not in content_old or n not in content_new)]
    gone, fresh = [n for n in old.names if n not in same], [n for n in new.names if n not in same]
    renamed, divided = {}, {}
    for name in [n for n in gone if n in content_old]:
        into = next((n for n in fresh if content_new.get(n) == content_old[name]), None)
        if into is not None:
            renamed[name] = into
            fresh.remove(into)
    for name in [n for n in gone if n in content_old and n not in renamed]:
        parts = _parts(name, content_old[name], {n: content_new[n] for n in fresh if n in content_new})
        if parts:
            divided[name] = parts
            fresh = [n for n in fresh if n not in parts]
    left = [n for n in gone if n not in renamed and n not in divided]
    changed = [n for n in left if n in fresh]
    found = [remove(*names)] if (names := [n for n in left if n not in fresh]) else []
    found += _moved(renamed, divided)
    found += [revise(*changed)] if changed else []
    return found + ([add(*names)] if (names := [n for n in fresh if n not in changed]) else [])


def _moved(renamed: dict[str, str], divided: dict[str, list[str]]) -> list[Update]:
    """Renamings and partitions in an order in which no name is taken; of a circle, one goes by a name between."""
    found, todo = [], {name: [into] for name, into in renamed.items()} | divided
    while todo:
        name = next((n for n, into in todo.items() if not any(m in todo and m != n for m in into)), None)
        if name is None:
            name = next(iter(todo))
            between = f"{name} (before)"
            found.append(rename(name, between))
            todo[between] = todo.pop(name)
            continue
        into = todo.pop(name)
        found.append(rename(name, *into) if len(into) == 1 else partition(name, *into))
    return found


def _content(domains: DomainSet) -> dict[str, int]:
    return {name: int(text, 16) for name, text in zip(domains.names, domains.content) if text}


def _parts(name: str, content: int, fresh: dict[str, int]) -> list[str]:
    """The new domains that hold the content between them: those named after it, all, or, of few, any; or none."""
    named = [n for n in fresh if n == name or n.startswith(f"{name}:")]
    some = [named, list(fresh)]
    if len(fresh) <= SUBSETS:
        some += [list(s) for k in range(2, len(fresh)) for s in itertools.combinations(fresh, k)]
    return next((s for s in some if len(s) > 1 and sum(fresh[n] for n in s) % CONTENT_MODULUS == content), [])


def check_content(change: Change, old: DomainSet, new: DomainSet) -> None:
    """Refuses a change that says of a domain what its content denies.

    Raises:
      UserError: a domain that should be unaffected has other content, or parts are not the whole.
    """
    content_old, content_new = _content(old), _content(new)
    for name, before in change.revised.items():
        if before in content_old and content_old[before] == content_new.get(name):
            log.warning(
                "update: %s is to be revised, and its text is what it was; runs are spent on what is known", name
            )
    for name, before in change.origin.items():
        if before in content_old and name in content_new and content_old[before] != content_new[name]:
            raise UserError(
                f"{name} is not what it was: its text changed since it was last trained on; add `revise: [{name}]` to "
                "the update file, or put the old text back"
            )
    for whole in dict.fromkeys(change.parts.values()):
        some = [part for part, of in change.parts.items() if of == whole]
        if whole in content_old and all(part in content_new for part in some):
            if sum(content_new[part] for part in some) % CONTENT_MODULUS != content_old[whole]:
                raise UserError(
                    f"{', '.join(some)} do not hold the text of {whole} between them, neither more nor less; say "
                    f"`remove: [{whole}]` and `add: [{', '.join(some)}]` in the update file, or mend the parts"
                )
