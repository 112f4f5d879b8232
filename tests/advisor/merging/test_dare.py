import numpy as np
import pytest

from advisor.merging import merge_state_dicts
from advisor.merging.dare import dare_operator, dare_ties_operator
from advisor.merging.operator import TensorVectors
from advisor.merging.sign_election import elect_and_merge
from tests.advisor.merging.checkpoints import random_base, random_experts


def make_tensor(size: int, seed: int = 0) -> TensorVectors:
    vectors = np.random.default_rng(7).normal(size=(2, size)).astype(np.float32)
    return TensorVectors(
        name="w",
        key="w",
        shape=(size,),
        base=np.zeros(size, np.float32),
        vectors=vectors,
        coefficients=np.array([1.0, 0.5]),
        labels=("a", "b"),
        seed=seed,
    )


def masks(tensor: TensorVectors, density: float) -> list[np.ndarray[tuple[int], np.dtype[np.bool_]]]:
    return [tensor.generator(label).random(tensor.base.size, dtype=np.float32) < density for label in tensor.labels]


def test_dare_is_its_formula_for_a_given_mask() -> None:
    tensor = make_tensor(1000)
    vectors = tensor.vectors.copy()
    a, b = masks(tensor, 0.3)
    expected = 1.0 * a * vectors[0] / 0.3 + 0.5 * b * vectors[1] / 0.3
    np.testing.assert_allclose(dare_operator(density=0.3).merge(tensor), expected, rtol=1e-5)


def test_dare_ties_is_sign_election_on_the_masked_vectors() -> None:
    tensor = make_tensor(1000)
    a, b = masks(tensor, 0.3)
    masked = np.stack([a * tensor.vectors[0] / 0.3, 0.5 * b * tensor.vectors[1] / 0.3]).astype(np.float32)
    expected = elect_and_merge(masked, "sum")
    np.testing.assert_allclose(dare_ties_operator(density=0.3).merge(tensor), expected, rtol=1e-5)


def test_dare_keeps_the_mean_of_the_change() -> None:
    plain = make_tensor(40).weighted_sum()
    draws = np.stack([dare_operator(density=0.2).merge(make_tensor(40, seed)) for seed in range(1500)])
    error = draws.std(axis=0) / np.sqrt(len(draws))
    assert (np.abs(draws.mean(axis=0) - plain) < 5 * error).all()


def test_full_density_is_task_arithmetic_and_no_rescaling_shrinks() -> None:
    base = random_base()
    experts = random_experts(base)
    full = merge_state_dicts(base, experts, method="dare", density=1.0)
    plain = merge_state_dicts(base, experts, method="task_arithmetic")
    assert all(np.array_equal(full[name], plain[name]) for name in base)
    scaled = dare_operator(density=0.25).merge(make_tensor(100))
    unscaled = dare_operator(density=0.25, rescale=False).merge(make_tensor(100))
    np.testing.assert_allclose(unscaled, scaled * 0.25, rtol=1e-6)


def test_a_trim_after_dropping_keeps_the_largest_of_each_tensor() -> None:
    merged = dare_ties_operator(density=1.0, trim_density=0.1, aggregate="max").merge(make_tensor(1000))
    assert 100 <= np.count_nonzero(merged) <= 200


def test_wrong_densities_are_refused() -> None:
    with pytest.raises(ValueError, match="density=0 must be above 0"):
        dare_operator(density=0)
    with pytest.raises(ValueError, match="density=2 must be above 0"):
        dare_ties_operator(trim_density=2)
