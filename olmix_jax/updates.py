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
from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax.domains import DomainSet
from olmix_jax.errors import UserError

KINDS = ("add", "remove", "revise", "partition", "rename")
# Content of domains is a sum of hashes modulo this.
CONTENT = 2**128


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
      updates: the updates, in order.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    origin: Mapping[str, str]
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
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
    origin, parts = dict(now.origin), dict(now.parts)
    if update.kind == "add":
        return dataclasses.replace(now, new=now.new + update.domains)
    if update.kind in ("remove", "revise"):
        for name in update.domains:
            origin.pop(name, None)
            # Where one part is not what it was, the others do not hold the whole.
            whole = parts.get(name)
            parts = {part: of for part, of in parts.items() if of != whole}
        left = tuple(name for name in now.new if update.kind == "revise" or name not in update.domains)
        return dataclasses.replace(now, new=left, origin=origin, parts=parts)
    (name,) = update.domains
    at = now.new.index(name)
    new = now.new[:at] + update.parts + now.new[at + 1 :]
    source, whole = origin.pop(name, None), parts.pop(name, None)
    if update.kind == "rename" and source:
        origin[update.parts[0]] = source
    elif source or whole:
        parts |= {part: source or whole for part in update.parts}
    return dataclasses.replace(now, new=new, origin=origin, parts=parts)


def infer(old: DomainSet, new: DomainSet) -> list[Update]:
    """The updates that lead from one set to the other, by names and, where both have it, by content.

    A domain of other content under its name is revised; one of known content under another name is renamed; several
    whose content is, between them, that of one that is no more, are its parts.
    """
    content_old, content_new = _content(old), _content(new)
    gone = [name for name in old.names if name not in new.names]
    fresh = [name for name in new.names if name not in old.names]
    found = []
    for name in list(gone):
        same = [n for n in fresh if content_old.get(name) is not None and content_new.get(n) == content_old[name]]
        if same:
            found.append(rename(name, same[0]))
        else:
            parts = _parts(name, content_old, content_new, fresh)
            if not parts:
                continue
            found.append(partition(name, *parts))
            same = parts
        gone.remove(name)
        fresh = [n for n in fresh if n not in same[: 1 if found[-1].kind == "rename" else None]]
    both = [name for name in old.names if name in new.names]
    changed = [n for n in both if n in content_old and n in content_new and content_old[n] != content_new[n]]
    for kind, names in ((remove, gone), (revise, changed), (add, fresh)):
        found += [kind(*names)] if names else []
    return found


def _content(domains: DomainSet) -> dict[str, int]:
    return {name: int(text, 16) for name, text in zip(domains.names, domains.content) if text}


def _parts(name: str, content_old: dict, content_new: dict, fresh: list[str]) -> list[str]:
    """The new domains that hold ``name``'s content between them: those named after it, or all; or none."""
    for some in ([n for n in fresh if n.startswith(f"{name}:")], fresh):
        if len(some) > 1 and name in content_old and all(n in content_new for n in some):
            if sum(content_new[n] for n in some) % CONTENT == content_old[name]:
                return some
    return []


def check_content(change: Change, old: DomainSet, new: DomainSet) -> None:
    """Refuses a change that says of a domain what its content denies.

    Raises:
      UserError: a domain that should be unaffected has other content, or parts are not the whole.
    """
    content_old, content_new = _content(old), _content(new)
    for name, before in change.origin.items():
        if before in content_old and name in content_new and content_old[before] != content_new[name]:
            raise UserError(
                f"{name} is not what it was: its text changed since it was last trained on; add `revise: [{name}]` to "
                "the update file, or put the old text back"
            )
    for whole in dict.fromkeys(change.parts.values()):
        some = [part for part, of in change.parts.items() if of == whole]
        if whole in content_old and all(part in content_new for part in some):
            if sum(content_new[part] for part in some) % CONTENT != content_old[whole]:
                raise UserError(
                    f"{', '.join(some)} do not hold the text of {whole} between them, neither more nor less; say "
                    f"`remove: [{whole}]` and `add: [{', '.join(some)}]` in the update file, or mend the parts"
                )
