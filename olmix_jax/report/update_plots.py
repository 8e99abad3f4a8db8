"""What an update made of a mixture, in numbers and figures.

A figure takes a :class:`Results` and a width in inches.
"""

import dataclasses

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from olmix_jax.report.proposal_plots import TONES
from olmix_jax.report.results import Results
from olmix_jax.report.style import BINDING, NATURAL, PROPOSED, UNIFORM, WIDE, few, labels, number, room
from olmix_jax.update import changes, changes_file

OLD, REST = "#c9ced6", "#dfe2e6"
PALETTE = (*TONES, "#cf6a9b")
KINDS = {
    "kept": (PROPOSED, "new, in the kept block"),
    "recomputed": ("#7b5ea7", "new, recomputed though unaffected"),
    "affected": (UNIFORM, "new, affected by the update"),
}


@dataclasses.dataclass(frozen=True)
class Domain:
    """A domain before and after an update.

    Attributes:
      name: in the new set, or in the old one if it was removed.
      kind: one of :data:`KINDS`, or removed.
      status: what became of it, in words.
      share: of the kept block (p̃), or None outside.
      old, natural, new: weights; None where there is none.
    """

    name: str
    kind: str
    status: str
    share: float | None
    old: float | None
    natural: float | None
    new: float | None


@dataclasses.dataclass(frozen=True)
class Choice:
    """Some domains to recompute: in words, the runs, and the predicted loss with its 5–95 % interval [BPB]."""

    name: str
    runs: int
    mean: float
    low: float
    high: float
    chosen: bool


@dataclasses.dataclass(frozen=True)
class Step:
    """A workdir of the history; ``gain`` over natural in percent, None where there is no proposal."""

    text: str
    domains: int
    strategy: str
    runs: int
    runs_full: int
    gain: float | None
    validated: bool
    weights: dict[str, float]


def steps_of(rows: list[dict]) -> list[changes.Update]:
    """The updates that a plan, or an entry of its history, lists."""
    return [step for row in rows for step in changes_file.step("updates", row)]


def in_words(rows: list[dict], most: int = 3) -> str:
    """Updates in words; of each, ``most`` domains are named."""
    parts = []
    for step in steps_of(rows):
        into = {"partition": " into ", "rename": " to "}.get(step.kind, "")
        parts.append(f"{step.kind} {few(step.domains, most)}{into}{few(step.parts, most)}")
    return "; ".join(parts) or "first swarm"


def kinds(plan: dict) -> dict[str, str]:
    """What each new domain is, in words; unaffected ones that keep their names are ``unaffected``."""
    found = {name: "" for name in plan["old"]}
    for step in steps_of(plan["updates"]):
        was = [found.pop(name) for name in step.domains if name in found and step.kind != "revise"]
        if step.kind in ("add", "revise"):
            found |= dict.fromkeys(step.domains, "added" if step.kind == "add" else "revised")
        came = "part of" if step.kind == "partition" else "renamed from"
        for part in step.parts:
            found[part] = ", ".join(filter(None, [*was, f"{came} {step.domains[0]}"]))
    return {name: found[name] or "unaffected" for name in plan["new"]}


def domains(results: Results) -> list[Domain]:
    """The kept block first, then what was recomputed, then the affected and the removed domains."""
    plan, natural = results.update, results.natural or {}
    change = changes.change(plan["old"], steps_of(plan["updates"])).ordered(plan["new"])
    before, after = plan["history"][-1]["weights"], (results.proposal or {}).get("weights") or {}
    shares = {d: p / sum(block.values()) for block in plan["kept"].values() for d, p in block.items()}
    found = []
    for name, text in kinds(plan).items():
        free = "recomputed" if name in change.origin else "affected"
        kind = "kept" if name in shares else free
        kept = "kept" if free == "recomputed" else "fixed share"
        status = {"kept": kept, "recomputed": "recomputed, though unaffected", "affected": ""}[kind]
        status = ", ".join(filter(None, [status, "" if text == "unaffected" else text]))
        old = _old_weight(name, change, before, natural)
        found.append(Domain(name, kind, status, shares.get(name), old, natural.get(name), after.get(name)))
    found.sort(key=lambda d: (list(KINDS).index(d.kind), -(d.natural or 0.0)))
    gone = [d for d in change.lost if d not in plan["new"]]
    return found + [Domain(d, "removed", "removed", None, before[d], None, None) for d in gone]


