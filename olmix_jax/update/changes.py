"""Changes of a domain set (METHOD §3).

An :class:`Update` is one step of five kinds:

    add        new domains
    remove     domains that no longer exist
    revise     domains that keep their names and get other content
    partition  one domain that is split into several, which together hold its content
    rename     one domain under another name

A :class:`Change` is the result of several steps. It says which new domains are *unaffected*, so that their old relative
ratios are still meaningful, and which are *affected*.
"""

import dataclasses
import enum
from collections.abc import Mapping, Sequence

import numpy as np

from olmix_jax.utils.errors import UserError


class Kind(enum.StrEnum):
    """The kind of an update step."""

    ADD = "add"
    REMOVE = "remove"
    REVISE = "revise"
    PARTITION = "partition"
    RENAME = "rename"


@dataclasses.dataclass(frozen=True)
class Update:
    """One step of a change.

    Attributes:
      kind: what the step does.
      domains: the domains that are added, removed or revised, or the one domain that is partitioned or renamed.
      parts: the parts of a partition, or the new name of a renaming; empty for other kinds.
    """

    kind: Kind
    domains: tuple[str, ...]
    parts: tuple[str, ...] = ()

    def plain(self) -> dict:
        """Return the step as in an update file: ``{"add": ["a", "b"]}``, ``{"partition": {"a": ["a:x", "a:y"]}}``."""
        if self.kind is Kind.PARTITION:
            return {self.kind.value: {self.domains[0]: list(self.parts)}}
        if self.kind is Kind.RENAME:
            return {self.kind.value: {self.domains[0]: self.parts[0]}}
        return {self.kind.value: list(self.domains)}

    def __str__(self) -> str:
        into = {Kind.PARTITION: " into ", Kind.RENAME: " to "}.get(self.kind, "")
        return f"{self.kind} {', '.join(self.domains)}{into}{', '.join(self.parts)}"


def add(*domains: str) -> Update:
    """Add domains."""
    return Update(Kind.ADD, domains)


def remove(*domains: str) -> Update:
    """Remove domains."""
    return Update(Kind.REMOVE, domains)


def revise(*domains: str) -> Update:
    """Mark domains whose content changed."""
    return Update(Kind.REVISE, domains)


def partition(domain: str, *parts: str) -> Update:
    """Split a domain into parts that together hold its content."""
    return Update(Kind.PARTITION, (domain,), parts)


def rename(domain: str, name: str) -> Update:
    """Give a domain another name."""
    return Update(Kind.RENAME, (domain,), (name,))


@dataclasses.dataclass(frozen=True)
class Change:
    """The difference between an old and a new domain set.

    Attributes:
      old: the domains before.
      new: the domains after, in the order of the steps; :meth:`ordered` changes the order.
      origin: {new name: old name} of the unaffected domains.
      parts: {part: old domain} for the parts of each partitioned domain, if all of them are still present.
      revised: {new name: old name} of the domains whose content changed and that were not partitioned.
      updates: the steps, in order.
    """

    old: tuple[str, ...]
    new: tuple[str, ...]
    origin: Mapping[str, str]
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    revised: Mapping[str, str] = dataclasses.field(default_factory=dict)
    updates: tuple[Update, ...] = ()

    @property
    def unaffected(self) -> tuple[str, ...]:
        """New domains whose content is unchanged."""
        return tuple(name for name in self.new if name in self.origin)

    @property
    def affected(self) -> tuple[str, ...]:
        """New domains that were added or revised, or that are parts of an old domain."""
        return tuple(name for name in self.new if name not in self.origin)

    @property
    def lost(self) -> tuple[str, ...]:
        """Old domains that the new set cannot express, because they were removed or revised."""
        expressible = {*self.origin.values(), *self.parts.values()}
        return tuple(name for name in self.old if name not in expressible)

    def ordered(self, new: Sequence[str]) -> "Change":
        """Return the same change with its new domains in the order of ``new``, such as the columns of a table.

        Raises:
          UserError: ``new`` has other domains.
        """
        if set(new) != set(self.new):
            missing, extra = sorted(set(self.new) - set(new)), sorted(set(new) - set(self.new))
            differences = [f"has no {', '.join(missing)}"] if missing else []
            differences += [f"also has {', '.join(extra)}"] if extra else []
            raise UserError(
                f"the update does not lead to the new domains: the new set {' and '.join(differences)}; correct the "
                "update file or the data"
            )
        return dataclasses.replace(self, new=tuple(new))

    def mixture_matrix(self, tokens_M) -> np.ndarray:
        """Return matrix_OM, which expresses an old mixture on the new domains: new_M = old_O @ matrix_OM.

        A run that sampled an old domain evenly sampled each part in proportion to its tokens, so the parts share the
        old weight in these proportions. Rows of lost domains and columns of added ones are 0.

        Args:
          tokens_M: unique tokens of the new domains, in the order of ``new``.
        """
        matrix_OM, tokens = np.zeros((len(self.old), len(self.new))), dict(zip(self.new, tokens_M))
        total: dict[str, float] = {}
        for part, old in self.parts.items():
            total[old] = total.get(old, 0.0) + tokens[part]
        for m, name in enumerate(self.new):
            if name in self.origin:
                matrix_OM[self.old.index(self.origin[name]), m] = 1.0
            elif name in self.parts:
                old = self.parts[name]
                matrix_OM[self.old.index(old), m] = tokens[name] / total[old]
        return matrix_OM


