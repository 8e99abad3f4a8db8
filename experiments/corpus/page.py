"""Write docs/packages.md: what the corpus has, which tasks small proxies can move, and how well a law predicts them.

    python -m experiments.corpus.page --swarm=runs/packages/stage0 --signal=runs/signal

Needs `make corpus`, a fitted swarm of ``configs/packages.py:stage0``, and the workdir of
``experiments.corpus.signal_to_noise``. It measures ``prepare`` again, which takes some minutes.
"""

import argparse
import collections
import pathlib

from benchmarks import prepare
from benchmarks.laws_page import provenance, table
from experiments.corpus import packages, signal_to_noise
from olmix_jax.corpus import task_makers
from olmix_jax.laws.fit_result import FitResult
from olmix_jax.swarm.domains import DomainSet
from olmix_jax.utils import files, progress

ROOT = pathlib.Path(__file__).parents[2]
ABOUT = """\
# The corpus of source distributions

    make corpus                                                                 # fetches 590 MB into data/
    python run.py --config=configs/packages.py --workdir=runs/packages

Text of well-known packages, the same on every machine, for experiments that are compared between machines. The archives
are pinned by version and SHA-256 in [experiments/corpus/packages.toml](../experiments/corpus/packages.toml). They are
fetched through the index that pip is set to use, unpacked in memory, and never built or run. `make corpus` can be
interrupted; it goes on where it stopped. No text of it is part of this project. `make quickstart` does not need it.

Files belong to a domain by ending and path, and those of prose and Python by the subject of their package
([experiments/corpus/domains.py](../experiments/corpus/domains.py)). Left out are folders with copies of other packages,
generated and binary files, files under 64 bytes or over 1 MB, and those with a line of over 1,000 characters.
Near-identical documents are kept once. Of each domain 2 %, at least 0.2 and at most 1 MB, are held out for tasks: the
next paragraph in every domain (`continue:‹domain›`), and the structured tasks of the built-in corpus. An example is
left out if half of its answer's lines of 30 characters and more are in training text.

`configs/packages.py:stage0` to `stage5` are the paper's five updates (section 5.1, Table 5), domain by domain: 24
topics; 15 programming languages added; 6 sources added; `docs:web` revised, with an older release of Django;
`data:tables` removed; `text:translations` partitioned into 20 languages and the rest."""
SIGNAL = """\
The signal of a task is the standard deviation of its BPB over natural and {mixtures} mixtures of a swarm, each a mean
over {seeds} seeds. The noise is the standard deviation over natural's seeds. Models: tiny, {steps} steps of 512 tokens,
sequences of 128 tokens, {examples} examples per task. A task passes if the ratio is {passes:g} or more; this was
decided before the figures were known. With so few seeds and mixtures a ratio has an error of about {error:.0%}.

Tasks that pass are those that a swarm of this size can be judged by. For the others, larger proxies are needed; list
them in `fit.drop_metrics`."""


def domains_table(corpus: pathlib.Path, prepared: pathlib.Path) -> str:
    """Return the domains with documents, bytes, tokens, share and licences."""
    sizes, domains = files.read_json(corpus / "corpus.json")["domains"], DomainSet.read(prepared / "domains.json")
    licence_of = {package.name: package.licence for package in packages.read_table()}
    rows = []
    for name, tokens, share in zip(domains.names, domains.tokens, domains.natural_M):
        of = {path.name.split(".")[0] for path in (corpus / "packages" / name).iterdir()}
        count, size = f"{sizes[name]['documents']:,}", f"{sizes[name]['bytes'] / 1e6:.1f}"
        licences = ", ".join(sorted({licence_of[package] for package in of}))
        rows.append((f"`{name}`", count, size, f"{tokens / 1e6:.2f}", f"{100 * share:.2f}", str(len(of)), licences))
    large = sum(tokens >= 500_000 for tokens in domains.tokens)
    text = (
        f"{len(domains)} domains, {sum(domains.tokens) / 1e6:.0f} M tokens of a vocabulary of 2,048; {large} domains "
        "have 0.5 M tokens or more."
    )
    header = "domain", "documents", "MB", "M tokens", "natural, %", "packages", "licences of the packages"
    return f"{text}\n\n{table(header, rows)}"


