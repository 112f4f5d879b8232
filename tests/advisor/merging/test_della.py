import numpy as np
import pytest

from advisor.merging.della import della_operator, keep_probabilities
from advisor.merging.operator import TensorVectors


def make_tensor(shape: tuple[int, ...], seed: int = 0) -> TensorVectors:
    size = int(np.prod(shape))
    vectors = np.random.default_rng(3).normal(size=(2, size)).astype(np.float32)
    return TensorVectors(
        name="w",
        key="w",
        shape=shape,
        base=np.zeros(size, np.float32),
        vectors=vectors,
        coefficients=np.array([1.0, 0.5]),
        labels=("a", "b"),
        seed=seed,
    )


def test_keep_probabilities_rise_with_rank_by_hand() -> None:
    rows = np.array([[3.0, -1.0, 2.0], [0.1, 0.2, -0.3]], np.float32)
    np.testing.assert_allclose(keep_probabilities(rows, 0.5, 0.2), [[0.7, 0.3, 0.5], [0.3, 0.5, 0.7]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1, 1), (7, 1), (1,), ()])
def test_rows_of_one_number_keep_the_density(shape: tuple[int, ...]) -> None:
    tensor = make_tensor(shape)
    rows = shape[0] if len(shape) > 1 else 1
    assert (keep_probabilities(tensor.vectors[0].reshape(rows, -1), 0.5, 0.15) == 0.5).all()
    assert np.isfinite(della_operator().merge(tensor)).all()


def test_the_plain_sum_keeps_the_mean_of_the_change() -> None:
    plain = make_tensor((4, 10)).weighted_sum()
    draws = np.stack([della_operator(elect=False).merge(make_tensor((4, 10), seed)) for seed in range(1000)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - plain) < 5 * error).all()


def test_larger_changes_survive_more_often() -> None:
    tensor = make_tensor((1, 30))
    order = np.argsort(np.abs(tensor.vectors[0]))
    kept = np.zeros(30)
    for seed in range(1000):
        drawn = make_tensor((1, 30), seed)
        della_operator(density=0.5, epsilon=0.4).merge(drawn)
        kept += drawn.vectors[0] != 0
    np.testing.assert_allclose(kept[order] / 1000, np.linspace(0.1, 0.9, 30), atol=0.08)


@pytest.mark.parametrize(("density", "epsilon"), [(0.1, 0.15), (0.9, 0.15), (0.5, -0.1)])
def test_probabilities_outside_the_unit_interval_are_refused(density: float, epsilon: float) -> None:
    with pytest.raises(ValueError, match="keep probabilities reach from"):
        della_operator(density=density, epsilon=epsilon)
