import numpy as np
import pytest
from scipy import stats

from estimators.intervals import NoiseOfMean, mean_interval, positive_mean_interval, squared_length_interval
from tests.estimator_trials import SETTINGS, run_trials


def test_mean_interval_of_normal_values_is_students():
    values = np.random.default_rng(0).normal(3.0, 2.0, 5000)
    low, high = mean_interval(values)
    twin = stats.t.interval(0.9, 4999, loc=values.mean(), scale=stats.sem(values))
    assert (low, high) == pytest.approx(twin, rel=1e-3)


def test_drawing_the_whole_population_leaves_no_doubt():
    values = np.arange(10.0)
    assert mean_interval(values, population=10) == (4.5, 4.5)
    assert mean_interval(np.ones(5)) == (1.0, 1.0)
    with pytest.raises(ValueError, match="pass at least two"):
        mean_interval(np.ones(1))


def test_heavy_tails_widen_the_interval_beyond_students():
    values = np.zeros(50)
    values[0] = 100.0
    low, high = mean_interval(values)
    assert high - low > 1.2 * np.ptp(stats.t.interval(0.9, 49, loc=2.0, scale=stats.sem(values)))


def test_positive_interval_is_positive_and_symmetric_in_the_logarithm():
    values = np.random.default_rng(0).exponential(size=20)
    low, high = positive_mean_interval(values)
    assert low > 0
    assert low * high == pytest.approx(values.mean() ** 2)
    assert positive_mean_interval(np.zeros(4)) == (0.0, 0.0)


@pytest.mark.parametrize("theta", [0.0, 0.5, 5.0, 50.0])
def test_squared_length_interval_holds_the_truth_in_nine_of_ten_draws(theta):
    rng = np.random.default_rng(int(10 * theta))
    variances = np.array([1.0, 0.5, 0.2, 0.1])
    mean = np.array([theta**0.5, 0, 0, 0])
    noise = NoiseOfMean(trace=variances.sum(), trace_square=(variances**2).sum(), along=1.0)
    held = []
    for _ in range(250):
        v = mean + rng.normal(size=4) * variances**0.5
        low, high = squared_length_interval(float(v @ v) - noise.trace, noise)
        held.append(low <= theta <= high)
    assert 0.84 <= np.mean(held) <= 0.96


def test_squared_length_interval_shrinks_to_the_estimate_without_noise():
    assert squared_length_interval(2.0, NoiseOfMean(trace=0.0, trace_square=0.0, along=0.0)) == pytest.approx(
        (2.0, 2.0)
    )
    assert squared_length_interval(0.0, NoiseOfMean(trace=0.0, trace_square=0.0, along=0.0)) == (0.0, 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_random_estimators_hold_the_truth_in_about_nine_of_ten_trials(setting):
    for name, figures in run_trials(setting, 100).items():
        if figures["trials"] >= 60:
            assert 0.80 <= figures["coverage"] <= 0.99, name
