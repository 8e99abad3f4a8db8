"""Recognise the columns of a table that are no domains and no scores, by their names and cells.

The rules are listed in docs/external-swarm.md. A column that no rule recognises is read, and its values are
checked by :mod:`olmix_jax.swarm.score_checks`.
"""

import re
from collections.abc import Collection, Sequence

from olmix_jax.swarm.csv_lines import is_missing

# Columns that identify a run, and what they are called elsewhere: lower case, in the order of preference.
KEYS = ("run", "name", "index")
CALLED = {
    "run": ("run", "run_id", "run id", "runid"),
    "name": ("name", "run_name", "run name", "display_name"),
    "index": ("index",),
}
# Columns that say how far a run was trained: lower case, words joined by one underscore.
_PROGRESS = frozenset(
    "step steps global_step trainer_step epoch epochs iteration iterations iter tokens num_tokens n_tokens "
    "total_tokens tokens_seen train_tokens".split()
)
# All columns of what a run is, not of how well it does.
RUN_DATA = _PROGRESS | frozenset(
    "seed random_seed lr learning_rate wall_time walltime wall_s elapsed elapsed_time runtime duration time seconds "
    "hours timestamp date datetime current_date created created_at updated_at heartbeat_at started_at finished_at "
    "processing_time tokens_per_second throughput flops total_flops params num_params n_params batch_size grad_norm "
    "status state tags notes user username sweep group job_type project entity host hostname commit git_hash "
    "git_commit gpu_type gpu_count gpus os python_version description path checkpoint ckpt model model_name "
    "model_hash model_path task_hash task_idx alias version filter n_shot num_fewshot fewshot limit num_instances "
    "num_docs n_samples num_samples samples primary_metric".split()
)
# States of runs that did not reach the end: W&B, Slurm.
_UNFINISHED = frozenset(
    "crashed failed killed running preempted preempting pending error cancelled canceled timeout oom".split()
)
# Words that only a name of run data has, wherever they stand in it: ``gpu_hours``, ``eval_steps_per_second``.
_RUN_WORDS = re.compile(
    r"(?:^|_)(?:seconds|secs|hours|minutes|runtime|walltime|elapsed|timestamp|throughput|flops|flos|lr|mfu|tps|usd|"
    r"dropout|warmup|microbatch|per_sec|per_second|wall_clock|wall_time|grad_norm|batch_size|weight_decay|"
    r"learning_rate|loss_scale|world_size|gpu_count|gpu_memory|model_size|n_layers|num_layers|"
    r"(?:start|end|step|iteration|relative|load|train|eval)_time)(?:_|$)"
    r"|^(?:memory|mem|tokens|params|time|duration|runtime|cost|size)_(?:[bmkgt]|s|h|ms|min|gb|mb|gib|mib|billions|millions)$"
)
# Folders of training logs and of settings: ``train/loss``, ``optim/LR (group 0)``, ``config.width``.
_LOGS = re.compile(
    r"(?:(?:train|training|trainer|optim|optimizer|throughput|system|perf|memory|time|wall_clock|lr[^/]*)/"
    r"|(?:params|parameters|config|hparams|args|tags)[/.]).+",
    re.IGNORECASE,
)
# The words of a training loss, of which one is `train` or `training`.
_TRAINING_LOSS = set("train training loss ce lm nll ppl perplexity cross entropy avg mean total final metrics".split())
# Words of scores that are better when higher, and of losses, which are better when lower.
_HIGHER = set(
    "acc accuracy f1 bleu chrf rouge rouge1 rouge2 rougel em recall precision auc auroc mcc likelihood".split()
)
_HIGHER_PAIRS = ("exact_match", "primary_score", "pass_at", "win_rate", "correct_prob")
_LOSS = {"bpb", "bits", "byte", "loss", "nll", "ce", "ppl", "perplexity", "entropy"}
_OF_OTHER = re.compile(
    r"(?P<column>.+?)[ _./-]+(?P<kind>min|max|std|stdev|sd|sem|se|err|error|var|count|n|"
    r"(?:ci_?)?(?:low|high|lower|upper))",
    re.IGNORECASE,
)


def id_kind(column: str) -> str:
    """Return which of KEYS a column's name stands for, in any case; "" for none."""
    if column.casefold() == "id":
        return "run"
    return next((key for key, called in CALLED.items() if column.casefold() in called), "")


