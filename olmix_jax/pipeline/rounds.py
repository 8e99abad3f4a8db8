"""The stage ``rounds``: train the next runs of a proposal, fit and propose again, until promise and measurement agree.

A round is a sequence of stages: ``choose`` takes the runs of ``propose/next.csv`` and notes the promised gain,
``train`` trains them like the proxies of the swarm, and ``measure`` compares the gain that they measured. ``fit`` and
``propose`` follow, with the runs of all rounds in the table. ``rounds/rounds.json`` says how far the rounds are.

The runs of an external swarm are trained elsewhere. ``collect`` takes their scores from ``rounds.metrics``.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator

from olmix_jax.config import workdir as workdirs
from olmix_jax.config.schema import Config
from olmix_jax.pipeline import collect, next_runs
from olmix_jax.pipeline.stage import Stage
from olmix_jax.proxy.train_result import TrainInfo
from olmix_jax.swarm import table
from olmix_jax.swarm.rounds import FOLDER, RECORD, TOO_LARGE, Round, Rounds, Verdict, folder
from olmix_jax.utils.errors import UserError
from olmix_jax.utils.names import listed
from olmix_jax.utils.progress import counted, log

# Results of fit and propose that the promise of a proposal is read from.
DECIDED = ("fit/fit.json", "propose/proposal.json")


def stage(train: Stage, fit: Stage, propose: Stage) -> Stage:
    """Return the stage ``rounds``, given the stages that train the swarm, fit and propose."""
    return Stage(
        "rounds",
        _end,
        by_default=lambda config: bool(config.rounds.metrics),
        reads=lambda config, workdir: (),
        writes=(RECORD,),
        settings=("rounds",),
        repeat=True,
        check=_check,
        first=_collect_first,
        before=lambda config, workdir: _steps(config, workdir, train, (fit, propose)),
    )


def _check(config: Config) -> None:
    if config.update.parent:
        raise UserError("stage rounds cannot be used with config field `update.parent`; update the workdir again")
    if config.swarm.part:
        raise UserError("stage rounds cannot be used with config field `swarm.part`; train all members in one job")
    if config.swarm.ratios and not config.rounds.metrics:
        raise UserError(
            f"stage rounds needs config field `rounds.metrics`, the scores of runs of {next_runs.PATH}: the swarm was "
            "trained elsewhere"
        )
    if config.propose.worst:
        raise UserError("stage rounds tests a proposal, and config field `propose.worst` proposes none; remove one")
    if config.propose.next_runs < 2:
        raise UserError(
            f"stage rounds needs at least 2 runs, the proposal and natural; raise config field `propose.next_runs` = "
            f"{config.propose.next_runs}"
        )


def _collect_first(config: Config, workdir: pathlib.Path) -> Iterator[Stage]:
    """Yield the stage that takes new scores, because fit and propose may replace the proposal that they belong to."""
    if config.swarm.ratios and all((workdir / file).is_file() for file in DECIDED):
        yield _step("collect", collect.run, reads=DECIDED)


def _steps(config: Config, workdir: pathlib.Path, train: Stage, decide: tuple[Stage, ...]) -> Iterator[Stage]:
    """Yield the stages of all rounds. A round that was begun is finished first."""
    if config.swarm.ratios:
        yield _step("collect", collect.run, reads=DECIDED)
        yield from decide
        return
    yield train  # It raises an error if the runs of the rounds would be trained in another way than the swarm.
    while True:
        done = Rounds.read(workdir).rounds
        if done and not done[-1].runs:
            yield _train(train, len(done))
            yield _step(f"{len(done)}/measure", functools.partial(_measure, number=len(done)))
            continue
        yield from decide
        if _reason_to_end(config, done):
            return
        yield _step(f"{len(done) + 1}/choose", functools.partial(_choose, number=len(done) + 1))


def _step(name: str, run, reads: tuple[str, ...] = ()) -> Stage:
    """Return a cheap stage of a round, which always runs."""
    return Stage(
        f"{FOLDER}/{name}",
        run,
        by_default=lambda config: False,
        reads=lambda config, workdir: reads,
        writes=(RECORD,),
        repeat=True,
    )


def _train(train: Stage, number: int) -> Stage:
    """Return the stage that trains a round, like the stage that trains the swarm."""
    where = folder(number)

    def call(name: str, config: Config, workdir: pathlib.Path):
        from olmix_jax.pipeline import train as training  # it loads the training libraries

        return getattr(training, name)(config, workdir, training.Place(where, f"{where}/train"))

    return dataclasses.replace(
        train,
        name=f"{where}/train",
        run=functools.partial(call, "run"),
        reads=lambda config, workdir: tuple(
            f"{where}/ratios.csv" if file == workdirs.RATIOS else file for file in train.reads(config, workdir)
        ),
        writes=(f"{where}/meta.json", f"{where}/metrics.csv"),
        costly=(f"{where}/metrics.csv", f"{where}/train"),
        count_models=functools.partial(call, "count_models"),
        join=functools.partial(call, "join"),
        rehearses=False,
    )


def _choose(config: Config, workdir: pathlib.Path, number: int) -> None:
    """Write the round's mixtures, and what its proposal promises."""
    where = workdir / folder(number)
    if (where / "metrics.csv").exists():
        raise UserError(
            f"{where} holds runs of a round that is not in {workdir / RECORD}; restore that file, or delete "
            f"{workdir / FOLDER} to start with the first round"
        )
    chosen = next_runs.read(workdir).real()  # the models of a round are full proxies
    table.write_ratios(where / "ratios.csv", *chosen)
    promised = next_runs.promise(config, workdir)
    Rounds.read(workdir).with_round(number, promised).write(workdir)
    log.info("round %d: %s to train: %s", number, counted(len(chosen.runs), "run"), listed(list(chosen.runs)))


def _measure(config: Config, workdir: pathlib.Path, number: int) -> None:
    """Note the gain that the round has measured."""
    where, info = workdir / folder(number), TrainInfo.read(workdir / folder(number) / "train/info.json")
    swarm, rounds = workdirs.read_table(config, workdir), Rounds.read(workdir)
    runs = sum(run in swarm.runs for run in table.read_ratios(where / "ratios.csv").runs)
    measured = dataclasses.replace(rounds.rounds[number - 1], runs=runs, tokens=info.own_tokens).measure(swarm)
    rounds.with_round(number, measured).write(workdir)
    log.info("round %d: %s", number, measured.outcome)


def _reason_to_end(config: Config, done: tuple[Round, ...]) -> str:
    """Return why no round follows; empty if one does. An agreement of a proposal with other settings does not count."""
    if done and done[-1].agrees and done[-1].settings in ("", next_runs.settings_digest(config)):
        if done[-1].verdict is Verdict.UNRESOLVED:
            return f"promise and measurement are {TOO_LARGE}; validate has a smaller error"
        return "the promise agrees with what was measured"
    return f"rounds.number = {config.rounds.number}" if len(done) >= config.rounds.number else ""


def _end(config: Config, workdir: pathlib.Path) -> None:
    """Log how the rounds ended."""
    done = Rounds.read(workdir).rounds
    for number, each in enumerate(done, start=1):
        log.info("round %d, %s: %s", number, counted(each.runs, "run"), each.outcome)
    if reason := "" if config.swarm.ratios else _reason_to_end(config, done):
        log.info("rounds: ended after %s: %s", counted(len(done), "round"), reason)
