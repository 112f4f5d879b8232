"""What every operator must keep, whatever its formula."""

from typing import Any

import numpy as np
import pytest

from advisor.merging import OPERATORS, merge_state_dicts
from advisor.merging.registry import build_operator
from tests.advisor.merging.checkpoints import needed_options, parameters, random_base, random_experts

NAMES = (
    "average weighted_average task_arithmetic ties dare dare_ties della breadcrumbs slerp fisher regmean "
    "wudi ridge_covariance tsv_m iso_c iso_cts model_stock metagpt"
).split()
RANDOM = {"dare", "dare_ties", "della"}
SHARES = {"average", "weighted_average", "slerp", "fisher", "regmean"}


def test_the_operators_are_these() -> None:
    assert list(OPERATORS) == NAMES
    assert {name for name, entry in OPERATORS.items() if entry.needs_data} == {"fisher", "regmean"}
    assert all(entry.name == name and entry.summary and entry.reference for name, entry in OPERATORS.items())


def build(method: str) -> Any:
    return build_operator(method, needed_options(method, random_base(), 3))


def test_passes_over_the_weights_are_stated() -> None:
    several = {name: build(name).passes for name in NAMES if build(name).passes != 1}
    assert several == {"ties": 3, "metagpt": 2}


@pytest.mark.parametrize("method", NAMES)
def test_the_order_of_experts_does_not_matter(method: str) -> None:
    base = random_base()
    experts = dict(zip("abc", random_experts(base), strict=True))
    options = needed_options(method, base, 3)
    first = merge_state_dicts(base, experts, method=method, **options)
    options = {
        key: [value[i] for i in (2, 0, 1)] if isinstance(value, list) else value for key, value in options.items()
    }
    turned = {label: experts[label] for label in "cab"}
    second = merge_state_dicts(base, turned, method=method, **options)
    for name in base:
        np.testing.assert_allclose(second[name], first[name], rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("method", [name for name in NAMES if name not in SHARES])
def test_coefficients_of_zero_return_the_base(method: str) -> None:
    base = random_base()
    merged = merge_state_dicts(base, random_experts(base), method=method, coefficients=0.0)
    for name in base:
        np.testing.assert_array_equal(merged[name], base[name])


# Adam's fixed step does not scale with the task vectors.
@pytest.mark.parametrize("method", [name for name in NAMES if name not in SHARES | {"wudi"}])
def test_a_common_factor_of_the_coefficients_scales_the_change(method: str) -> None:
    base = random_base()
    experts = random_experts(base, size=0.01)
    single = merge_state_dicts(base, experts, method=method, coefficients=0.5)
    double = merge_state_dicts(base, experts, method=method, coefficients=1.0)
    for name in parameters(base):
        np.testing.assert_allclose(double[name] - base[name], 2 * (single[name] - base[name]), rtol=1e-2, atol=2e-6)


@pytest.mark.parametrize("method", sorted(SHARES))
def test_equal_experts_give_themselves_back_where_shares_sum_to_one(method: str) -> None:
    base = random_base()
    expert = random_experts(base, 1)[0]
    merged = merge_state_dicts(base, [expert] * 3, method=method, **needed_options(method, base, 3))
    for name in parameters(base):
        np.testing.assert_allclose(merged[name], expert[name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", NAMES)
def test_results_do_not_depend_on_workers_or_on_the_order_of_tensors(method: str) -> None:
    base = random_base()
    experts = random_experts(base)
    options = needed_options(method, base, 3)
    one = merge_state_dicts(base, experts, method=method, seed=5, **options)
    turned = [{name: state[name] for name in reversed(state)} for state in [base, *experts]]
    many = merge_state_dicts(turned[0], turned[1:], method=method, seed=5, workers=3, **options)
    for name in base:
        np.testing.assert_array_equal(many[name], one[name])


@pytest.mark.parametrize("method", NAMES)
def test_only_random_operators_listen_to_the_seed(method: str) -> None:
    base = random_base()
    experts = random_experts(base)
    options = needed_options(method, base, 3)
    first, second = (merge_state_dicts(base, experts, method=method, seed=seed, **options) for seed in (1, 2))
    same = all(np.array_equal(first[name], second[name]) for name in base)
    assert same == (method not in RANDOM)


@pytest.mark.parametrize("method", NAMES)
def test_inputs_are_left_as_they_are(method: str) -> None:
    states = [random_base(), *random_experts(random_base())]
    copies = [{name: tensor.copy() for name, tensor in state.items()} for state in states]
    merge_state_dicts(states[0], states[1:], method=method, **needed_options(method, states[0], 3))
    for state, copy in zip(states, copies, strict=True):
        assert all(np.array_equal(state[name], copy[name]) for name in copy)


@pytest.mark.parametrize("method", NAMES)
def test_one_expert_is_enough(method: str) -> None:
    base = random_base()
    merged = merge_state_dicts(base, random_experts(base, 1), method=method, **needed_options(method, base, 1))
    assert all(np.isfinite(merged[name]).all() for name in base)


def test_an_unknown_method_and_a_missing_input_are_named() -> None:
    with pytest.raises(ValueError, match="method='soup' is unknown; choose one of average, weighted_average"):
        build_operator("soup", {})
    with pytest.raises(TypeError, match="method='fisher' needs fisher=, one map for each expert.*estimate_fisher"):
        build_operator("fisher", {})


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("ties", {"density": "abc"}, "method='ties': density='abc' must be a number, like 0.2"),
        ("dare", {"rescale": 1}, "method='dare': rescale=1 must be true or false"),
        ("average", {"density": 0.5}, "method='average' takes no option 'density'; its options: none"),
    ],
)
def test_options_of_another_kind_are_refused_by_name(method: str, options: dict[str, object], message: str) -> None:
    with pytest.raises(TypeError, match=message):
        build_operator(method, options)
