"""The files of a workdir as one frozen value, and the few numbers that page, plots and summary share."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from olmix_jax.report import checks
from olmix_jax.swarm import task_groups
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.swarm.table import SwarmTable
from olmix_jax.utils import files
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.progress import log

# Keys without which a file cannot be reported on, and the stage that writes it.
REQUIRED = {
    "config.json": ("any", ()),
    "train/info.json": ("train", ()),
    "fit/fit.json": ("fit", ("law", "tasks")),
    "propose/proposal.json": ("propose", ("weights", "natural", "caps", "predicted", "predicted_natural")),
    "validate/validation.json": ("validate", ("mixtures",)),
    "update/plan.json": ("update", ()),
}


@dataclasses.dataclass(frozen=True)
class Curves:
    """Training loss in nats per token, ``loss_KT``; a member that diverged has NaN from there on."""

    runs: tuple[str, ...]
    steps_T: np.ndarray
    loss_KT: np.ndarray
    # Tokens that a member sees in a step.
    tokens_per_step: int


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A mean over seeds and its standard error s/√n; one seed has no error."""

    mean: float
    error: float | None
    seeds: int


@dataclasses.dataclass(frozen=True)
class Comparison:
    """How far one mixture lies below another: in percent, and in standard errors of the difference if known."""

    percent: float
    errors: float | None


@dataclasses.dataclass(frozen=True)
class Results:
    """What a workdir holds; None for what no stage has written."""

    workdir: pathlib.Path
    config: dict | None
    domains: DomainSet | None
    table: SwarmTable | None
    curves: Curves | None
    training: dict | None
    fit: dict | None
    proposal: dict | None
    validation: dict | None
    validation_curves: Curves | None
    # The plan of an update; None for a first run.
    update: dict | None = None

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that the law was fitted on, or else of those in the table."""
        if self.fit is not None:
            return tuple(self.fit["tasks"])
        return tuple(self.table.tasks) if self.table is not None else ()

    @property
    def natural(self) -> dict[str, float] | None:
        """The natural distribution by domain."""
        if self.proposal is not None:
            return self.proposal["natural"]
        if self.table is None or self.table.natural_M is None:
            return None
        return dict(zip(self.table.domains, self.table.natural_M.tolist()))

    @property
    def unique_tokens(self) -> dict[str, float]:
        """Unique tokens by domain; empty where nobody counted them."""
        if self.domains is not None:
            return dict(zip(self.domains.names, self.domains.tokens))
        if self.table is None or self.table.tokens_M is None:
            return {}
        return dict(zip(self.table.domains, self.table.tokens_M.tolist()))

    @property
    def epochs(self) -> dict[str, float]:
        """Epochs over each domain that the proposal asks of the target run; empty where they are unknown."""
        return (self.proposal or {}).get("repeats") or {}

    @property
    def binding(self) -> tuple[str, ...]:
        """Domains whose proposed weight is at the most they may get (to a part in a thousand); not those shut out."""
        if self.proposal is None:
            return ()
        caps = self.proposal["caps"]
        capped = {d: cap_of(caps, d) for d in self.proposal["weights"] if 0 < cap_of(caps, d) < 1}
        return tuple(d for d, cap in capped.items() if self.proposal["weights"][d] >= cap * (1 - 1e-3))

    @property
    def repeated(self) -> tuple[str, ...]:
        """Those of ``binding`` whose cap is repetition's; of a proposal that does not say whose caps are, all."""
        by = (self.proposal or {}).get("capped_by") or {}
        return tuple(d for d in self.binding if by.get(d, "repetition") == "repetition")

    @property
    def bounded(self) -> tuple[str, ...]:
        """Those of ``binding`` that a bound of the config's keeps from more, and not repetition."""
        return tuple(d for d in self.binding if d not in self.repeated)

    @property
    def worst(self) -> bool:
        """Whether the proposal is the worst mixture, asked for as a counterfactual."""
        return bool((self.proposal or {}).get("worst"))

    @property
    def validated(self) -> dict[str, Estimate]:
        """Mean BPB of each mixture that was trained for real."""
        mixtures = (self.validation or {}).get("mixtures", {})
        return {name: estimate(m["per_seed"]) for name, m in mixtures.items()}

    @property
    def compared(self) -> bool:
        """Whether the proposal and the natural mixture were both trained for real."""
        return {"natural", "proposed"} <= self.validated.keys()


