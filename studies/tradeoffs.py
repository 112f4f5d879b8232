"""The study of trade-offs: how much risk does more compute buy?

A plan is on the *Pareto front* if no other is at least as cheap and at least as good, and better in one of the two.
The *knee* is the front's plan farthest below the chord between its ends,

    x = (log(1 + cost) - log(1 + cost_first)) / (log(1 + cost_last) - log(1 + cost_first))
    y = (goal - goal_last) / (goal_first - goal_last)
    knee = argmax (1 - x - y) / sqrt(2)

both scaled to [0, 1] along the front and cost in the logarithm, since compute is bought in factors (the "Kneedle" rule
of Satopaa et al. 2011).  Before it a doubling of cost buys more than the average along the front, behind it less.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from studies.evaluation import (
    ConstraintFunction,
    CostFunction,
    Evaluations,
    Evaluator,
    RiskFunction,
    make_evaluator,
)
from studies.polish import polish
from studies.recipes import EXHAUSTIVE, SWEEP, check_risk, records_of, refuse_infeasible, sweep_points
from studies.result import PlanPoint
from studies.samplers import check_sampler
from studies.search_space import SearchSpace
from studies.storage import Record, StudyStorage, open_study
from studies.trials import Progress, Schedule, Stop, TrialLog, run_batches

LEVELS = 12  # budgets, evenly spread in the logarithm, for each of which the best plan is polished
LEVEL_SCALES = (1 / 8, 1 / 32, 1 / 128)


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeOff:
    """The front of risk against compute.

    Attributes:
        front: plans of the front, cost rising and predicted goal falling strictly.
        knee: index of the knee in the front; ``None`` if the front has no bend (fewer than three plans, or a chord).
        trials: trials of the sampler, 0 where a study's evaluations were filtered.
        stopped: ``None``, or why the search ended early.
        caveats: what was repaired or cut short, in sentences.
    """

    front: Evaluations
    knee: int | None
    trials: int = 0
    stopped: str | None = None
    caveats: tuple[str, ...] = ()

    @property
    def points(self) -> tuple[PlanPoint, ...]:
        """The front's plans, cheapest first."""
        return tuple(PlanPoint.of(self.front, index) for index in range(len(self.front)))

    def best_within(self, max_cost: float) -> PlanPoint:
        """The best plan of the front that costs at most ``max_cost``."""
        inside = np.flatnonzero(self.front.cost <= max_cost)
        if not len(inside):
            raise ValueError(
                f"max_cost={max_cost:g} is below the cheapest plan's {self.front.cost[0]:g}; "
                "allow at least that or search fewer steps"
            )
        return PlanPoint.of(self.front, int(inside[-1]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "front": [point.to_json() for point in self.points],
            "knee": self.knee,
            "trials": self.trials,
            "stopped": self.stopped,
            "caveats": list(self.caveats),
        }


def pareto_front(first: ArrayLike, second: ArrayLike) -> NDArray[np.int64]:
    """Indices of the plans that no other beats in two numbers, smaller being better, by rising ``first``.

    Of plans with equal numbers the earliest stays.  Exact, by one sort: O(M log M).

    >>> pareto_front([3, 1, 2, 2], [1, 5, 2, 4]).tolist()
    [1, 2, 0]
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise ValueError(f"first has shape {a.shape}, second {b.shape}; give two lists of equal length")
    if np.isnan(a).any() or np.isnan(b).any():
        raise ValueError("first or second holds NaN; leave plans without a number out before asking for the front")
    if not len(a):
        return np.empty(0, dtype=np.int64)
    order = np.lexsort((b, a))
    sorted_b = b[order]
    lowest_before = np.concatenate([[np.inf], np.minimum.accumulate(sorted_b)[:-1]])
    keep = sorted_b < lowest_before
    keep[0] = True  # nothing comes before the first, even where its second number is infinite
    return order[keep]


def find_knee(cost: ArrayLike, goal: ArrayLike) -> int | None:
    """Index of the knee of a front given by rising ``cost`` and falling ``goal``; ``None`` if it has no bend.

    >>> find_knee([1, 10, 100, 1000], [1.0, 0.2, 0.15, 0.1])
    1
    """
    x, y = np.log1p(np.asarray(cost, dtype=np.float64)), np.asarray(goal, dtype=np.float64)
    if len(x) < 3:
        return None
    x = (x - x[0]) / (x[-1] - x[0])
    y = (y - y[-1]) / (y[0] - y[-1])
    distance = (1 - x - y) / math.sqrt(2)
    knee = int(np.argmax(distance))
    return knee if distance[knee] > 1e-9 else None


def trade_off(found: Evaluations) -> TradeOff:
    """The front among plans that a study has evaluated, without further search."""
    front = _front(found)
    return TradeOff(front=front, knee=find_knee(front.cost, front.goal))


def search_tradeoffs(
    space: SearchSpace,
    risk: RiskFunction,
    *,
    cost: CostFunction | None = None,
    constraint: ConstraintFunction | None = None,
    seed: int,
    trials: int = 320,
    sampler: str = "nsga2",
    batch: int = 32,
    sweep: int = SWEEP,
    storage: StudyStorage | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> TradeOff:
    """Search for the front: a sweep, a two-objective sampler in synchronous batches, a polish within each budget.

    Arguments as in ``studies.recipes.search_recipes``; ``sampler`` is ``nsga2``, ``tpe``, ``random`` or ``qmc``, and
    ``batch`` is NSGA-II's population.
    """
    check_sampler(sampler, dimensions=space.dimensions, objectives=2)
    schedule = Schedule(sampler=sampler, seed=seed, trials=trials, batch=batch, max_seconds=max_seconds)
    evaluate = make_evaluator(space, risk, cost, constraint)
    settings = {"space": space.describe(), "sampler": sampler, "seed": seed, "batch": batch, "sweep": sweep}
    opened = open_study(storage, settings=settings, objectives=2) if storage else None
    log = TrialLog(knobs=space.knobs, objectives=2, opened=opened)
    check_risk(evaluate, log)
    if space.size <= EXHAUSTIVE:
        refuse_infeasible(whole := evaluate(space.points()))
        return trade_off(whole)
    looked = evaluate(sweep_points(space, sweep, seed))
    chosen = looked.take(_first_population(looked, batch))
    given = [log.add(r) for r in records_of(chosen, [f"sweep-{k:06d}" for k in range(len(chosen))], "sweep")]

    def evaluate_batch(units: NDArray[np.float64], keys: Sequence[str], kind: str) -> list[Record]:
        return records_of(evaluate(units), keys, kind)

    done, stopped = run_batches(log, schedule, evaluate_batch, given=given, progress=progress, stop=stop)
    found = looked
    if done:
        found = Evaluations.join([looked, evaluate(np.array([record.unit for record in done]))])
    refuse_infeasible(found)
    if stopped != "asked":
        found = Evaluations.join([found, _polish_levels(space, evaluate, found, seed)])
    front = _front(found)
    knee = find_knee(front.cost, front.goal)
    return TradeOff(front=front, knee=knee, trials=len(done), stopped=stopped, caveats=tuple(log.notes))


def _front(found: Evaluations) -> Evaluations:
    possible = found.take(np.flatnonzero(found.feasible))
    return possible.take(pareto_front(possible.cost, possible.goal))


def _first_population(found: Evaluations, size: int) -> NDArray[np.int64]:
    """The sweep's front, spread along the cost, filled up with its best plans: exactly ``size``, or all there are."""
    possible = np.flatnonzero(found.feasible)
    front = possible[pareto_front(found.cost[possible], found.goal[possible])]
    spread = front[np.unique(np.linspace(0, len(front) - 1, min(size, len(front))).round().astype(np.int64))]
    merged = list(dict.fromkeys([*spread.tolist(), *found.order().tolist()]))
    return np.array(merged[:size], dtype=np.int64)


def _polish_levels(space: SearchSpace, evaluate: Evaluator, found: Evaluations, seed: int) -> Evaluations:
    """Polish the best plan within each of some budgets; dear plans start from what cheaper budgets found, if better."""
    front = _front(found)
    lowest, highest = max(float(front.cost[0]), 1e-9), max(float(front.cost[-1]), 1e-9)
    parts: list[Evaluations] = [front]
    for budget in np.geomspace(lowest, highest, LEVELS if highest > lowest else 1):

        def within(units: NDArray[np.float64], budget: float = float(budget)) -> Evaluations:
            answer = evaluate(units)
            return replace(answer, violation=np.maximum(answer.violation, answer.cost / budget - 1))

        known = Evaluations.join(parts)
        affordable = known.take(np.flatnonzero(known.feasible & (known.cost <= budget * (1 + 1e-12))))
        start = affordable.units[[affordable.best()]]
        run = polish(space, within, start, seed=seed, rounds=1, scales=LEVEL_SCALES)
        parts.append(_front(evaluate(run.path.units)))
    return Evaluations.join(parts)
