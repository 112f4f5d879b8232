"""What a study of recipes hands back: the best plan, the cheapest that is as good, and how far the search went."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studies.evaluation import Evaluations
from studies.search_space import Parameters


class NoFeasiblePlanError(ValueError):
    """Every plan of the space violates a constraint.

    Attributes:
        parameters: the plan that violates least.
        violation: by how much.
    """

    def __init__(self, parameters: Parameters, violation: float) -> None:
        super().__init__(
            f"violation={violation:.3g} of the least violating plan must be at most 0: no plan of the search space is "
            f"feasible; widen the space around {parameters} or relax the constraint"
        )
        self.parameters = parameters
        self.violation = violation


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanPoint:
    """One evaluated plan.

    Attributes:
        parameters: the plan in plain parameters.
        unit: its point in the unit cube.
        goal: predicted goal.
        low: lower end of its interval.
        high: upper end.
        violation: largest constraint, <= 0.
        cost: cost of training the experts, per-sample gradients.
    """

    parameters: Parameters
    unit: tuple[float, ...]
    goal: float
    low: float
    high: float
    violation: float
    cost: float

    @classmethod
    def of(cls, found: Evaluations, index: int = 0) -> PlanPoint:
        """Plan ``index`` of some evaluations."""
        numbers = {name: float(getattr(found, name)[index]) for name in ("goal", "low", "high", "violation", "cost")}
        unit = tuple(found.units[index].tolist())
        return cls(parameters=found.take([index]).rows()[0], unit=unit, **numbers)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        numbers = {name: getattr(self, name) for name in ("goal", "low", "high", "violation", "cost")}
        return {"parameters": dict(self.parameters), **numbers}


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResult:
    """What a study of recipes found.

    Attributes:
        best: the plan with the lowest predicted goal.
        cheapest: the cheapest near-optimal plan; ``best`` itself if none is cheaper.
        threshold: predicted goal up to which a plan counts as near-optimal.
        near_optimal: the near-optimal plans, best first.
        evaluations: every plan that was evaluated and kept (sweep, trials, polish).
        edges: knobs of the best plan that lie on the edge of the space, with ``low`` or ``high``.
        trials: number of trials of the study.
        evaluated: number of plans that the risk was asked for.
        stopped: ``None``, or why the search ended early: ``time`` or ``asked``.
        sampler: name of the sampler; ``exhaustive`` if the whole space was evaluated.
        seed: seed of the study.
        caveats: what was repaired or cut short, in sentences.
    """

    best: PlanPoint
    cheapest: PlanPoint
    threshold: float
    near_optimal: Evaluations
    evaluations: Evaluations
    edges: tuple[tuple[str, str], ...]
    trials: int
    evaluated: int
    stopped: str | None
    sampler: str
    seed: int
    caveats: tuple[str, ...] = ()

    @property
    def parameters(self) -> Parameters:
        """The best plan in plain parameters."""
        return self.best.parameters

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the list of evaluations."""
        return {
            "best": self.best.to_json(),
            "cheapest": self.cheapest.to_json(),
            "threshold": self.threshold,
            "near_optimal": len(self.near_optimal),
            "edges": [list(edge) for edge in self.edges],
            "trials": self.trials,
            "evaluated": self.evaluated,
            "stopped": self.stopped,
            "sampler": self.sampler,
            "seed": self.seed,
            "caveats": list(self.caveats),
        }
