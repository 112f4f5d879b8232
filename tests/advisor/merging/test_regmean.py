import numpy as np
import pytest

from advisor.merging import merge_state_dicts
from tests.advisor.merging.checkpoints import random_base, random_experts, random_grams


def test_the_merged_layer_is_the_least_squares_fit_of_all_experts() -> None:
    rng = np.random.default_rng(0)
    base = {"w": rng.normal(size=(4, 6))}
    experts = [{"w": base["w"] + 0.1 * rng.normal(size=(4, 6))} for _ in range(3)]
    inputs = [rng.normal(size=(40, 6)) * rng.uniform(0.1, 3, 6) for _ in experts]
    grams = [{"w": x.T @ x / len(x)} for x in inputs]
    merged = merge_state_dicts(base, experts, method="regmean", grams=grams, shrink=1.0, ridge=1e-12)["w"]
    outputs = np.concatenate([x @ e["w"].T for x, e in zip(inputs, experts, strict=True)])
    fitted = np.linalg.lstsq(np.concatenate(inputs), outputs, rcond=None)[0].T
    np.testing.assert_allclose(merged, fitted, rtol=1e-6, atol=1e-8)


def test_shrinking_to_the_diagonal_weighs_columns() -> None:
    base = random_base()
    experts = random_experts(base, 2)
    grams = [random_grams(base, seed) for seed in range(2)]
    merged = merge_state_dicts(base, experts, method="regmean", grams=grams, shrink=0.0)
    name = "conv.weight"
    weights = [np.diagonal(g[name]) for g in grams]
    flat = [e[name].reshape(6, -1) for e in experts]
    expected = sum(w * f for w, f in zip(weights, flat, strict=True)) / sum(weights)
    np.testing.assert_allclose(merged[name].reshape(6, -1), expected, rtol=1e-3, atol=1e-4)


def test_an_expert_whose_layer_sees_no_input_direction_stays_with_the_base_there() -> None:
    base = {"w": np.ones((2, 2))}
    experts = [{"w": np.array([[2.0, 5.0], [3.0, 7.0]])}]
    gram = {"w": np.diag([1.0, 0.0])}
    merged = merge_state_dicts(base, experts, method="regmean", grams=[gram], trust_base=True)["w"]
    np.testing.assert_allclose(merged, [[2.0, 1.0], [3.0, 1.0]], rtol=1e-5)


def test_layers_without_inputs_and_without_grams_take_the_average() -> None:
    base = {"w": np.ones((2, 2)), "v": np.ones((2, 2))}
    experts = [{"w": base["w"] + a, "v": base["v"] + a} for a in (0.2, 0.6)]
    merged = merge_state_dicts(base, experts, method="regmean", grams=[{"w": np.zeros((2, 2))}] * 2)
    np.testing.assert_allclose(merged["w"], 1.4)
    np.testing.assert_allclose(merged["v"], 1.4)


def test_wrong_inputs_are_refused() -> None:
    base = random_base()
    experts = random_experts(base, 1)
    gram = random_grams(base, 0)
    with pytest.raises(ValueError, match=r"tensor 'conv.weight' has shape \(3, 3\), expected \(27, 27\)"):
        merge_state_dicts(base, experts, method="regmean", grams=[{**gram, "conv.weight": np.eye(3)}])
    with pytest.raises(ValueError, match="holds NaN or infinity"):
        merge_state_dicts(base, experts, method="regmean", grams=[{**gram, "conv.weight": np.full((27, 27), np.nan)}])
    with pytest.raises(ValueError, match="shrink=2 must lie in"):
        merge_state_dicts(base, experts, method="regmean", grams=[gram], shrink=2)
    with pytest.raises(ValueError, match="ridge=0 must be above 0"):
        merge_state_dicts(base, experts, method="regmean", grams=[gram], ridge=0)
