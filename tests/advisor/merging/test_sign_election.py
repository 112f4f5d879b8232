import numpy as np
import pytest

from advisor.merging.sign_election import Aggregate, elect_and_merge

VECTORS = np.array([[3.0, 3.0, -1.0, 0.0, 2.0], [-1.0, 1.0, -2.0, 0.0, -2.0], [-1.0, 0.0, 2.0, 0.0, 0.0]], np.float32)


@pytest.mark.parametrize(
    ("aggregate", "expected"),
    [
        ("sum", [3.0, 4.0, -3.0, 0.0, 0.0]),
        ("mean", [3.0, 2.0, -1.5, 0.0, 0.0]),
        ("max", [3.0, 3.0, -2.0, 0.0, 0.0]),
    ],
)
def test_five_numbers_by_hand(aggregate: Aggregate, expected: list[float]) -> None:
    assert elect_and_merge(VECTORS.copy(), aggregate).tolist() == expected


@pytest.mark.parametrize("aggregate", ["sum", "mean", "max"])
def test_signs_and_scale_pass_through(aggregate: Aggregate) -> None:
    vectors = np.random.default_rng(0).normal(size=(4, 100_000)).astype(np.float32)
    merged = elect_and_merge(vectors, aggregate)
    np.testing.assert_array_equal(elect_and_merge(-vectors, aggregate), -merged)
    np.testing.assert_array_equal(elect_and_merge(2 * vectors, aggregate), 2 * merged)
    np.testing.assert_allclose(elect_and_merge(vectors[::-1], aggregate), merged, rtol=1e-5, atol=1e-6)
