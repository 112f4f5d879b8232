import math

import numpy as np
import pytest
from scipy import stats

from benchmarks.judge_statistics import bootstrap, holm, sign_flip


def test_the_bootstrap_interval_covers_the_mean_of_normal_samples() -> None:
    generator = np.random.default_rng(0)
    covered = 0
    for k in range(60):
        found = bootstrap(generator.normal(1.0, 1.0, size=40).tolist(), seed=k)
        assert found["low"] is not None
        assert found["high"] is not None
        covered += found["low"] <= 1.0 <= found["high"]
    assert covered >= 50


def test_units_without_a_value_are_left_out_and_counted() -> None:
    assert bootstrap([1.0, math.nan])["units"] == 1
    assert bootstrap([math.nan])["value"] is None


def test_the_sign_flip_test_agrees_with_scipy() -> None:
    generator = np.random.default_rng(2)
    for shift in (-0.3, 0.0, 0.6):
        values = generator.normal(shift, 1.0, size=10)
        expected = stats.permutation_test(
            (values,), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
        )
        assert sign_flip(values.tolist()) == pytest.approx(expected.pvalue, abs=2e-3)


def test_many_units_are_tested_with_random_signs() -> None:
    values = np.random.default_rng(3).normal(1.0, 1.0, size=30)
    assert sign_flip(values.tolist()) < 0.01
    assert sign_flip((-values).tolist()) > 0.95


def test_holm_is_monotone_and_never_above_one() -> None:
    assert holm({"a": 0.01, "b": 0.03, "c": 0.02}) == pytest.approx({"a": 0.03, "b": 0.04, "c": 0.04})
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