def change(old: Sequence[str], updates: Sequence[Update]) -> Change:
    """Apply steps to the domains ``old``, one after another.

    Raises:
      UserError: a step names a domain that does not exist or adds one that does, or no domain would be left.
    """
    result = Change(tuple(old), tuple(old), {name: name for name in old})
    for update in updates:
        _check(update, result.new)
        result = dataclasses.replace(_apply(result, update), updates=(*result.updates, update))
    if not result.new:
        raise UserError("the updates leave no domain; a mixture needs at least one")
    return result


def _check(update: Update, domains: tuple[str, ...]) -> None:
    """Check that a step can be applied to a set of domains."""
    created = update.domains if update.kind is Kind.ADD else update.parts
    missing = [name for name in update.domains if name not in domains and update.kind is not Kind.ADD]
    if missing:
        raise UserError(f"update `{update}`: there is no domain {missing[0]}; the domains are {', '.join(domains)}")
    if update.kind is Kind.PARTITION and len(created) < 2:
        raise UserError(f"update `{update}`: a partition needs two parts or more; use `rename` for another name")
    # One part of a partition may keep the name of the whole.
    allowed = update.domains if update.kind is Kind.PARTITION else ()
    taken = [name for name in created if (name in domains and name not in allowed) or created.count(name) > 1]
    if taken:
        raise UserError(f"update `{update}`: the name {taken[0]} already exists or is given twice; use another name")


def _apply(before: Change, update: Update) -> Change:
    """Apply one step that can be applied."""
    if update.kind is Kind.ADD:
        return dataclasses.replace(before, new=before.new + update.domains)
    if update.kind in (Kind.REMOVE, Kind.REVISE):
        return _remove_or_revise(before, update)
    origin, parts, revised = dict(before.origin), dict(before.parts), dict(before.revised)
    (name,) = update.domains
    index = before.new.index(name)
    new = before.new[:index] + update.parts + before.new[index + 1 :]
    unchanged_from, part_of, revised_from = origin.pop(name, None), parts.pop(name, None), revised.pop(name, None)
    if update.kind is Kind.RENAME and unchanged_from:
        origin[update.parts[0]] = unchanged_from
    elif update.kind is Kind.RENAME and revised_from:
        revised[update.parts[0]] = revised_from
    elif whole := unchanged_from or part_of:
        parts |= {part: whole for part in update.parts}
    return dataclasses.replace(before, new=new, origin=origin, parts=parts, revised=revised)


def _remove_or_revise(before: Change, update: Update) -> Change:
    origin, parts, revised = dict(before.origin), dict(before.parts), dict(before.revised)
    for name in update.domains:
        source = origin.pop(name, revised.pop(name, None))
        if source and update.kind is Kind.REVISE:
            revised[name] = source
        # If one part is removed or revised, the other parts no longer hold the whole domain between them.
        whole = parts.get(name)
        parts = {part: old for part, old in parts.items() if old != whole}
    new = before.new
    if update.kind is Kind.REMOVE:
        new = tuple(name for name in before.new if name not in update.domains)
    return dataclasses.replace(before, new=new, origin=origin, parts=parts, revised=revised)
