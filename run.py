"""python run.py --config=configs/quickstart.py --workdir=DIR [--stages=fit,propose,report] [--config.‹field›=value]

Stages, in order: prepare, update, sample, train, fit, propose, validate, report. Without --stages all of them run
(update only after an update of the domain set); finished work is found and not repeated, so the same command goes on
where a run was stopped. --stages=plan says what the run will need, without running it.
"""

import os
import pathlib
import re
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from olmix_jax import config as configs
from olmix_jax.utils import progress
from olmix_jax.utils.errors import UserError

CONFIG = config_flags.DEFINE_config_file("config", None, "a file of configs/, as configs/quickstart.py[:smoke]")
WORKDIR = flags.DEFINE_string("workdir", None, "the folder that all results go to")
STAGES = flags.DEFINE_list("stages", None, "stages to run, with commas; default: all that the config calls for")


def parse(argv: list[str]) -> list[str]:
    """absl's flags, with a plain sentence where ml-collections would show a traceback for a field that is not there."""
    try:
        rest = flags.FLAGS(argv, known_only=False)
    except AttributeError as e:
        wanted = [m[1] for a in argv if (m := re.match(r"--config\.([\w.]+)", a))]
        unknown = [w for w in wanted if w not in configs.field_names()]
        raise UserError(configs.unknown_field(unknown[0]) if unknown else str(e)) from e
    except (flags.Error, FileNotFoundError, ValueError, TypeError) as e:
        # A config that raises comes with its traceback in the message; its last line is what went wrong.
        why = str(e).strip().splitlines()[-1]
        raise UserError(
            f"{why}; python run.py --help shows the flags, olmix_jax/config/schema.py the config's fields"
        ) from e
    try:
        # A file that does not load is reported by ml-collections only when the config is looked at.
        CONFIG.value and CONFIG.value.to_dict()
    except OSError as e:
        raise UserError("--config: " + " ".join(str(e).split())) from e
    if len(rest) > 1:
        raise UserError(f"unexpected argument {rest[1]!r}; settings are given as --name=value")
    for flag in (CONFIG, WORKDIR):
        if flag.value is None:
            raise UserError(
                f"--{flag.name} is missing; as in: --config=configs/quickstart.py --workdir=runs/quickstart"
            )
    return rest


def use_all_cpus() -> None:
    """One JAX device per CPU core, unless XLA_FLAGS says otherwise; accelerators are not touched."""
    import jax

    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores)


def keep_compiled(workdir: pathlib.Path) -> None:
    """Programs that took a second or more to compile are kept in the workdir, so that a second start need not; unless
    JAX_COMPILATION_CACHE_DIR names another place."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "compiled"))


def main(argv: list[str]) -> int:
    del argv
    logging.set_verbosity(logging.WARNING)  # JAX tells which backends it did not find
    config = configs.from_dict(CONFIG.value, config_flags.get_override_values(flags.FLAGS["config"]))
    workdir = pathlib.Path(WORKDIR.value)
    use_all_cpus()
    keep_compiled(workdir)
    from olmix_jax import report
    from olmix_jax.pipeline import processes, runner

    processes.start()
    progress.start_log(workdir, processes.number())
    names = tuple(STAGES.value) if STAGES.value else runner.default_stages(config)
    processes.run(config, workdir, names)
    if "report" in names and processes.number() == 0:
        print(f"report: {workdir / 'report/index.html'}")
        print("\n".join(report.summary(workdir)))
    return 0


def guarded(argv: list[str]) -> int:
    """`main`, where a user's mistake is one line on stderr and exit 2, and ctrl-C is exit 130."""
    try:
        return main(argv)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from the last checkpoint", file=sys.stderr)
        return 130


def parse_guarded(argv: list[str]) -> list[str]:
    try:
        return parse(argv)
    except UserError as e:
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    app.run(guarded, flags_parser=parse_guarded)
