import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.judge_rank import ceiling, noise_floor, rank, spearman, strata, unseen_rows
from benchmarks.suite_format import Suite


def test_spearman_agrees_with_scipy_ties_included() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        a, b = generator.integers(0, 6, size=(2, 30)).astype(float)
        assert spearman(a, b) == pytest.approx(stats.spearmanr(a, b).statistic)


def test_spearman_of_too_few_or_constant_rows_is_unknown() -> None:
    assert math.isnan(spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))


def test_collapse_alone_gives_no_rank_in_the_useful_region() -> None:
    generator = np.random.default_rng(1)
    measured = np.concatenate([generator.uniform(0.5, 1.0, 200), generator.uniform(5, 50, 200)])
    predicted = np.concatenate([generator.uniform(0.5, 1.0, 200), measured[200:]])
    found = rank(predicted, measured, measured < 1.0, [{}] * 400)
    assert found.overall > 0.8
    assert abs(found.useful) < 0.2


def test_the_worst_stratum_is_found_and_small_ones_do_not_count() -> None:
    measured = np.tile(np.arange(20.0), 3)
    predicted = np.concatenate([np.arange(20.0), -np.arange(20.0), np.arange(20.0)])
    knobs = [{"steps": "10"}] * 20 + [{"steps": "20"}] * 20 + [{"steps": "40"}] * 20
    found = rank(predicted, measured, np.ones(60, dtype=bool), knobs)
    assert found.worst == pytest.approx(-1.0)
    assert found.worst_stratum == "steps 20"
    small = rank(predicted[:30], measured[:30], np.ones(30, dtype=bool), knobs[:30])
    assert small.worst_stratum == "steps 10"


def test_unseen_rows_are_long_and_were_not_probed(suite: Suite) -> None:
    rows = unseen_rows(suite, 0, frozenset(), 8)
    assert {max(suite.groups[int(suite.group[row])].steps) for row in rows} == {32}
    seen = frozenset(map(int, rows[:5]))
    assert len(unseen_rows(suite, 0, seen, 8)) == len(rows) - 5


def test_strata_name_the_knobs_of_equal_recipes_only(suite: Suite) -> None:
    rows = [int(suite.rows(0)[0]), int(suite.rows(0, ("alone",))[0])]
    equal, alone = strata([suite.plan(row) for row in rows])
    assert equal["batch size"] == "4"
    assert alone == {}


def test_two_seeds_of_one_law_agree_nearly(suite: Suite) -> None:
    found = ceiling(suite, 0, 1, 8)
    assert found.overall > 0.95
    assert 0 <= noise_floor(suite, 0, 1) < 0.3
    assert noise_floor(suite, 0, 0) == 0
