import math
from typing import Any

import numpy as np
import pytest

from advisor.advice import Predicted
from advisor.curves import Curve, Surface, best_value, default_values, draw_curve, draw_surface, value_of, with_value
from advisor.goal import Goal
from advisor.plan import Plan
from estimators.recipe import Recipe


class LogarithmicRisk:
    """A model whose risk is 1 + (log10 rate + 2)^2 + (coefficient - 0.5)^2 for each task: a known bowl."""

    names = ("a", "b")

    def predict(self, plans: Any, *, return_interval: bool = False) -> Any:
        risks = np.array(
            [
                [
                    1 + (math.log10(p.recipes[n].learning_rate) + 2) ** 2 + (p.coefficients[n] - 0.5) ** 2
                    for n in self.names
                ]
                for p in plans
            ]
        )
        return type("Prediction", (), {"names": self.names, "task_risk": risks})


class Ask:
    """The part of ``WhatIf`` that curves use."""

    def __init__(self) -> None:
        self.model = LogarithmicRisk()
        self.goal = Goal(weights={"a": 1, "b": 3})

    def goals(self, plans: Any) -> list[Predicted]:
        values = self.goal.of_array(self.model.predict(plans).task_risk)
        return [Predicted(value=v, low=v - 0.1, high=v + 0.1) for v in values]


PLAN = Plan(
    recipes={
        "a": Recipe(learning_rate=0.02, batch_size=16, steps=100),
        "b": Recipe(learning_rate=0.005, batch_size=64, steps=25),
    },
    coefficients={"a": 0.25, "b": 0.5},
)
ASK: Any = Ask()


def test_a_curve_follows_the_risk_and_finds_the_bottom_of_a_known_bowl() -> None:
    curve = draw_curve(ASK, PLAN, "learning_rate", np.geomspace(1e-4, 1, 401))
    assert curve.at == pytest.approx(0.01)  # geometric mean of 0.02 and 0.005
    # rates are 2 t and t / 2, so the weighted bowl is lowest where (log 2t + 2) + 3 (log t/2 + 2) = 0
    assert math.log10(best_value(curve)) == pytest.approx(-2 + 0.5 * math.log10(2), abs=0.01)
    assert curve.tasks["a"][0] == pytest.approx(1 + (math.log10(2e-4) + 2) ** 2 + 0.0625)


def test_ratios_between_tasks_are_kept_when_a_knob_moves() -> None:
    for knob in ("learning_rate", "batch_size", "steps", "coefficient"):
        moved = with_value(PLAN, knob, 3 * value_of(PLAN, knob))
        assert value_of(moved, knob) == pytest.approx(3 * value_of(PLAN, knob))
    moved = with_value(PLAN, "steps", 1e-3)
    assert [recipe.steps for recipe in moved.recipes.values()] == [1, 1]


def test_coefficients_that_are_all_zero_move_together() -> None:
    plan = Plan.uniform(["a", "b"], PLAN.recipes["a"], 0.0)
    assert dict(with_value(plan, "coefficient", 0.3).coefficients) == {"a": 0.3, "b": 0.3}


def test_default_values_surround_the_plan() -> None:
    for knob in ("learning_rate", "batch_size", "steps", "coefficient"):
        values = default_values(PLAN, knob)
        assert values[0] < value_of(PLAN, knob) < values[-1]
        assert all(b > a for a, b in zip(values, values[1:], strict=False))
    assert all(value == round(value) >= 1 for value in default_values(PLAN, "steps"))
    assert default_values(PLAN, "coefficient")[0] == 0


def test_a_surface_agrees_with_the_curves_that_cross_it() -> None:
    surface = draw_surface(ASK, PLAN, ("learning_rate", "coefficient"))
    assert surface.at == (value_of(PLAN, "learning_rate"), value_of(PLAN, "coefficient"))
    row = draw_curve(ASK, with_value(PLAN, "coefficient", surface.y[3]), "learning_rate", surface.x)
    assert list(surface.goal[3]) == pytest.approx([cell.value for cell in row.goal])


def test_values_of_wrong_shape_are_refused() -> None:
    cell = Predicted(value=1, low=1, high=1)
    with pytest.raises(ValueError, match="values=.*must increase"):
        Curve(knob="steps", values=(2, 1), goal=(cell, cell), tasks={}, at=1)
    with pytest.raises(ValueError, match="lengths"):
        Curve(knob="steps", values=(1, 2), goal=(cell,), tasks={}, at=1)
    with pytest.raises(ValueError, match="choose two knobs"):
        Surface(x_knob="steps", y_knob="steps", x=(1,), y=(1,), goal=((1,),), at=(1, 1))
    with pytest.raises(ValueError, match="must be 1 x 2"):
        Surface(x_knob="steps", y_knob="batch_size", x=(1, 2), y=(1,), goal=((1,),), at=(1, 1))
    with pytest.raises(ValueError, match="knob='momentum' is not one of"):
        with_value(PLAN, "momentum", 0.5)  # type: ignore[arg-type]
