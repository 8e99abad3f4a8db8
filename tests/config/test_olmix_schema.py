"""olmix_schema.py and the checks of olmix_yaml.py: unsupported fields and malformed files are errors that name them."""

import pytest

from olmix_jax import config as configs
from olmix_jax.utils.errors import UserError
from tests.config.published_yaml import PUBLISHED


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"filtering.keep_sources": ["web"]}, "`filtering.keep_sources`: is not supported"),
        ({"filtering.support_domains": ["web"]}, "`filtering.support_domains`: is not supported"),
        (
            {"filtering.fixed_weight": {"dclm": 0.5}},
            r"`filtering.fixed_weight`: dclm is a source of .*propose.bounds='{.dclm:\*.: 0.5}'",
        ),
        ({"filtering.fixed_weight": {"wbe": 0.5}}, "`filtering.fixed_weight`: wbe is no domain .*; the nearest is web"),
        ({"filtering.fixed_weight": {"web": "x"}}, "`filtering.fixed_weight.web`: must be a number"),
        (
            {"proposer.type": "simulation", "proposer.make_worst_mix": True},
            "`proposer.make_worst_mix`: is not supported",
        ),
        ({"proposer.type": "simulation", "proposer.temperature": 0.5}, "`proposer.temperature`: 0.5 is not supported"),
        ({"proposer.type": "dro"}, "`proposer.type`: must be exact, simulation or search, not 'dro'"),
        (
            {"priors.expanded_relative_sizes": {"web": 1}},
            "`priors.expanded_relative_sizes`: needs `proposer",
        ),
        ({"token_counts": {"web": 1}}, "unknown section `token_counts`; it belongs in the section `priors`"),
        ({"kl_reg": 0.1}, "unknown section `kl_reg`; it belongs in the section `proposer`"),
        ({"regression.kl_reg": 0.1}, "unknown field `regression.kl_reg`; it belongs in the section `proposer`"),
        ({"proposer.type": "search"}, "`proposer.type`: .* it needs `regression.type: search`"),
        ({"regression.n_test": 10}, "`regression.n_test`: is not supported. .*cross-validation"),
        ({"regression.type": "loglinear"}, "`regression.type`: must be one of log_linear, .*'loglinear'"),
        ({"regression.train_split": [0.5, 0.5]}, "`regression.train_split`: must be one number"),
        ({"regression.seed": 1.5}, "`regression.seed`: must be a whole number, not 1.5"),
        ({"regression.aggregate_task_families": "yes"}, "`regression.aggregate_task_families`: must be true or false"),
        ({"proposer.kl_regg": 0.1}, "unknown field `proposer.kl_regg`; the nearest is `proposer.kl_reg`"),
        ({"proposer.kl_reg": "__import__('os')"}, "`proposer.kl_reg`: must be a number or a fraction such as 7/52"),
        ({"filtering.obj_weights": {"math": "7/0"}}, "`filtering.obj_weights.math`: must be a number .* not '7/0'"),
        ({"filtering.obj_weights": {"math": True}}, "`filtering.obj_weights.math`: must be a number"),
        ({"filtering.drop_metrics": [1]}, "`filtering.drop_metrics`: must be a list of names"),
        ({"infra": {"gpus": 1}}, "unknown section `infra`; the nearest is"),
        ({"priors": None}, "has no section `priors`"),
        ({"swarm": "ratios.csv"}, "`swarm` must be a mapping"),
        ({"swarm.metrics": None}, "`swarm.metrics`: missing"),
        ({"swarm.ratios": "nowhere.csv"}, "`swarm.ratios`: no file nowhere.csv in the working directory or at"),
        ({"priors.relative_sizes": {}, "priors.token_counts": {}}, "`priors.relative_sizes`: missing"),
        ({"priors.token_counts": None}, "`priors.token_counts`: missing, and `constraints.enabled` is true"),
        ({"constraints.target_tokens": None}, "`constraints.target_tokens`: missing, and `enabled` is true"),
        (
            {"constraints.target_chinchilla_multiple": 5},
            "`constraints.target_chinchilla_multiple`: is not supported. Remove it; give `target_tokens`",
        ),
        (
            {"eval.tasks": {"math": ["old"]}},
            "`eval.tasks`: `filtering.drop_metrics` drops all of them; keep at least one",
        ),
        (
            {"filtering.drop_metrics": ["qa"], "filtering.obj_weights": {"qa": 1}},
            "`filtering.obj_weights`: `drop_metrics` drops every name in it: qa",
        ),
        (
            {"priors.token_counts": {"web": "1__0", "dclm:code": "x_1"}},
            "`priors.token_counts.dclm:code`: must be a number",
        ),
        ({"eval.tasks": {"math": []}}, r"`eval.tasks.math`: must be a list of metric columns, not \[\]"),
    ],
)
def test_unsupported_field_is_an_error_that_names_it(translate, changes, message):
    """PITFALL 19: no setting is accepted and then ignored."""
    with pytest.raises(UserError, match="fit.yaml: " + message):
        translate(changes)


@pytest.mark.parametrize(
    "text, message",
    [
        (None, "no such file"),
        ("a: [", "not valid YAML: .*line 1"),
        ("- a", "must be a mapping with the sections swarm"),
        ("!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"\xff\xfe\x00", "not valid YAML"),
        (
            PUBLISHED.replace('"1e9"', '"1e9"\n    web: 1'),
            "not valid YAML: line 12: `web` is already on line 10; keep one",
        ),
        (PUBLISHED + "swarm: {}", "not valid YAML: line 40: `swarm` is already on line 2; keep one"),
        ("swarm: {ratios: a, ratios: b}", "not valid YAML: line 1: `ratios` is already on line 1; keep one"),
    ],
)
def test_malformed_file_is_an_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "fit.yaml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match="fit.yaml: " + message):
        configs.from_dict({"olmix_yaml": str(path)})
