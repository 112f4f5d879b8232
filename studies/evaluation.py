"""What a study knows about plans: the risk's answer for each, and which of two answers is better.

A risk is a callable over columns of plain parameters (``studies/search_space.py``): M plans in, one ``RiskBatch`` of
arrays [M] out.  A plan that diverges, breaks the stability edge or loses too much on a task has *violation* > 0: it is
an infeasible plan, not a failed one, and its goal may be infinite.  Order: feasible before infeasible, then by goal,
among infeasible ones by violation.  Units: goal, low, high in nats; violation dimensionless, <= 0 is feasible; cost in
per-sample gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.knobs import Columns, FloatArray
from studies.search_space import Parameters, SearchSpace, rows_of

CHUNK = 8192  # plans handed to the risk at once: bounds the memory of a sweep, large enough to stay vectorised


@dataclass(frozen=True, slots=True, kw_only=True)
class RiskBatch:
    """The predicted risk of M plans.

    Attributes:
        goal: [M] predicted goal; may be infinite or NaN only where the plan is infeasible.
        low: [M] lower end of its interval.
        high: [M] upper end of its interval.
        violation: [M] largest violated constraint; <= 0 where the plan is feasible, finite.
    """

    goal: FloatArray
    low: FloatArray
    high: FloatArray
    violation: FloatArray

    def __post_init__(self) -> None:
        """Check shapes and that every feasible plan has a finite goal inside its interval."""
        shape = np.shape(self.goal)
        if len(shape) != 1:
            raise ValueError(f"goal has shape {shape}; a risk must return one number for each plan, shape [plans]")
        for name in ("goal", "low", "high", "violation"):
            array = np.asarray(getattr(self, name), dtype=np.float64)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}; it must be {shape} like goal")
            object.__setattr__(self, name, array)
        if not np.isfinite(self.violation).all():
            raise ValueError("violation holds NaN or infinity; give a finite amount above 0 where a plan is infeasible")
        feasible = self.violation <= 0
        inside = (self.low <= self.goal) & (self.goal <= self.high) & np.isfinite(self.goal)
        bad = np.flatnonzero(feasible & ~inside)
        if bad.size:
            k = int(bad[0])
            raise ValueError(
                f"goal={self.goal[k]} of plan {k} must be finite and lie in its interval [{self.low[k]}, "
                f"{self.high[k]}]; mark a plan that diverges by violation > 0"
            )

    @classmethod
    def exact(cls, goal: Any, violation: Any = None) -> RiskBatch:
        """A risk that is known exactly: the interval is the goal itself."""
        goal = np.asarray(goal, dtype=np.float64)
        violation = np.full(goal.shape, -1.0) if violation is None else np.asarray(violation, dtype=np.float64)
        return cls(goal=goal, low=goal, high=goal, violation=violation)


RiskFunction = Callable[[Columns], RiskBatch]
CostFunction = Callable[[Columns], FloatArray]
ConstraintFunction = Callable[[Columns], FloatArray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluations:
    """M evaluated plans.

    Attributes:
        units: [M, D] points of the unit cube.
        columns: the plans, parameter name -> [M].
        goal: [M] predicted goal; infinite where an infeasible plan has none.
        low: [M] lower end of the interval.
        high: [M] upper end.
        violation: [M] largest violated constraint, <= 0 where feasible.
        cost: [M] cost of training the experts.
    """

    units: FloatArray
    columns: Columns
    goal: FloatArray
    low: FloatArray
    high: FloatArray
    violation: FloatArray
    cost: FloatArray

    def __len__(self) -> int:
        return len(self.goal)

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Which plans violate nothing, [M]."""
        return np.asarray(self.violation <= 0)

    def order(self) -> NDArray[np.int64]:
        """Indices from best to worst; equals by cost, then in the order of evaluation."""
        infeasible = ~self.feasible
        return np.lexsort((self.cost, self.goal, np.where(infeasible, self.violation, 0.0), infeasible))

    def best(self) -> int:
        """Index of the best plan."""
        return int(self.order()[0])

    def take(self, index: Any) -> Evaluations:
        """Some of the plans."""
        parts = {f.name: getattr(self, f.name)[index] for f in fields(self) if f.name != "columns"}
        return Evaluations(columns={name: column[index] for name, column in self.columns.items()}, **parts)

    def rows(self) -> list[Parameters]:
        """The plans as parameter dictionaries."""
        return rows_of(self.columns)

    @classmethod
    def join(cls, parts: list[Evaluations]) -> Evaluations:
        """All plans of some evaluations, in order."""
        joined = {
            f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(cls) if f.name != "columns"
        }
        columns = {name: np.concatenate([p.columns[name] for p in parts]) for name in parts[0].columns}
        return cls(columns=columns, **joined)


Evaluator = Callable[[FloatArray], Evaluations]


def training_cost(space: SearchSpace) -> CostFunction:
    """The default cost: sum over tasks of batch size times steps, in per-sample gradients."""
    names = [f"_{task}" for task in sorted(space.tasks)] if space.per_task_recipes else [""]
    times = 1.0 if space.per_task_recipes else float(len(space.tasks))

    def cost(columns: Columns) -> FloatArray:
        parts = [np.asarray(columns[f"batch_size{n}"] * columns[f"steps{n}"], dtype=np.float64) for n in names]
        return np.asarray(times * np.sum(parts, axis=0))

    return cost


def make_evaluator(
    space: SearchSpace,
    risk: RiskFunction,
    cost: CostFunction | None = None,
    constraint: ConstraintFunction | None = None,
) -> Evaluator:
    """A function from points [M, D] to evaluated plans, calling the risk on at most ``CHUNK`` plans at once."""

    def evaluate(units: FloatArray) -> Evaluations:
        parts = [units[start : start + CHUNK] for start in range(0, max(len(units), 1), CHUNK)]
        found = [evaluate_columns(space, space.decode(part), part, risk, cost, constraint) for part in parts]
        return found[0] if len(found) == 1 else Evaluations.join(found)

    return evaluate


def evaluate_columns(
    space: SearchSpace,
    columns: Columns,
    units: FloatArray,
    risk: RiskFunction,
    cost: CostFunction | None = None,
    constraint: ConstraintFunction | None = None,
) -> Evaluations:
    """The risk's answer for plans given both as columns and as points ``units`` [M, D]."""
    count = len(units)
    answer = risk(columns)
    if answer.goal.shape != (count,):
        raise ValueError(f"risk returned {len(answer.goal)} values for {count} plans; return one for each")
    violation = answer.violation
    if constraint is not None:
        violation = np.maximum(violation, checked("constraint", constraint(columns), count))
    return Evaluations(
        units=np.asarray(units, dtype=np.float64),
        columns=columns,
        goal=np.where(np.isfinite(answer.goal), answer.goal, np.inf),
        low=answer.low,
        high=answer.high,
        violation=violation,
        cost=checked("cost", (cost or training_cost(space))(columns), count),
    )


def checked(name: str, values: Any, count: int) -> FloatArray:
    """The answer of a callable, refused unless it is one finite number for each plan."""
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (count,) or not np.isfinite(array).all():
        raise ValueError(f"{name} returned shape {array.shape} for {count} plans; return one finite number for each")
    return array
