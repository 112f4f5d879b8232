"""The surrogate against scikit-learn's Gaussian process, finite differences and functions that are known."""

import numpy as np
import pytest
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern

from advisor.coefficients_surrogate import KERNELS, fit_surrogate, squared_distances


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