def _old_weight(name: str, change: changes.Change, before: dict, natural: dict) -> float | None:
    """The weight that a new domain's content had; a part has its natural share of its whole's."""
    if name in change.origin:
        return before[change.origin[name]]
    if name not in change.parts:
        return before.get(name)
    whole = change.parts[name]
    total = sum(natural.get(part, 0.0) for part, of in change.parts.items() if of == whole)
    return before[whole] * natural.get(name, 0.0) / total if total > 0 else None


def choices(plan: dict) -> list[Choice]:
    """The candidates of a plan in the order in which they were tried; what was chosen is among them."""
    taken = {"recomputed": plan["recomputed"], "proxies": plan["proxies"], "loss": plan["predicted_loss"]}
    rows = list(plan.get("candidates") or ())
    at = [i for i, row in enumerate(rows) if set(row["recomputed"]) == set(taken["recomputed"])]
    rows, chosen = (rows, at[0]) if at else ([*rows, taken], len(rows))
    named = [(_choice_name(plan, row["recomputed"]), round(row["proxies"]), row["loss"]) for row in rows]
    return [
        Choice(name, runs, *(loss[k] for k in ("mean", "low", "high")), i == chosen)
        for i, (name, runs, loss) in enumerate(named)
    ]


def _choice_name(plan: dict, recomputed: list[str]) -> str:
    affected = [name for name, text in kinds(plan).items() if _affected(text)]
    if set(recomputed) >= set(plan["new"]):
        return "all domains"
    if not recomputed:
        return "none"
    more = [name for name in recomputed if name not in affected]
    return f"affected and {few(more, 4)}" if more else "the affected alone"


def _affected(text: str) -> bool:
    return text != "unaffected" and not text.startswith("renamed from")


def history(results: Results) -> list[Step]:
    """What each workdir came to, the oldest first; this one last."""
    found = []
    for row in results.update["history"]:
        gain = 100 * (row["natural"] - row["proposed"]) / row["natural"]
        runs = round(row["proxies"]), round(row["proxies_full"])
        told = in_words(row["updates"]), len(row["weights"]), row["strategy"]
        found.append(Step(*told, *runs, gain, row["validated"], row["weights"]))
    return [*found, _own(results)]


def _own(results: Results) -> Step:
    """This workdir as a step."""
    plan, gain = results.update, None
    if results.compared:
        base, ours = (results.validated[name].mean for name in ("natural", "proposed"))
        gain = 100 * (base - ours) / base
    elif results.proposal is not None:
        base, ours = (np.mean(list(results.proposal[k].values())) for k in ("predicted_natural", "predicted"))
        gain = float(100 * (base - ours) / base)
    runs = round(plan["proxies"]), round(plan["proxies_full"])
    weights = {} if results.proposal is None else results.proposal["weights"]
    told = in_words(plan["updates"]), len(plan["new"]), plan["strategy"]
    return Step(*told, *runs, gain, results.compared, weights)


def mixture(results: Results, width: float) -> Figure:
    """Old and new weights as bars, told apart by what became of each domain; natural as marks."""
    rows = domains(results)
    old_M, natural_M, new_M = (
        100 * np.array([getattr(d, f) if getattr(d, f) is not None else np.nan for d in rows], np.float64)
        for f in ("old", "natural", "new")
    )
    fig = Figure(figsize=(width, 1.2 + 0.42 * len(rows)))
    ax = fig.subplots()
    y = np.arange(len(rows))
    ax.barh(y - 0.19, np.nan_to_num(old_M), 0.36, color=OLD)
    ax.barh(y + 0.19, np.nan_to_num(new_M), 0.36, color=[KINDS.get(d.kind, (OLD,))[0] for d in rows])
    known = np.isfinite(natural_M)
    ax.vlines(natural_M[known], y[known] - 0.4, y[known] + 0.4, color="black", lw=1.2)
    for i in range(len(rows)):
        text = " → ".join("–" if np.isnan(w) else f"{w:.1f}" for w in (old_M[i], new_M[i]))
        ax.text(1.01, y[i], text, transform=ax.get_yaxis_transform(), va="center", fontsize="small")
    ax.set_xlim(0, 1.08 * np.nanmax([*old_M, *natural_M, *new_M, 1.0]))
    ax.set_yticks(y, labels([d.name for d in rows], room(width)))
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_xlabel("weight in the mixture, % of tokens")
    ax.grid(axis="x")
    handles = [Patch(color=OLD, label="old")]
    handles += [Patch(color=c, label=text) for kind, (c, text) in KINDS.items() if kind in {d.kind for d in rows}]
    handles.append(Line2D([], [], color="black", marker="|", ls="", ms=9, mew=1.2, label="natural"))
    fig.legend(handles=handles, loc="outside upper center", ncols=5 if width >= WIDE else 1, fontsize="small")
    return fig


