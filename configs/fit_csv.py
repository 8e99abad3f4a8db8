"""A swarm trained elsewhere: fit its tables, propose a mixture and write a report, without training.

    python run.py --config=configs/fit_csv.py --workdir=DIR --config.swarm.ratios=ratios.csv \
        --config.swarm.metrics=metrics.csv --config.swarm.meta=meta.json

`meta.json` holds `relative_sizes` (the natural distribution), `token_counts` (unique tokens per domain; together with
--config.propose.target_tokens they cap repetition) and optionally `drop_metrics`.

A YAML config of the published `olmix fit` can replace all of these flags:

    python run.py --config=configs/fit_csv.py --workdir=DIR --config.olmix_yaml=fit.yaml
"""

from olmix_jax import config


def get_config(variant: str = ""):
    """Return the defaults; `smoke` has fewer starts and folds and skips exploration."""
    c = config.default()
    # Without flags: these files of the current folder, so that nothing is trained if they are missing.
    c.swarm.ratios, c.swarm.metrics = "ratios.csv", "metrics.csv"
    if variant == "smoke":
        c.fit.starts = 4
        c.fit.folds = 2
        c.propose.explore = False
    elif variant:
        raise ValueError(f"configs/fit_csv.py has no variant {variant!r}; the only variant is `smoke`")
    return c
