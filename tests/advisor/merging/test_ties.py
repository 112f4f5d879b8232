"""TIES against a twin written from the paper on whole flattened vectors, without any of our code."""

from typing import Any

import numpy as np
import pytest

from advisor.merging import merge_state_dicts, merge_with_result
from advisor.merging.ties import tensor_threshold, ties_operator
from tests.advisor.merging.checkpoints import parameters, random_base, random_experts


def naive_ties(vectors: Any, density: float, aggregate: str) -> Any:
    """Paper, algorithm 1, for vectors [N, n] in plain loops over numbers."""
    trimmed = []
    for vector in vectors:
        kept = max(1, int(density * len(vector)))
        order = np.argsort(-np.abs(vector), kind="stable")[:kept].tolist()
        trimmed.append([vector[i] if i in set(order) else 0.0 for i in range(len(vector))])
    merged = []
    for column in zip(*trimmed, strict=True):
        sign = np.sign(sum(column))
        agreeing = [value for value in column if value != 0 and np.sign(value) == sign]
        if not agreeing:
            merged.append(0.0)
        elif aggregate == "max":
            merged.append(max(agreeing, key=abs))
        else:
            merged.append(sum(agreeing) / (len(agreeing) if aggregate == "mean" else 1))
    return np.array(merged)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
@pytest.mark.parametrize("density", [0.01, 0.2, 0.77, 1.0])
def test_global_ties_equals_the_papers_algorithm(aggregate: str, density: float) -> None:
    base = random_base()
    experts = random_experts(base)
    names = parameters(base)
    vectors = [np.concatenate([(expert[n] - base[n]).reshape(-1) for n in names]) for expert in experts]
    expected = naive_ties(vectors, density, aggregate)
    merged = merge_state_dicts(base, experts, method="ties", density=density, aggregate=aggregate, coefficients=1.0)
    found = np.concatenate([(merged[n] - base[n]).reshape(-1) for n in names])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("aggregate", ["mean", "sum", "max"])
def test_tensor_ties_equals_the_papers_algorithm_on_each_tensor(aggregate: str) -> None:
    base = random_base()
    experts = random_experts(base)
    merged = merge_state_dicts(
        base, experts, method="ties", density=0.3, scope="tensor", aggregate=aggregate, coefficients=1
    )
    for name in parameters(base):
        vectors = [(expert[name] - base[name]).reshape(-1) for expert in experts]
        expected = naive_ties(vectors, 0.3, aggregate).reshape(base[name].shape)
        np.testing.assert_allclose(merged[name] - base[name], expected, atol=1e-6)


def test_the_global_threshold_is_an_order_statistic() -> None:
    base = random_base(3)
    experts = random_experts(base, 2)
    _, result = merge_with_result(base, experts, method="ties", density=0.4)
    for expert, threshold in zip(experts, result.options["thresholds"], strict=True):
        vector = np.concatenate([(expert[n] - base[n]).reshape(-1) for n in parameters(base)])
        assert threshold == np.sort(np.abs(vector))[::-1][int(0.4 * vector.size) - 1]


def test_thresholds_keep_equal_numbers_and_at_least_one() -> None:
    vector = np.array([1.0, -1.0, 0.5, 0.0], np.float32)
    assert tensor_threshold(vector, 0.25) == 1.0
    assert tensor_threshold(vector, 0.01) == 1.0
    assert tensor_threshold(vector, 1.0) == 0.0


def test_an_expert_with_coefficient_zero_takes_no_part() -> None:
    base = random_base()
    experts = random_experts(base, 3)
    with_zero = merge_state_dicts(base, experts, method="ties", coefficients=[1.0, 0.0, 1.0])
    without = merge_state_dicts(base, [experts[0], experts[2]], method="ties")
    for name in parameters(base):
        np.testing.assert_array_equal(with_zero[name], without[name])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"density": 0.0}, "density=0.0 must be above 0"),
        ({"density": 1.5}, "density=1.5 must be above 0 and at most 1"),
        ({"scope": "layer"}, "scope='layer' must be 'tensor' or 'global'"),
        ({"aggregate": "median"}, "aggregate='median' must be"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        ties_operator(**options)


def test_passes_are_stated() -> None:
    assert ties_operator(scope="tensor").passes == 1
    assert ties_operator(scope="global").passes == 3
