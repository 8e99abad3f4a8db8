"""The sentence about next runs of two kinds."""

import pytest

from olmix_jax.propose.next_kinds import NextKinds


@pytest.mark.parametrize(
    ("kinds", "text"),
    [
        (
            NextKinds(4, 40, True, 0.1, 0.613, 0.702),
            "the next runs are 4 real runs and 40 cheap runs, at 0.1 of the cost of a real one; they leave 61 % of the "
            "law's standard deviation, and real runs alone would leave 70 % at the same cost",
        ),
        (
            NextKinds(8, 0, True, 0.5, 0.7, 0.7),
            "all next runs are real: at 0.5 of the cost of a real run, cheap ones would reduce the uncertainty less",
        ),
        (
            NextKinds(8, 0, True, 0.0, 0.7, 0.7),
            "all next runs are real, because merged members cost nearly nothing after their experts; for more of them, "
            "raise swarm.merged",
        ),
        (
            NextKinds(8, 0, True, None, 0.7, 0.7),
            "all next runs are real, because the cost of a cheap run is not known; if cheap runs train on fewer "
            "tokens, give the tokens of all runs in swarm.tokens",
        ),
        (
            NextKinds(8, 0, False, 0.1, 0.7, 0.7),
            "all next runs are real, because the real runs do not confirm the cheap ones",
        ),
    ],
)
def test_sentence_says_how_many_of_each_kind_and_why(kinds, text):
    assert str(kinds) == text
