import math

import numpy as np
import pytest

from advisor.goal import Goal, interval

RISKS = np.array([[1.0, 3.0], [2.0, 2.0]])


def test_the_mean_goal_is_the_weighted_mean_and_the_worst_goal_the_largest():
    assert Goal(weights={"a": 3, "b": 1}).of_array(RISKS).tolist() == [1.5, 2.0]
    assert Goal(weights={"a": 3, "b": 1}, kind="worst").of_array(RISKS).tolist() == [3.0, 2.0]
    assert Goal(weights={"a": 1, "b": 0}, kind="worst").of({"a": 1.0, "b": 9.0}) == 1.0


def test_max_drop_is_violated_by_how_much_the_worst_task_loses():
    goal = Goal(weights={"a": 1, "b": 1}, max_drop=0.5)
    np.testing.assert_allclose(goal.violation(RISKS, np.array([1.0, 1.0])), [1.5, 0.5])
    assert (Goal(weights={"a": 1, "b": 1}).violation(RISKS, np.array([0.0, 0.0])) < 0).all()


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"a": -1.0}, "weight of a=-1.0"), ({"a": 0.0}, "must not all be zero"), ({"a": float("inf")}, "weight of a=inf")],
)
def test_bad_weights_are_refused(weights, message):
    with pytest.raises(ValueError, match=message):
        Goal(weights=weights)


def test_an_interval_is_widened_to_its_value_against_rounding():
    assert interval(1.0, 1.0 + 1e-16, 1.0 - 1e-16).holds(1.0)


def test_a_task_of_weight_zero_may_be_lost() -> None:
    goal = Goal(weights={"a": 1.0, "b": 0.0})
    assert goal.of({"a": 0.5, "b": math.inf}) == 0.5
    assert goal.of({"a": math.inf, "b": 0.5}) == math.inf
