import numpy as np
import pytest

from benchmarks.judge_calibration import calibrate, interval_score


def test_true_intervals_cover_what_they_promise_and_beat_a_constant_width() -> None:
    generator = np.random.default_rng(0)
    scale = np.where(generator.random(20_000) < 0.5, 0.02, 0.4)
    measured = np.exp(scale * generator.normal(size=20_000))
    predicted = np.ones(20_000)
    low, high = np.exp(-1.645 * scale), np.exp(1.645 * scale)
    found = calibrate(predicted, low, high, measured, measured < 2, gain=0.5)
    assert found.coverage == pytest.approx(0.90, abs=0.01)
    assert found.score < 0.9 * found.constant_score


def test_intervals_that_are_too_narrow_are_told() -> None:
    generator = np.random.default_rng(1)
    measured = np.exp(0.3 * generator.normal(size=5000))
    narrow = np.exp(0.1)
    ones = np.ones(5000)
    found = calibrate(ones, ones / narrow, ones * narrow, measured, measured < 1, gain=0.1)
    assert found.coverage < 0.5
    assert found.score > found.constant_score


def test_width_is_in_units_of_the_gain() -> None:
    measured = np.full(4, 0.9)
    found = calibrate(measured, measured - 0.05, measured + 0.05, measured, np.ones(4, dtype=bool), gain=0.2)
    assert found.width == pytest.approx(0.5)
    assert found.log_error == 0


def test_infinite_risks_are_left_out() -> None:
    measured = np.array([0.9, np.inf])
    found = calibrate(measured, measured * 0.9, measured * 1.1, measured, np.array([True, False]), gain=0.2)
    assert found.rows == 1


def test_the_interval_score_is_the_papers() -> None:
    low, high = np.array([0.0, 0.0, 0.0]), np.array([1.0, 1.0, 1.0])
    assert interval_score(low, high, np.array([0.5, 1.1, -0.2])).tolist() == pytest.approx([1.0, 3.0, 5.0])
