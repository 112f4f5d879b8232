import numpy as np
import pytest

from advisor.merging.breadcrumbs import breadcrumbs_operator, mask_both_ends


@pytest.mark.parametrize(
    ("size", "density", "gamma"), [(1000, 0.1, 0.01), (1000, 0.5, 0.5), (50, 0.1, 0.01), (3, 0.9, 0)]
)
def test_the_band_is_the_sorted_slice(size: int, density: float, gamma: float) -> None:
    vector = np.random.default_rng(size).normal(size=size).astype(np.float32)
    descending = np.argsort(-np.abs(vector))
    outliers = int(gamma * size)
    band = descending[outliers : outliers + max(1, int(density * size))]
    expected = np.zeros_like(vector)
    expected[band] = vector[band]
    mask_both_ends(vector, density, gamma)
    np.testing.assert_array_equal(vector, expected)


def test_tensors_of_one_number_or_none_survive() -> None:
    one = np.array([2.0], np.float32)
    mask_both_ends(one, 0.1, 0.01)
    assert one.tolist() == [2.0]
    mask_both_ends(np.zeros(0, np.float32), 0.1, 0.01)


def test_a_wrong_gamma_is_refused() -> None:
    with pytest.raises(ValueError, match=r"gamma=1\.0 must be at least 0 and below 1"):
        breadcrumbs_operator(gamma=1.0)
