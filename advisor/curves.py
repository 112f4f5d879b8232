r"""Predicted risk along one knob or over two of them, around a plan: the values behind curves and contours.

A knob of all tasks is moved together: recipes are scaled by one factor, so that unequal recipes keep their ratios.  The
value on the axis is the geometric mean over tasks (the arithmetic mean for coefficients, which may be 0).  Nothing is
trained; risks are in nats with 90 % predictive intervals.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from advisor.advice import Predicted
from advisor.plan import Plan
from advisor.what_if import WhatIf, map_recipes, with_coefficients

Knob = Literal["learning_rate", "batch_size", "steps", "coefficient"]

CURVE_POINTS = 49
SURFACE_POINTS = 25
REACH = 30.0  # a learning-rate curve goes this factor to both sides of the plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """Predicted risk along one knob.

    Attributes:
        knob: what is varied.
        values: its values, increasing.
        goal: predicted goal risk at each.
        tasks: task -> predicted risk at each.
        at: the plan's own value.
    """

    knob: Knob
    values: tuple[float, ...]
    goal: tuple[Predicted, ...]
    tasks: Mapping[str, tuple[float, ...]]
    at: float

    def __post_init__(self) -> None:
        """Check lengths and order."""
        lengths = {len(self.values), len(self.goal), *(len(risks) for risks in self.tasks.values())}
        if len(lengths) > 1 or not self.values:
            raise ValueError(f"values, goal and tasks have lengths {sorted(lengths)}; give one risk a value")
        if any(b <= a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise ValueError(f"values={self.values[:4]}... must increase; sort them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """Predicted goal risk over two knobs.

    Attributes:
        x_knob: knob along x.
        y_knob: knob along y.
        x: its values, increasing, [X].
        y: the other's values, increasing, [Y].
        goal: risks, [Y][X].
        at: the plan's own values (x, y).
    """

    x_knob: Knob
    y_knob: Knob
    x: tuple[float, ...]
    y: tuple[float, ...]
    goal: tuple[tuple[float, ...], ...]
    at: tuple[float, float]

    def __post_init__(self) -> None:
        """Check shapes."""
        if self.x_knob == self.y_knob:
            raise ValueError(f"x_knob and y_knob are both {self.x_knob!r}; choose two knobs")
        if [len(row) for row in self.goal] != [len(self.x)] * len(self.y):
            raise ValueError(f"goal must be {len(self.y)} x {len(self.x)} like y and x; one row a value of y")


def value_of(plan: Plan, knob: Knob) -> float:
    """The plan's value of a knob: mean over tasks (geometric for recipes)."""
    if knob == "coefficient":
        return sum(plan.coefficients.values()) / len(plan.coefficients)
    values = [float(getattr(recipe, knob)) for recipe in plan.recipes.values()]
    return math.exp(sum(math.log(value) for value in values) / len(values))


def with_value(plan: Plan, knob: Knob, value: float) -> Plan:
    """The plan with a knob moved to a value, ratios between tasks kept; counts are rounded and stay at least 1."""
    if knob not in get_args(Knob):
        raise ValueError(f"knob={knob!r} is not one of {', '.join(get_args(Knob))}; choose one of them")
    now = value_of(plan, knob)
    if knob == "coefficient":
        scaled = {name: c * value / now if now > 0 else value for name, c in plan.coefficients.items()}
        return with_coefficients(plan, scaled)
    factor = value / now
    if knob == "learning_rate":
        return map_recipes(plan, lambda _, recipe: recipe.replace(learning_rate=recipe.learning_rate * factor))
    return map_recipes(plan, lambda _, recipe: recipe.replace(**{knob: max(1, round(getattr(recipe, knob) * factor))}))


def default_values(plan: Plan, knob: Knob, *, points: int = CURVE_POINTS) -> tuple[float, ...]:
    """Values worth drawing around a plan: logarithmic, whole for counts; from 0 to at least 1 for coefficients."""
    now = value_of(plan, knob)
    if knob == "coefficient":
        return tuple(np.linspace(0.0, max(1.0, 2.5 * now), points).tolist())
    if knob == "learning_rate":
        return tuple(np.geomspace(now / REACH, now * REACH, points).tolist())
    counts = np.unique(np.round(np.geomspace(max(1.0, now / 16), now * 4, points)))
    return tuple(counts.tolist())


def draw_curve(ask: WhatIf, plan: Plan, knob: Knob, values: Sequence[float] | None = None) -> Curve:
    """Predict along one knob.

    Args:
        ask: the fitted model under the project's goal.
        plan: the plan to vary.
        knob: what to vary.
        values: where, increasing; ``default_values`` if left out.
    """
    chosen = tuple(values) if values is not None else default_values(plan, knob)
    plans = [with_value(plan, knob, value) for value in chosen]
    prediction = ask.model.predict(plans)
    return Curve(
        knob=knob,
        values=chosen,
        goal=tuple(ask.goals(plans)),
        tasks={name: tuple(prediction.task_risk[:, j].tolist()) for j, name in enumerate(prediction.names)},
        at=value_of(plan, knob),
    )


def draw_surface(
    ask: WhatIf,
    plan: Plan,
    knobs: tuple[Knob, Knob],
    x: Sequence[float] | None = None,
    y: Sequence[float] | None = None,
) -> Surface:
    """Predict over two knobs; values as in :func:`draw_curve`, fewer of them."""
    first, second = knobs
    xs = tuple(x) if x is not None else default_values(plan, first, points=SURFACE_POINTS)
    ys = tuple(y) if y is not None else default_values(plan, second, points=SURFACE_POINTS)
    plans = [with_value(with_value(plan, second, b), first, a) for b in ys for a in xs]
    risks = ask.goal.of_array(ask.model.predict(plans).task_risk).reshape(len(ys), len(xs))
    return Surface(
        x_knob=first,
        y_knob=second,
        x=xs,
        y=ys,
        goal=tuple(tuple(row) for row in risks.tolist()),
        at=(value_of(plan, first), value_of(plan, second)),
    )


def best_value(curve: Curve) -> float:
    """The value with the lowest predicted goal risk."""
    return min(zip(curve.values, curve.goal, strict=True), key=lambda cell: cell[1].value)[0]
