import numpy as np
import pytest
from sklearn.base import clone

from estimators.gradient_variance import GradientVariance
from estimators.outcomes import TooFewSamples
from tests.known_problems import random_quadratic_task
from tests.quadratic_objectives import QuadraticObjective, measurement_of, rows_of, split_of


def quadratic(seed=0, size=8):
    rng = np.random.default_rng(seed)
    task = random_quadratic_task(rng, size)
    return task, QuadraticObjective(task, np.zeros(size)), rng


def test_variance_equals_the_brute_force_trace_of_the_covariance():
    task, objective, rng = quadratic()
    samples = task.sample(50, rng)
    gradients = task.gradients(np.zeros(8), samples)
    found = GradientVariance(num_samples=50).fit(objective, split_of(samples)).estimate_
    assert found.value == pytest.approx(np.trace(np.cov(gradients.T)), rel=1e-10)


@pytest.mark.parametrize("batched_from", [None, 64])
def test_variance_is_unbiased_and_converges(batched_from):
    task, _, rng = quadratic(1)
    errors = {}
    for count in (128, 2048):
        values = [
            GradientVariance()
            .fit_gradients(
                measurement_of(task.gradients(np.zeros(8), task.sample(count, rng)), batched_from=batched_from)
            )
            .estimate_.value
            for _ in range(60)
        ]
        errors[count] = np.std(values)
        assert np.mean(values) == pytest.approx(task.gradient_variance, abs=4 * np.std(values) / 60**0.5)
    assert errors[2048] < errors[128] / 2.5


def test_the_whole_split_leaves_no_sampling_error():
    task, objective, rng = quadratic(2)
    found = GradientVariance(num_samples=40).fit(objective, split_of(task.sample(40, rng))).estimate_
    assert found.low == found.value == found.high


def test_noise_scale_is_variance_over_squared_gradient():
    task, _, rng = quadratic(3)
    start = task.centre + 30.0
    rows = rows_of(task.gradients(start, task.sample(2_000, rng)))
    truth = task.gradient_variance / float(task.gradient(start) @ task.gradient(start))
    found = GradientVariance().fit_gradients(measurement_of(rows.sketches.numpy())).noise_scale_
    assert found.identifiable
    assert found.low < truth < found.high
    assert found.value == pytest.approx(truth, rel=0.2)


def test_noise_scale_without_signal_reports_only_its_lower_end():
    task, _, rng = quadratic(4)
    gradients = task.gradients(task.centre, task.sample(64, rng))
    found = GradientVariance().fit_gradients(measurement_of(gradients - gradients.mean(0))).noise_scale_
    assert not found.identifiable
    assert found.high == np.inf
    assert 0 < found.low <= found.value < np.inf


def test_zero_gradients_are_an_outcome_not_an_error():
    found = GradientVariance().fit_gradients(measurement_of(np.zeros((16, 4))))
    assert found.estimate_.value == 0
    assert not found.estimate_.identifiable
    assert "fits perfectly" in found.estimate_.note
    assert found.noise_scale_.value == 0


def test_one_sample_is_a_named_outcome():
    task, objective, rng = quadratic()
    with pytest.raises(TooFewSamples, match="num_samples=1 is too few for a variance"):
        GradientVariance().fit(objective, split_of(task.sample(1, rng)))


def test_parameters_are_cloned_in_scikit_learns_way():
    assert clone(GradientVariance(num_samples=5, random_state=3)).get_params() == {
        "memory_budget": None,
        "num_samples": 5,
        "num_single": None,
        "random_state": 3,
    }


def test_seeds_decide_the_draw():
    task, objective, rng = quadratic()
    split = split_of(task.sample(100, rng))
    values = [GradientVariance(num_samples=20, random_state=s).fit(objective, split).estimate_.value for s in (0, 0, 1)]
    assert values[0] == values[1] != values[2]
