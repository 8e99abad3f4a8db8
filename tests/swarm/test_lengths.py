"""lengths.py: training tokens and unique tokens of every run, from a file or from ``token_counts``."""

import logging

import numpy as np
import pytest

from olmix_jax.swarm import lengths, rounds
from olmix_jax.utils.errors import UserError
from tests.swarm.small_swarm import META, write_and_read

TOKENS = "run,tokens,web,code\nr3,3e3,300,100\nr1,1e3,200,50\nr2,1e3,300,100\n"


def read(folder, tokens=TOKENS, meta=META, **options):
    (folder / "tokens.csv").write_text(tokens)
    return write_and_read(folder, meta=meta, tokens=folder / "tokens.csv", **options)


def test_lengths_are_joined_by_run_id(tmp_path):
    table = read(tmp_path)
    assert table.runs == ("r1", "r2", "r3")
    np.testing.assert_array_equal(table.lengths.tokens_K, [1e3, 1e3, 3e3])
    np.testing.assert_array_equal(table.lengths.unique_KM, [[200, 50], [300, 100], [300, 100]])
    assert lengths.groups(table.lengths).tolist() == [0, 1, 2]
    np.testing.assert_array_equal(lengths.rows(table.ratios_KM, table.lengths)[0], [0.25, 0.75, 200, 50, 1e3])


def test_domains_without_a_column_have_their_token_counts(tmp_path):
    table = read(tmp_path, "run,tokens,code\nr1,1e3,50\nr2,1e3,50\nr3,3e3,50\n")
    np.testing.assert_array_equal(table.lengths.unique_KM, [[300, 50]] * 3)
    np.testing.assert_array_equal(read(tmp_path, "run,tokens\nr1,1\nr2,1\nr3,2\n").lengths.unique_KM, [[300, 100]] * 3)


def test_runs_that_are_alike_have_no_lengths(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        assert read(tmp_path, "run,tokens,web\nr1,1e3,200\nr2,1000,200\nr3,1e3,200.0\n").lengths is None
    assert "tokens.csv: no effect, because all runs have the same training tokens" in caplog.text
    assert "token_counts" not in caplog.text
    assert write_and_read(tmp_path).lengths is None


def test_lengths_follow_a_subset_of_runs_and_another_order_of_domains(tmp_path):
    table = read(tmp_path).ordered(("code", "web"))
    np.testing.assert_array_equal(table.lengths.unique_KM[0], [50, 200])
    metrics = "run,qa,math\nr2,1.25,2.25\nr3,1.125,2.125\n"
    np.testing.assert_array_equal(read(tmp_path, metrics=metrics).lengths.tokens_K, [1e3, 3e3])
    more = [f"x{k},.5,.5\n" for k in range(5)]
    many = read(
        tmp_path,
        "run,tokens\n" + "".join(f"x{k},{k + 1}\n" for k in range(5)),
        ratios="run,web,code\n" + "".join(more),
        metrics="run,qa,math\n" + "".join(f"x{k},1.{k},2.{k}\n" for k in range(5)),
    )
    part = many.subsampled(4, 0)
    assert [f"x{int(tokens) - 1}" for tokens in part.lengths.tokens_K] == list(part.runs)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        (TOKENS.replace("r3", "r9"), r"tokens.csv: r9: no such run in .*ratios.csv"),
        (TOKENS.replace("r3,3e3,300,100\n", ""), r"no row for r3 of .*ratios.csv; add the tokens of every run"),
        (TOKENS.replace("tokens", "steps"), "line 1: no column tokens"),
        (TOKENS.replace("code", "cod"), r"line 1: unknown column cod; columns are run, tokens, and the domains of"),
        (TOKENS.replace("3e3", "0"), r"line 2 \(run r3\), column tokens: '0'; write a positive number of tokens"),
        (TOKENS.replace("200", "-5"), r"line 3 \(run r1\), column web: '-5'; write a positive number"),
        (TOKENS.replace("200", ""), r"column web: empty; write a positive number"),
        (TOKENS.replace("200", "inf"), r"column web: 'inf' is not a finite number"),
        (TOKENS.replace("3e3", "4B"), r"'4B' is not a finite number; write tokens as 4000000000 or 4e9, without units"),
        (TOKENS.replace("3e3", '"4,000"'), r"'4,000' is not a finite number; write tokens as 4000000000 or 4e9"),
        (TOKENS.replace("tokens", "Tokens"), "line 1: no column tokens; rename Tokens"),
        (
            "run,tokens,web,code\nr1,1,3e8,1e8\nr2,4,3e8,1e8\nr3,8,3e8,1e8\n",
            r"tokens.csv: column tokens has 1 to 8, and the unique tokens of domains are 1e\+08 to 3e\+08; write both",
        ),
        ("run,tokens,web,code\nr1,1e9,.3,.1\nr2,4e9,.3,.1\nr3,4e9,.3,.1\n", r"has 1e\+09 to 4e\+09, and .* 0.1 to 0.3"),
    ],
)
def test_bad_file_is_an_error_that_names_the_place(tmp_path, tokens, message):
    with pytest.raises(UserError, match=message):
        read(tmp_path, tokens)


def test_domain_called_tokens_is_an_error(tmp_path):
    ratios = "run,web,tokens\nr1,.5,.5\nr2,.4,.6\nr3,.3,.7\n"
    with pytest.raises(UserError, match="ratios.csv: a domain is called tokens, as the column of training tokens in"):
        read(tmp_path, "run,tokens,web\nr1,1,9\nr2,1,9\nr3,2,9\n", meta=None, ratios=ratios)


def test_unknown_pools_are_an_error(tmp_path):
    with pytest.raises(UserError, match="no column for web, and no `token_counts` in swarm.meta"):
        read(tmp_path, "run,tokens,code\nr1,1e3,50\nr2,1e3,50\nr3,3e3,50\n", meta=None)


def test_rounds_cannot_be_added_to_runs_that_differ_in_length(tmp_path):
    with pytest.raises(UserError, match="r1, r2, r3 of a round has none; add the runs of rounds to swarm.ratios"):
        rounds.joined(read(tmp_path), write_and_read(tmp_path))