def is_row_number(column: str) -> bool:
    """Return whether pandas made the column from the row numbers of a table: no name, ``Unnamed: 0``, ``level_0``."""
    return re.fullmatch(r"(Unnamed: .*|level_\d+)?", column) is not None


def by_name(column: str) -> str:
    """Return what a column is, if its name says that it is no score; else ""."""
    if column.startswith("_"):
        return "a leading underscore"
    if is_row_number(column):
        return "row numbers"
    if id_kind(column):
        return "an id"
    if "stderr" in _words(column):
        return "a standard error"
    if column.endswith(("__MIN", "__MAX")):
        return "a statistic of another column"
    name = "_".join(_words(column.rpartition("/")[2]))
    if name in RUN_DATA or _RUN_WORDS.search(name) or _LOGS.fullmatch(column):
        return "data about the run"
    words = set(_words(column))
    if words & {"train", "training"} and words <= _TRAINING_LOSS:
        return "a training loss"
    return ""


def is_perplexity(column: str) -> bool:
    """Return whether a column is a perplexity by name; its logarithm is a loss."""
    return bool({"ppl", "perplexity"} & set(_words(column))) and "log" not in _words(column)


def original(column: str, columns: Collection[str]) -> str:
    """Return the column whose statistic a column is by name: ``t1`` for ``t1_std``; "" for none."""
    of = _OF_OTHER.fullmatch(column)
    return of["column"] if of is not None and of["column"] in columns else ""


def is_statistic(column: str, values: Sequence[float], of: Sequence[float]) -> bool:
    """Return whether values agree with a name such as ``t1_max``, given the values ``of`` the column t1.

    They do not if t1_max is another task: its scores are then below those of t1 in some runs.
    """
    named = _OF_OTHER.fullmatch(column)
    kind = named["kind"].casefold() if named is not None else ""
    if kind in ("count", "n"):
        return all(value == round(value) for value in values)
    pairs = list(zip(values, of, strict=True))
    if kind in ("min", "max"):
        return all(value <= other if kind == "min" else value >= other for value, other in pairs)
    if kind.endswith(("low", "lower", "high", "upper")):  # a bound of an interval
        below = kind.endswith(("low", "lower"))
        return all(other / 2 < value <= other if below else other <= value < 2 * other for value, other in pairs)
    return all(0 <= value < other / 2 for value, other in pairs)


def is_progress(column: str) -> bool:
    """Return whether a column says how far a run was trained: ``_step``, ``train/global_step``, ``tokens``."""
    return "_".join(_words(column.rpartition("/")[2])) in _PROGRESS


def is_unfinished(column: str, cell: str) -> bool:
    """Return whether a cell says that a run did not reach its end: ``crashed`` in a column ``State``."""
    return column.casefold() in ("state", "status") and cell.strip().casefold() in _UNFINISHED


def is_text(cells: Sequence[str]) -> bool:
    """Return whether a column is text, such as ``finished`` or dates: no cell begins like a number, some hold text."""
    words = [cell for cell in cells if not is_missing(cell)]
    return bool(words) and not any(re.match(r"[+-]?(\.?\d|inf)(?!\d*[-/:]\d)", word, re.IGNORECASE) for word in words)


def has_fractions(cells: Sequence[str]) -> bool:
    """Return whether a column has numbers that are not whole, as ids and row numbers have not."""
    return any(re.fullmatch(r"[+-]?\d*\.(?=\d*[1-9])\d+(e[+-]?\d+)?|\d+e-\d+", cell, re.IGNORECASE) for cell in cells)


def is_higher_better(column: str, values: Sequence[float]) -> bool:
    """Return whether name and values say that higher is better: an accuracy, F1, pass@k, exact match, BLEU or ROUGE.

    The values of such a score are in [0, 1], or percentages of which one exceeds 10.
    """
    words = _words(column)
    named = _HIGHER & set(words) or "pass@" in column.casefold() or any(p in "_".join(words) for p in _HIGHER_PAIRS)
    in_range = min(values) >= 0 and (max(values) <= 1 or 10 < max(values) <= 100)
    return bool(named) and not _LOSS & set(words) and in_range


def _words(column: str) -> list[str]:
    """Return the words of a name: ``acc_norm,none`` gives acc, norm and none."""
    return re.findall(r"[^\W_]+", column.casefold())
