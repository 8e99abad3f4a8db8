"""Fixtures of the tests of this folder."""

import numpy as np
import pytest
import yaml

from olmix_jax import config as configs
from olmix_jax.utils import progress
from tests.config.published_yaml import PUBLISHED


@pytest.fixture
def logged(monkeypatch):
    """Return the list of logged lines."""
    lines = []
    monkeypatch.setattr(progress.log, "info", lambda text, *args: lines.append(text % args))
    return lines


@pytest.fixture
def translate(tmp_path):
    """Return translate(changes, given, config) → Config: PUBLISHED with changed fields, beside a swarm of ten runs."""
    random = np.random.default_rng(0)
    web_K = random.uniform(0.1, 0.9, 10)
    tables = {"ratios": "run,web,dclm:code\n", "metrics": "run,math:a,math:b,qa::olmes,old,other\n"}
    for k, web in enumerate(web_K):
        scores = [round(1 + np.exp(web * slope), 6) for slope in (-1, 0.5, -0.5, 1, 2)]
        tables["ratios"] += f"r{k},{web},{1 - web}\n"
        tables["metrics"] += f"r{k},{','.join(map(str, scores))}\n"
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)

    def translate(changes=(), given=(), config=()):
        content = yaml.safe_load(PUBLISHED)
        for field, value in dict(changes).items():
            section, _, name = field.partition(".")
            if name:
                content[section][name] = value
            else:
                content[section] = value
        path = tmp_path / "fit.yaml"
        path.write_text(PUBLISHED if not changes else yaml.safe_dump(content))
        return configs.from_dict({"olmix_yaml": str(path), **dict(config)}, given)

    return translate