def loss(results: Results, width: float) -> Figure:
    """Predicted loss of each choice with its interval, and what the new law says."""
    rows, gain = choices(results.update), results.update["predicted_gain"]["gain"]
    fig = Figure(figsize=(width, 1.5 + 0.34 * len(rows)))
    ax = fig.subplots()
    for i, row in enumerate(rows):
        tone = PROPOSED if row.chosen else NATURAL
        ax.hlines(i, row.low, row.high, color=tone, lw=2.2)
        ax.plot(row.mean, i, marker="o", ms=6, color=tone)
        text = (f"{number(row.mean)} BPB, " if width >= WIDE else "") + f"{row.runs} runs"
        style = dict(va="center", fontsize="small", fontweight="bold" if row.chosen else "normal")
        ax.text(1.01, i, text, transform=ax.get_yaxis_transform(), **style)
    ax.set_yticks(range(len(rows)), labels([row.name for row in rows], room(width)))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    handles = _loss_legend(ax, rows, (results.proposal or {}).get("reuse") or {})
    ax.set_xlim(left=min(0.0, ax.get_xlim()[0]))
    ax.axvline(0, color="black", lw=0.8)
    ax.set_xlabel("predicted loss against the optimum, BPB")
    ax.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 3))
    ax.grid(axis="x")
    if gain > 0:
        top = ax.secondary_xaxis("top", functions=(lambda x: 100 * x / gain, lambda x: x * gain / 100))
        top.set_xlabel("% of the predicted gain over natural")
        top.xaxis.set_major_locator(MaxNLocator(6 if width >= WIDE else 4))
    fig.legend(handles=handles, loc="outside lower center", ncols=3 if width >= WIDE else 1, fontsize="small")
    return fig


def _loss_legend(ax, rows: list[Choice], reuse: dict) -> list[Line2D]:
    """Entries of the legend; marks what the kept ratios cost by the new law, where any are kept and it is known."""
    tones = [(PROPOSED, "taken"), (NATURAL, "not taken")][: 2 if len(rows) > 1 else 1]
    handles = [Line2D([], [], color=tone, marker="o", lw=2.2, label=text) for tone, text in tones]
    if reuse.get("loss") is not None and "free" in reuse:
        style = dict(marker="D", ms=6, mfc=BINDING, mec="black", ls="")
        ax.plot(reuse["loss"], [row.chosen for row in rows].index(True), **style, zorder=3)
        handles.append(Line2D([], [], **style, label="the kept ratios alone, by the new law"))
    return handles


def largest(steps: list[Step]) -> list[str]:
    """The domains with colours of their own: those that get most at any step, in the order in which they came."""
    most = {}
    for step in steps:
        for name, weight in step.weights.items():
            most[name] = max(weight, most.get(name, 0.0))
    named = sorted(most, key=lambda d: -most[d])[: len(PALETTE)]
    return [name for name in most if name in named]


def through_time(results: Results, width: float) -> Figure:
    """The mixture of each step as a stacked bar; a domain keeps its colour."""
    steps = [(i, step) for i, step in enumerate(history(results)) if step.weights]
    named = largest([step for _, step in steps])
    fig = Figure(figsize=(width, (1.5 if width >= WIDE else 2.6) + 0.42 * len(steps)))
    ax = fig.subplots()
    for y, (_, step) in enumerate(steps):
        left = 0.0
        for name, tone in [*zip(named, PALETTE), (None, REST)]:
            part = sum(w for d, w in step.weights.items() if (d == name if name else d not in named))
            ax.barh(y, 100 * part, 0.72, left=100 * left, color=tone)
            if part > (0.05 if width >= WIDE else 0.12):
                style = dict(color="white" if name else "black", ha="center", va="center", fontsize="small")
                ax.text(100 * (left + part / 2), y, f"{100 * part:.0f}", **style)
            left += part
    texts = labels([step.text for _, step in steps], room(width) - 3)
    ax.set_yticks(range(len(steps)), [f"{i}: {text}" for (i, _), text in zip(steps, texts)])
    ax.set_ylim(len(steps) - 0.5, -0.5)
    ax.set_xlim(0, 100)
    ax.set_xlabel("weight in the mixture, % of tokens")
    handles = [Patch(color=tone, label=text) for tone, text in zip(PALETTE, labels(named, 24))]
    if any(d not in named for _, step in steps for d in step.weights):
        handles.append(Patch(color=REST, label="all others"))
    fig.legend(handles=handles, loc="outside lower center", ncols=4 if width >= WIDE else 2, fontsize="small")
    return fig
