import numpy as np
import pytest

from advisor.merging.averaging import average_operator, weighted_average_operator
from advisor.merging.operator import Operator, TensorVectors, resolve_coefficients
from advisor.merging.task_arithmetic import task_arithmetic_operator

LABELS = ("a", "b")


def make_vectors(seed: int = 0, labels: tuple[str, ...] = LABELS) -> TensorVectors:
    vectors = np.arange(len(labels) * 3, dtype=np.float32).reshape(len(labels), 3)
    return TensorVectors(
        name="w",
        key="w",
        shape=(3,),
        base=np.zeros(3, np.float32),
        vectors=vectors,
        coefficients=np.full(len(labels), 0.5),
        labels=labels,
        seed=seed,
    )


def test_chance_depends_on_seed_tensor_and_label_only() -> None:
    draw = make_vectors(seed=1).generator("a").random()
    assert make_vectors(seed=1, labels=("b", "a")).generator("a").random() == draw
    assert make_vectors(seed=2).generator("a").random() != draw
    assert make_vectors(seed=1).generator("b").random() != draw


def test_sums_and_means_are_weighted_by_hand() -> None:
    assert make_vectors().weighted_sum().tolist() == [1.5, 2.5, 3.5]
    assert make_vectors().weighted_mean().tolist() == [0.75, 1.25, 1.75]


@pytest.mark.parametrize("given", [None, 0.4, [0.4, 0.4], {"b": 0.4, "a": 0.4}])
def test_coefficients_come_in_four_forms(given: object) -> None:
    operator = Operator(name="x", merge=TensorVectors.weighted_sum, default_coefficient=0.4)
    assert resolve_coefficients(operator, LABELS, given).tolist() == [0.4, 0.4]  # type: ignore[arg-type]


def test_coefficients_by_label_follow_the_order_of_experts() -> None:
    assert resolve_coefficients(task_arithmetic_operator(), LABELS, {"b": 2.0, "a": 1.0}).tolist() == [1.0, 2.0]


def test_averages_normalize_their_weights() -> None:
    assert resolve_coefficients(weighted_average_operator(), LABELS, [1, 3]).tolist() == [0.25, 0.75]
    assert resolve_coefficients(average_operator(), LABELS, None).tolist() == [0.5, 0.5]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"a": 1.0}, r"coefficients for \['a'\], experts are \['a', 'b'\]"),
        ([1.0], "1 given for 2 experts"),
        ([1.0, float("nan")], "every coefficient must be finite"),
    ],
)
def test_wrong_coefficients_are_refused(given: object, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        resolve_coefficients(task_arithmetic_operator(), LABELS, given)  # type: ignore[arg-type]


def test_weights_that_sum_to_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="takes shares: none below 0, and a sum above 0"):
        resolve_coefficients(weighted_average_operator(), LABELS, [2.0, -1.0])


def test_the_simple_average_takes_no_coefficients() -> None:
    with pytest.raises(ValueError, match="weighs all experts alike"):
        resolve_coefficients(average_operator(), LABELS, [0.5, 0.5])


def test_an_operator_of_two_passes_needs_a_survey() -> None:
    with pytest.raises(ValueError, match="passes=2: a survey is given exactly when"):
        Operator(name="x", merge=TensorVectors.weighted_sum, passes=2)
