"""Growth and noise sums against plain loops, and in both limits."""

import numpy as np
import pytest
from scipy.integrate import quad

from advisor.bound_growth import log_growth, log_growth_of, noise_sum, noise_sum_of, rising_weight, step_vector
from estimators.recipe import Recipe


@pytest.mark.parametrize("rate_smoothness", [1e-12, 1e-3, 0.5, 2.0, 30.0])
@pytest.mark.parametrize("steps", [1, 2, 17])
def test_closed_growth_equals_the_sum(rate_smoothness, steps):
    g = 1 + rate_smoothness
    log_q1, log_q2 = log_growth(np.array(rate_smoothness), np.array(float(steps)))
    np.testing.assert_allclose(np.exp(log_q1), sum(g**t for t in range(steps)), rtol=1e-9)
    np.testing.assert_allclose(np.exp(log_q2), sum(g ** (2 * t) for t in range(steps)), rtol=1e-9)
    ones = log_growth_of(np.array([rate_smoothness]), np.ones(steps))
    np.testing.assert_allclose([log_q1, log_q2], np.ravel(ones), rtol=1e-9, atol=1e-9)


def test_growth_far_beyond_a_float_has_the_right_logarithm():
    log_q1, log_q2 = log_growth(np.array(9.0), np.array(1e6))
    # Q_1 = (10^K - 1)/9, Q_2 = (100^K - 1)/99
    np.testing.assert_allclose(log_q1 / np.log(10), 1e6 - np.log10(9), rtol=1e-12)
    np.testing.assert_allclose(log_q2 / np.log(10), 2e6 - np.log10(99), rtol=1e-12)
    long = log_growth_of(np.array([9.0]), np.ones(5000))
    np.testing.assert_allclose(long[0] / np.log(10), [5000 - np.log10(9)])


@pytest.mark.parametrize("kappa", [0.0, 1e-8, 9e-5, 1.1e-4, 0.3, 5.0, 200.0])
def test_the_rising_weight_is_its_integral(kappa):
    truth = quad(lambda s: s * np.exp(-kappa * (1 - s)), 0, 1, epsabs=1e-13)[0]
    np.testing.assert_allclose(rising_weight(np.array(kappa)), truth, rtol=1e-9)


@pytest.mark.parametrize("decay", [0.0, 1e-9, 0.7, 40.0])
def test_the_noise_sum_of_equal_steps_is_the_closed_one(decay):
    plain = noise_sum(np.array([decay]), np.array([25.0]))
    np.testing.assert_allclose(plain, noise_sum_of(np.array([decay]), np.ones(25)), rtol=1e-9)


def test_at_no_curvature_the_noise_sum_is_half_the_energy():
    weights = np.array([3.0, 1.0, 0.5])
    np.testing.assert_allclose(noise_sum_of(np.zeros(1), weights), 0.5 * (weights**2).sum())
    np.testing.assert_allclose(noise_sum(np.zeros(2), np.array([1.0, 8.0])), [0.5, 4.0])


def test_step_vectors_are_those_of_the_recipe():
    recipe = Recipe(
        learning_rate=1, batch_size=1, steps=12, optimizer="momentum", momentum=0.8, schedule="warmup_cosine"
    )
    np.testing.assert_array_equal(step_vector(0.8, 1, 12), recipe.step_weights())
    np.testing.assert_array_equal(step_vector(0.0, 0, 3), np.ones(3))
