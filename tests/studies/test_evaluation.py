from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from studies.evaluation import CHUNK, Evaluations, RiskBatch, make_evaluator, training_cost
from studies.knobs import Columns
from tests.studies.plan_problems import make_space, quadratic_risk


def evaluated(goal: list[float], violation: list[float], cost: list[float]) -> Evaluations:
    """Evaluations with nothing but numbers."""
    goals = np.array(goal)
    return Evaluations(
        units=np.arange(len(goal), dtype=float)[:, None],
        columns={"steps": np.arange(len(goal))},
        goal=goals,
        low=goals,
        high=goals,
        violation=np.array(violation),
        cost=np.array(cost),
    )


def test_feasible_plans_come_first_then_goal_then_cost_and_infeasible_ones_by_violation() -> None:
    found = evaluated([3.0, 1.0, 1.0, 0.1, np.inf], [-1.0, 0.0, 0.0, 2.0, 1.0], [1.0, 5.0, 4.0, 1.0, 1.0])
    assert found.order().tolist() == [2, 1, 0, 4, 3]
    assert found.best() == 2
    assert found.rows()[2] == {"steps": 2}


def test_joining_parts_and_taking_them_out_again_changes_nothing() -> None:
    first, second = evaluated([1.0], [0.0], [1.0]), evaluated([2.0, 3.0], [0.0, 0.0], [1.0, 2.0])
    joined = Evaluations.join([first, second])
    assert joined.goal.tolist() == [1, 2, 3]
    assert joined.take([1, 2]).columns["steps"].tolist() == [0, 1]


def test_large_sweeps_reach_the_risk_in_chunks() -> None:
    sizes = []

    def risk(columns: Columns) -> RiskBatch:
        sizes.append(len(columns["steps"]))
        return quadratic_risk(columns)

    space = make_space()
    units = np.random.default_rng(0).random((2 * CHUNK + 5, space.dimensions))
    found = make_evaluator(space, risk)(units)
    assert sizes == [CHUNK, CHUNK, 5]
    np.testing.assert_allclose(found.goal, quadratic_risk(space.decode(units)).goal, rtol=1e-12)


@pytest.mark.parametrize("per_task", [False, True])
def test_the_default_cost_is_that_of_training_every_expert(per_task: bool) -> None:
    space = make_space(tasks=("a", "b", "c"), per_task_recipes=per_task)
    plans = space.sample(np.random.default_rng(0), 5)
    expected = [
        sum(
            (row[f"batch_size_{task}"] * row[f"steps_{task}"]) if per_task else row["batch_size"] * row["steps"]
            for task in "abc"
        )
        for row in make_evaluator(space, quadratic_or_zero)(space.encode(plans)).rows()
    ]
    assert training_cost(space)(plans).tolist() == expected


def quadratic_or_zero(columns: Columns) -> RiskBatch:
    """A risk that does not look at the plan."""
    return RiskBatch.exact(np.zeros(len(columns["method"])))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": np.zeros((2, 2))}, r"goal has shape \(2, 2\)"),
        ({"low": np.zeros(3)}, r"low has shape \(3,\); it must be \(2,\) like goal"),
        ({"violation": np.array([0.0, np.nan])}, "violation holds NaN or infinity"),
        ({"violation": np.array([0.0, np.inf])}, "violation holds NaN or infinity"),
        ({"goal": np.array([0.5, np.nan])}, "goal=nan of plan 1 must be finite"),
        ({"high": np.array([0.1, 1.0])}, "goal=0.5 of plan 0 must be finite and lie in its interval"),
    ],
)
def test_a_risk_that_contradicts_itself_is_refused(changes: dict[str, Any], message: str) -> None:
    values = {"goal": np.full(2, 0.5), "low": np.zeros(2), "high": np.ones(2), "violation": np.full(2, -1.0)}
    with pytest.raises(ValueError, match=message):
        RiskBatch(**(values | changes))


def test_callables_that_return_the_wrong_number_of_values_are_named() -> None:
    space = make_space()
    units = np.full((3, space.dimensions), 0.5)
    with pytest.raises(ValueError, match="risk returned 1 values for 3 plans"):
        make_evaluator(space, lambda columns: RiskBatch.exact([0.0]))(units)
    with pytest.raises(ValueError, match=r"cost returned shape \(2,\) for 3 plans"):
        make_evaluator(space, quadratic_risk, lambda columns: np.zeros(2))(units)
    with pytest.raises(ValueError, match="constraint returned shape"):
        make_evaluator(space, quadratic_risk, None, lambda columns: np.full(3, np.nan))(units)