def cap_of(caps: dict, domain: str) -> float:
    """The largest weight allowed; 1 where there is no cap."""
    cap = caps.get(domain)
    return 1.0 if cap is None else min(float(cap), 1.0)


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and standard error s/√n, s² with n − 1."""
    error = float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else None
    return Estimate(float(np.mean(values)), error, len(values))


def compare(a: Estimate, b: Estimate) -> Comparison:
    """How far ``a`` lies below ``b``: (b − a)/b, and (b − a)/√(se_a² + se_b²), as if their seeds were unrelated."""
    known = a.error is not None and b.error is not None
    error = float(np.hypot(a.error, b.error)) if known else 0.0
    return Comparison(100 * (b.mean - a.mean) / b.mean, (b.mean - a.mean) / error if error > 0 else None)


def effects_NM(fit: dict, natural: dict[str, float] | None = None) -> tuple[list[str], np.ndarray]:
    """Domains, the largest natural share first, and the change in BPB that each makes to each task with effects.

    What is changed stands in ``fit["effect"]``. NaN where a task's effects leave a domain out; what is said of a domain
    that no run contained is for the caller to blank.
    """
    rows = [r["effects"] for r in fit["tasks"].values() if r.get("effects")]
    base = natural or fit.get("base") or {}
    domains = sorted(dict.fromkeys(d for row in rows for d in row), key=lambda d: -base.get(d, 0.0))
    values = [[np.nan if row.get(d) is None else row[d] for d in domains] for row in rows]
    return domains, np.asarray(values, np.float64).reshape(len(rows), len(domains))


def read(workdir: pathlib.Path) -> Results:
    """Reads what is there.

    Raises:
      UserError: the folder holds no results at all, or a file in it is damaged.
    """
    workdir = pathlib.Path(workdir)
    found = {name: _read_json(workdir / name, *REQUIRED[name]) for name in REQUIRED}
    if found["propose/proposal.json"] is not None:
        checks.proposal(workdir / "propose/proposal.json", found["propose/proposal.json"])
    if found["update/plan.json"] is not None:
        checks.plan(workdir / "update/plan.json", found["update/plan.json"])
        checks.informed(workdir / "fit/fit.json", found["fit/fit.json"] or {})
    config = found["config.json"]
    _leave_out_stale(found)
    validated = found["validate/validation.json"] is not None
    results = Results(
        workdir=workdir,
        config=config,
        domains=DomainSet.read(workdir / "domains.json") if (workdir / "domains.json").exists() else None,
        table=_read_table(workdir, config),
        curves=_read_curves(workdir / "swarm/curves.npz"),
        training=found["train/info.json"],
        fit=found["fit/fit.json"],
        proposal=found["propose/proposal.json"],
        validation=found["validate/validation.json"],
        validation_curves=_read_curves(workdir / "validate/curves.npz") if validated else None,
        update=found["update/plan.json"],
    )
    if all(part is None for part in (results.table, results.fit, results.proposal, results.validation)):
        raise UserError(f"{workdir} holds nothing to report; run the earlier stages first, or check --workdir")
    return results


def _leave_out_stale(found: dict) -> None:
    """Drops a proposal of another fit, and the proof of another proposal: neither says anything of the newer file."""
    fit, proposal = found["fit/fit.json"], found["propose/proposal.json"]
    if proposal and fit and proposal.get("fit") not in (None, fit.get("digest")):
        log.warning("report: propose/proposal.json is of another fit and left out; run --stages=propose")
        proposal = found["propose/proposal.json"] = None
    plan = found["update/plan.json"]
    if proposal and plan and set(proposal["weights"]) != set(plan["new"]):
        log.warning("report: propose/proposal.json is of other domains than the update's; run --stages=fit,propose")
        proposal = found["propose/proposal.json"] = None
    proof = found["validate/validation.json"]
    if proof and proof.get("proposal") and (proposal is None or proof["proposal"] != proposal["weights"]):
        log.warning("report: validate/validation.json is of another proposal and left out; run --stages=validate")
        found["validate/validation.json"] = None


def _read_json(path: pathlib.Path, stage: str, keys: Sequence[str]) -> dict | None:
    if not path.exists():
        return None
    content = files.read_json(path)
    missing = [k for k in keys if k not in content]
    if missing:
        raise UserError(f"{path} lacks {', '.join(missing)}; delete it and run --stages={stage} again")
    return content


def _read_table(workdir: pathlib.Path, config: dict | None) -> SwarmTable | None:
    outside, chosen = ((config or {}).get(part) or {} for part in ("swarm", "fit"))
    ratios, metrics, meta = (workdir / "swarm" / name for name in ("ratios.csv", "metrics.csv", "meta.json"))
    if outside.get("ratios"):
        ratios, metrics = (pathlib.Path(outside.get(k) or "") for k in ("ratios", "metrics"))
        meta = outside.get("meta") or ""
    if not (ratios.is_file() and metrics.is_file()):
        return None
    # The meta of an external swarm may be its content, which is no path.
    meta = meta if str(meta).lstrip().startswith("{") or (meta and pathlib.Path(meta).is_file()) else ""
    how = {k: chosen[k] for k in ("drop_metrics", "keep_metrics", "missing") if k in chosen}
    table = SwarmTable.read(ratios, metrics, meta, **how)
    how = {k: chosen[k] for k in ("mmlu_groups", "granularity", "families") if k in chosen}
    return task_groups.grouped(table, **({"mmlu_groups": False, "granularity": "task"} | how))


def _read_curves(path: pathlib.Path) -> Curves | None:
    if not path.exists():
        return None
    try:
        with open(path, "rb") as f, np.load(f, allow_pickle=False) as data:
            runs, tokens = tuple(str(r) for r in data["runs"]), int(data["tokens_per_step"])
            curves = Curves(runs, data["steps_T"], data["loss_KT"], tokens)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as e:
        raise UserError(f"{path} is damaged ({e}); delete it and run the stage that writes it again") from e
    if curves.loss_KT.shape != (len(curves.runs), len(curves.steps_T)):
        raise UserError(f"{path}: loss_KT has shape {curves.loss_KT.shape}, not (runs, steps)")
    return curves