def packages_table() -> str:
    """Return the packages with their licences and subjects."""
    rows = [
        (p.file.removesuffix(".tar.gz"), p.licence, p.subject + (", the revised release" if p.older else ""))
        for p in packages.read_table()
    ]
    return table(("archive", "licence, as the package states it", "subject"), rows)


def signal_text(results: dict) -> str:
    """Return the tasks of the corpus, and the paper's, with signal, noise and their ratio."""
    scale, tasks = results["scale"], results["tasks"]
    seeds = scale["seeds"]
    error = (1 / (2 * (seeds - 1)) + 1 / (2 * scale["mixtures"])) ** 0.5
    parts = [SIGNAL.format(**scale, passes=signal_to_noise.PASSES, error=error)]
    groups = collections.defaultdict[bool, list](list)
    for name, row in sorted(tasks.items(), key=lambda item: -item[1]["ratio"]):
        groups[name.startswith("continue:") or name in task_makers.TASKS].append((name, row))
    for is_own, title in ((True, "Tasks of the corpus"), (False, "The paper's 52 tasks")):
        if not groups[is_own]:
            continue
        passed = sum(row["ratio"] >= signal_to_noise.PASSES for _, row in groups[is_own])
        rows = [
            (f"`{name}`", *(f"{row[key]:.3f}" for key in ("natural", "signal", "noise")), f"{row['ratio']:.1f}")
            for name, row in groups[is_own]
        ]
        header = "task", "natural, BPB", "signal, BPB", "noise, BPB", "ratio"
        parts += [f"### {title}: {passed} of {len(rows)} pass", table(header, rows)]
    return "\n\n".join(parts)


def swarm_text(swarm: pathlib.Path) -> str:
    """Return how well a law predicts the swarm's held-out runs."""
    fit = FitResult.read(swarm / "fit/fit.json")
    train = files.read_json(swarm / "train/info.json")
    return (
        f"    python run.py --config=configs/packages.py:stage0 --workdir={swarm} --stages=prepare,sample,train,fit\n\n"
        "The 24 topics, the first stage of the five updates, and all tasks but the paper's. "
        f"{train['members']} proxies of {train['parameters']:,} parameters, {train['tokens_per_member']:,} tokens "
        f"each, in {train['wall_s'] / 60:.0f} minutes ({train['devices']}). Law {fit.law}, {fit.folds} folds: the "
        f"Spearman correlation of held-out runs is {fit.spearman_cv_mean:.3f} on average over "
        f"{len(fit.tasks)} tasks and **{fit.spearman_of_mean_cv:.3f} for the task average**; 90 % intervals cover "
        f"{100 * fit.coverage_cv_mean:.0f} %."
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.corpus.page", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--corpus", default="data", type=pathlib.Path, help="the folder of `make corpus`")
    parser.add_argument("--swarm", required=True, type=pathlib.Path, help="the workdir of a fitted swarm")
    parser.add_argument(
        "--signal", required=True, type=pathlib.Path, help="the workdir of experiments.corpus.signal_to_noise"
    )
    flags = parser.parse_args()
    progress.start_log(None)
    measured = prepare.measure(ROOT, (flags.corpus / "packages").absolute())
    size = prepare.size_of(flags.corpus / "packages")
    parts = [
        ABOUT,
        provenance("`python -m experiments.corpus.page`"),
        "## Domains",
        domains_table(flags.corpus, flags.signal),
        "## Preparing it",
        f"`prepare` reads {size:.0f} MB at {measured.speed:.1f} MB/s. Its peak memory is {measured.peak:.0f} MB, and "
        f"{measured.total:.0f} MB with the processes that it starts.",
        "## A swarm",
        swarm_text(flags.swarm),
        "## Which tasks small proxies can move",
        signal_text(files.read_json(flags.signal / "results.json")),
        "## Packages",
        packages_table(),
    ]
    files.write_text(ROOT / "docs/packages.md", "\n\n".join(parts) + "\n")


if __name__ == "__main__":
    main()
