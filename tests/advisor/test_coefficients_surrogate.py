"""The surrogate against scikit-learn's Gaussian process, finite differences and functions that are known."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern

from advisor.coefficients_surrogate import JITTER, KERNELS, _log_likelihood, fit_surrogate, squared_distances


def measured(seed=0, merges=9, size=3):
    rng = np.random.default_rng(seed)
    points = np.vstack([np.zeros(size), rng.uniform(0, 1.5, (merges - 1, size))])
    directions = rng.standard_normal((size, 20))
    gram = np.diag(rng.uniform(0.5, 3.0, size))
    values = np.tanh(points @ directions) + 0.3 * (points @ directions[:, ::-1]) ** 2
    return points, values, gram


def test_measured_merges_are_reproduced():
    points, values, gram = measured()
    surrogate = fit_surrogate(points, values, values[0], gram)
    for point, value in zip(points, values, strict=True):
        np.testing.assert_allclose(surrogate.predict(point), value, atol=2e-3)
        assert surrogate.variance(point) < 1e-4


@pytest.mark.parametrize("name", list(KERNELS))
def test_predictions_equal_scikit_learns_for_the_same_kernel(name):
    points, values, gram = measured(seed=3)
    surrogate = fit_surrogate(points, values, values[0], gram)
    root = np.sqrt(np.diag(gram))
    kernel = {"squared exponential": RBF, "matern": lambda length, b: Matern(length, b, nu=2.5)}[surrogate.kernel]
    process = GaussianProcessRegressor(kernel(surrogate.length, "fixed"), alpha=1e-6, optimizer=None)
    process.fit(points * root, values - values[0])
    new = np.random.default_rng(1).uniform(0, 1.5, (5, 3))
    expected = values[0] + process.predict(new * root)
    np.testing.assert_allclose([surrogate.predict(point) for point in new], expected, atol=1e-5)
    h, slope = KERNELS[name](np.array([0.7]))
    step = 1e-5
    assert slope[0] == pytest.approx((KERNELS[name](np.array([0.7 + step]))[0][0] - h[0]) / step, rel=1e-3)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_slopes_equal_finite_differences(seed):
    points, values, gram = measured(seed)
    gram = gram + 0.2
    surrogate = fit_surrogate(points, values, values[0], gram)
    weights = np.random.default_rng(seed).standard_normal(values.shape[1])
    point = np.array([0.3, 0.5, 0.2])
    _, pull = surrogate.predict_with_slope(point)
    step = 1e-6
    numeric = [
        (surrogate.predict(point + step * e) - surrogate.predict(point - step * e)) @ weights / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(pull(weights), numeric, rtol=1e-4, atol=1e-6)


def test_distances_are_those_between_merged_weights():
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3, 50))
    left, right = rng.standard_normal((4, 3)), rng.standard_normal((5, 3))
    found = squared_distances(left, right, vectors @ vectors.T)
    expected = [[((a - b) @ vectors @ vectors.T @ (a - b)) for b in right] for a in left]
    np.testing.assert_allclose(found, expected)
    np.testing.assert_allclose(found[0, 0], np.sum(((left[0] - right[0]) @ vectors) ** 2))


def test_what_cannot_be_fitted_is_refused():
    points, values, gram = measured()
    with pytest.raises(ValueError, match="measure more merges"):
        fit_surrogate(points[:1], values[:1], values[0], gram)
    with pytest.raises(ValueError, match="leave merges that diverged out"):
        fit_surrogate(points, np.where(values > 0, np.inf, values), values[0], gram)
    with pytest.raises(ValueError, match="measure merges with different coefficients"):
        fit_surrogate(np.zeros((3, 3)), values[:3], values[0], gram)


def test_with_a_trend_what_each_expert_does_adds_up_far_from_all_measured_merges():
    points, _, gram = measured(seed=4)
    truth = np.random.default_rng(4).standard_normal((3, 20))
    values = 0.7 + points @ truth
    far = np.array([9.0, 0.0, 4.0])
    found = fit_surrogate(points, values, values[0], gram, trend=True)
    np.testing.assert_allclose(found.predict(far), 0.7 + far @ truth, atol=1e-6)
    without = fit_surrogate(points, values, values[0], gram)
    assert np.abs(without.predict(far) - 0.7 - far @ truth).max() > 1


@pytest.mark.parametrize("seed", [0, 1])
def test_with_a_trend_slopes_are_right_and_measured_merges_reproduced(seed):
    points, values, gram = measured(seed)
    surrogate = fit_surrogate(points, values, values[0], gram, trend=True)
    for point, value in zip(points, values, strict=True):
        np.testing.assert_allclose(surrogate.predict(point), value, atol=2e-3)
    weights = np.random.default_rng(seed).standard_normal(values.shape[1])
    point, step = np.array([0.3, 0.5, 0.2]), 1e-6
    numeric = [
        (surrogate.predict(point + step * e) - surrogate.predict(point - step * e)) @ weights / (2 * step)
        for e in np.eye(3)
    ]
    np.testing.assert_allclose(surrogate.predict_with_slope(point)[1](weights), numeric, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("terms", [0, 3])
def test_the_likelihood_is_that_of_everything_orthogonal_to_the_trend(terms):
    points, values, gram = measured(seed=5)
    basis = points[:, :terms]
    moved = values - values[0]
    found, expected = [], []
    for length in (0.5, 1.5, 4.0):
        kernel = KERNELS["matern"](squared_distances(points, points, gram) / length**2)[0]
        found.append(_log_likelihood(kernel, moved @ moved.T, values.shape[1], basis))
        contrasts = np.linalg.svd(basis)[0][:, terms:] if terms else np.eye(len(points))
        inner = contrasts.T @ (kernel + JITTER * np.eye(len(points))) @ contrasts
        part = contrasts.T @ moved
        amplitude = np.trace(part.T @ np.linalg.solve(inner, part)) / part.size
        expected.append(-np.linalg.slogdet(inner)[1] / 2 - len(part) / 2 * np.log(amplitude))
    np.testing.assert_allclose(np.diff(found), np.diff(expected), rtol=1e-6)


def test_a_trend_needs_a_merge_that_moves_every_expert_on_its_own():
    points, values, gram = measured()
    with pytest.raises(ValueError, match="M of at least 5; measure more merges"):
        fit_surrogate(points[:4], values[:4], values[0], gram, trend=True)
    together = np.outer(np.arange(9.0), np.ones(3))
    with pytest.raises(ValueError, match="measure a merge more for each expert"):
        fit_surrogate(together, values, values[0], gram, trend=True)
