"""Choose a pretraining data mixture: run the stages of a config.

    olmix-jax --config=configs/quickstart.py --workdir=DIR [--stages=fit,propose,report] [--config.‹field›=value]

Stages, in order: prepare, update, sample, train, fit, propose, validate, report. Without --stages all of them run, and
update only where the config names a parent. Finished stages are skipped, so the same command resumes an interrupted
run. --stages=plan reports the devices, memory and time that the run needs, without running it. --stages=rounds,report
trains the next runs of a proposal, fits and proposes again, until the promised gain agrees with the measured one.
--stages=trunk trains the steps that all proxies share (swarm.trunk), and --stages=merge scores merged members
(swarm.merged); train otherwise does both first.
"""

import importlib
import pathlib
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from olmix_jax import config as configs
from olmix_jax.config import paths
from olmix_jax.utils import devices, files, progress
from olmix_jax.utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "the config file, such as configs/quickstart.py[:smoke]")
WORKDIR = flags.DEFINE_string("workdir", None, "the folder for all results")
STAGES = flags.DEFINE_list("stages", None, "stages to run, separated by commas; default: all that the config calls for")
EXAMPLE = "--config=configs/quickstart.py --workdir=runs/quickstart"
# Fields that are None on the command line.
_NONE: list[str] = []


def main() -> None:
    """The console command: parse flags, run the stages, exit with a code."""
    app.run(_run_or_explain, flags_parser=_parse_or_exit)


def run(config: configs.Config, workdir: pathlib.Path, names: tuple[str, ...] = ()) -> None:
    """Run stages of a config on all local CPU cores or accelerators, with progress and a log in the workdir.

    Args:
      config: all settings.
      workdir: the folder for all results.
      names: the stages; empty for all that the config calls for.

    Raises:
      UserError: a stage cannot run; the message says what to change.
    """
    devices.use_all_cpus()
    devices.cache_compiled_programs(workdir)
    from olmix_jax.pipeline import processes, runner  # after the devices are set

    paths.check_workdir(config, workdir)
    processes.start()
    devices.check_backend()
    progress.start_log(workdir, processes.process_index())
    names = names or runner.default_stages(config)
    processes.run(config, workdir, names)
    if "report" in names and (workdir / "report/index.html").exists() and processes.process_index() == 0:
        from olmix_jax import report

        print(f"report: {workdir / 'report/index.html'}")
        print("\n".join(report.summary(workdir)))


def _run_or_explain(argv: list[str]) -> int:
    """Run and return the exit code: 2 after a user's mistake, with one line on stderr; 130 after ctrl-C."""
    del argv
    logging.set_verbosity(logging.WARNING)  # JAX logs every backend that it does not find
    progress.hold_log()
    try:
        given = [*config_flags.get_override_values(flags.FLAGS["config"]), *_NONE]
        config = configs.from_dict(configs.with_none(CONFIG.value.to_dict(), _NONE), given)
        run(config, files.local_path(str(WORKDIR.value), "--workdir"), tuple(STAGES.value or ()))
        return 0
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; run the same command to resume from the last checkpoint", file=sys.stderr)
        return 130


def _parse_or_exit(argv: list[str]) -> list[str]:
    if {"--help", "-help", "-h"} & set(argv):
        print(f"{__doc__}\n{flags.FLAGS.module_help(__name__)}\n\nEvery field of a config: olmix_jax/config/schema*.py")
        sys.exit(0)
    try:
        rest, _NONE[:] = without_none([_located(argument) for argument in argv])
        return _parse(rest)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


def _located(argument: str) -> str:
    """Replace ``--config=configs/NAME.py`` by the installed file, if the current folder has no such file."""
    match = re.fullmatch(r"--config=configs/(\w+)\.py(:.*)?", argument)
    if match is None or pathlib.Path("configs", f"{match[1]}.py").is_file():
        return argument
    try:
        installed = importlib.import_module("olmix_jax.configs")
    except ModuleNotFoundError:
        return argument
    # Configs import each other as `configs`, which is their name in a checkout.
    sys.modules.setdefault("configs", installed)
    path = pathlib.Path(installed.__path__[0], f"{match[1]}.py")
    return f"--config={path}{match[2] or ''}" if path.is_file() else argument


def without_none(argv: list[str]) -> tuple[list[str], list[str]]:
    """Return the arguments without flags ``--config.‹field›=None``, and these fields.

    The parsers of ml-collections do not accept None. Fields that cannot be None are left to them.
    """
    rest: list[str] = []
    none: list[str] = []
    i = 0
    while i < len(argv):
        match = re.fullmatch(r"--?config\.([\w.]+)(?:=(.*))?", argv[i], re.DOTALL)
        words, value = argv[i : i + 1], None if match is None else match[2]
        if match is not None and value is None and argv[i + 1 : i + 2] == ["None"]:
            words, value = argv[i : i + 2], "None"
        if match is not None and match[1] in none:
            none.remove(match[1])  # the last value of a flag counts
        if match is not None and value == "None" and configs.optional(match[1]):
            none.append(match[1])
        else:
            rest += words
        i += len(words)
    return rest, none


def _parse(argv: list[str]) -> list[str]:
    """Parse absl flags. Errors are one sentence, where ml-collections would print a traceback."""
    try:
        rest = flags.FLAGS(argv, known_only=False)
    except AttributeError as e:
        wanted = [m[1] for argument in argv if (m := re.match(r"--config\.([\w.]+)", argument))]
        unknown = [name for name in wanted if name not in configs.field_names()]
        raise UserError(configs.unknown_field(unknown[0]) if unknown else str(e)) from e
    except (flags.Error, FileNotFoundError, ValueError, TypeError) as e:
        # The message of a config that raises contains its traceback; the last line is the reason.
        reason = re.sub(r"^\w+Error: ", "", str(e).strip().splitlines()[-1])
        raise UserError(f"{reason}; --help lists the flags, olmix_jax/config/schema*.py list the fields") from e
    try:
        # ml-collections reports a file that does not load only when the config is read.
        if CONFIG.value:
            CONFIG.value.to_dict()
    except OSError as e:
        path = next((m[1] for argument in argv if (m := re.match(r"--?config=([^:]+)", argument))), "")
        missing = path and not pathlib.Path(path).exists()
        reason = f"there is no file {path}; give a file of configs/" if missing else " ".join(str(e).split())
        raise UserError(f"--config: {reason}") from e
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; settings are given as --name=value")
    for flag in (CONFIG, WORKDIR):
        if flag.value is None:
            raise UserError(f"--{flag.name} is missing; for example: {EXAMPLE}")
    return rest
