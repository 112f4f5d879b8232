"""The study of recipes before training: which plan does the predicted risk like best?

The risk is a cheap vectorised function, so the study looks everywhere first and cleverly afterwards:
1. a sweep of Sobol' points in one call (all points of a small finite space: then the study is over);
2. the best of the sweep, and some of every quality, become trials; Optuna's sampler refines in synchronous batches;
3. the best distinct plans are polished to their nearest minimum (``studies/polish.py``), the winner becomes a trial.

The *near-optimal set* holds every evaluated feasible plan whose predicted goal is at most the upper end of the winner's
interval (or winner + ``tolerance``): by the prediction nobody can tell them from the winner, so the cheapest of them is
offered beside it.  Same seed, same plan: kills, workers and the order of tasks change nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from studies.descent import descend
from studies.evaluation import (
    ConstraintFunction,
    CostFunction,
    Evaluations,
    Evaluator,
    RiskFunction,
    evaluate_columns,
    make_evaluator,
)
from studies.knobs import FloatArray
from studies.polish import HOP_ITERATIONS, HOP_PASSES, hops, polish
from studies.result import NoFeasiblePlanError, PlanPoint, StudyResult
from studies.samplers import check_sampler, sobol
from studies.search_space import SearchSpace
from studies.storage import Record, StudyStorage, open_study
from studies.trials import Progress, Schedule, Stop, TrialLog, check_unchanged, run_batches

EXHAUSTIVE = 65536  # finite spaces up to this size are evaluated whole: under a second at 10 microseconds a plan
SWEEP = 8192
STARTS = 3
CHEAPER_HOPS = 32
DISTINCT = 0.1  # plans closer than this in every knob polish to the same minimum


def search_recipes(
    space: SearchSpace,
    risk: RiskFunction,
    *,
    cost: CostFunction | None = None,
    constraint: ConstraintFunction | None = None,
    seed: int,
    trials: int = 96,
    sampler: str = "tpe",
    batch: int = 16,
    sweep: int = SWEEP,
    storage: StudyStorage | None = None,
    max_seconds: float | None = None,
    tolerance: float | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> StudyResult:
    """Find the plan of lowest predicted risk.

    Args:
        space: what may be chosen.
        risk: columns of M plans -> ``RiskBatch``; must be a function, with the same answer each time.
        cost: columns of M plans -> [M] cost; default the cost of training the experts.
        constraint: columns of M plans -> [M]; > 0 where a plan is not allowed, e.g. ``cost / max_cost - 1``.
        seed: the same seed gives the same result.
        trials: trials of the sampler, after the sweep.
        sampler: ``tpe``, ``gp``, ``cmaes``, ``random`` or ``qmc``.
        batch: trials proposed together.
        sweep: Sobol' points evaluated first.
        storage: where trials are kept; without, nothing is written.
        max_seconds: start no further batch after this time; recorded, and replayed by a resumed run.
        tolerance: what counts as near-optimal, in nats above the best; default: up to the end of its interval.
        progress: called with (finished trials, planned trials, best goal) after each batch.
        stop: asked before each batch; true ends the search with what there is.
    """
    check_sampler(sampler, dimensions=space.dimensions, objectives=1)
    if not sweep >= 1:
        raise ValueError(f"sweep={sweep} must be at least 1; {SWEEP} suits most spaces")
    if tolerance is not None and not tolerance >= 0:
        raise ValueError(f"tolerance={tolerance} must be at least 0; leave it out for the interval of the best plan")
    schedule = Schedule(sampler=sampler, seed=seed, trials=trials, batch=batch, max_seconds=max_seconds)
    evaluate = make_evaluator(space, risk, cost, constraint)
    settings = {"space": space.describe(), "sampler": sampler, "seed": seed, "batch": batch, "sweep": sweep}
    opened = open_study(storage, settings=settings) if storage else None
    log = TrialLog(knobs=space.knobs, opened=opened)
    check_risk(evaluate, log)
    whole = space.size <= EXHAUSTIVE
    looked = evaluate(space.points() if whole else sweep_points(space, sweep, seed))
    chosen = looked.take(_worth_a_trial(looked, batch))
    given = [log.add(r) for r in records_of(chosen, [f"sweep-{k:06d}" for k in range(len(chosen))], "sweep")]
    if whole:
        return _conclude(
            space, [looked], log, tolerance=tolerance, evaluated=len(looked), stopped=None, schedule=schedule
        )

    def evaluate_batch(units: FloatArray, keys: Sequence[str], kind: str) -> list[Record]:
        return records_of(evaluate(units), keys, kind)

    done, stopped = run_batches(log, schedule, evaluate_batch, given=given, progress=progress, stop=stop)
    parts, evaluated = [looked], len(looked) + len(done)
    if done:
        parts.append(evaluate(np.array([record.unit for record in done])))
    if stopped != "asked":
        polished, count = _polish(space, evaluate, Evaluations.join(parts), seed)
        parts.append(polished)
        evaluated += count
        log.add(records_of(polished.take([polished.best()]), [f"polish-{len(done):06d}"], "polish")[0])
    return _conclude(
        space,
        parts,
        log,
        evaluate=evaluate,
        tolerance=tolerance,
        evaluated=evaluated,
        stopped=stopped,
        schedule=schedule,
    )


def rank_candidates(
    space: SearchSpace,
    rows: Sequence[Mapping[str, Any]],
    risk: RiskFunction,
    *,
    cost: CostFunction | None = None,
    constraint: ConstraintFunction | None = None,
    tolerance: float | None = None,
) -> StudyResult:
    """Advice restricted to a list of plans of ``space``, e.g. those that a benchmark has measured: no search."""
    if not rows:
        raise ValueError("rows=[] must list at least one plan; give the plans to choose from")
    columns = space.columns(rows)
    looked = evaluate_columns(space, columns, space.encode(columns), risk, cost, constraint)
    log = TrialLog(knobs=space.knobs)
    schedule = Schedule(sampler="exhaustive", seed=0, trials=0, batch=2)
    return _conclude(space, [looked], log, tolerance=tolerance, evaluated=len(looked), stopped=None, schedule=schedule)


def sweep_points(space: SearchSpace, count: int, seed: int) -> FloatArray:
    """Sobol' points [count, D]; where tasks have knobs of their own, half treat all tasks alike, a quarter nearly so.

    In 32 dimensions a plain sequence never comes near "a good recipe for everybody", which is where good plans begin.
    """
    points = sobol(space.dimensions, count, seed)
    owned = [knob for knob in space.knobs if knob.task is not None]
    if not owned:
        return points
    fields = list(dict.fromkeys(knob.field for knob in space.knobs))
    alike = sobol(len(fields), count, seed)[:, [fields.index(knob.field) for knob in space.knobs]]
    half, quarter = count // 2, count // 4
    points[:half] = alike[:half]
    near = slice(half, half + quarter)
    points[near] = np.clip(alike[near] + 0.3 * (points[near] - 0.5), 0.0, 1.0)
    return points


def records_of(found: Evaluations, keys: Sequence[str], kind: str) -> list[Record]:
    """Records of evaluated plans."""
    numbers = zip(*(getattr(found, name).tolist() for name in _NUMBERS), strict=True)
    units = found.units.tolist()
    return [
        Record(key=key, kind=kind, unit=tuple(unit), **dict(zip(_NUMBERS, row, strict=True)))
        for key, unit, row in zip(keys, units, numbers, strict=True)
    ]


_NUMBERS = ("goal", "low", "high", "violation", "cost")


def check_risk(evaluate: Evaluator, log: TrialLog) -> None:
    """Refuse to go on with a stored study whose risk has changed."""
    stored = list(log.records.values())
    if stored:
        check_unchanged(stored, evaluate(np.array([record.unit for record in stored])).goal)


def refuse_infeasible(found: Evaluations) -> None:
    """Refuse to advise where not one evaluated plan is feasible."""
    best = PlanPoint.of(found, found.best())
    if best.violation > 0:
        raise NoFeasiblePlanError(best.parameters, best.violation)


def _worth_a_trial(found: Evaluations, batch: int) -> list[int]:
    """The ``batch`` best plans, and as many spread evenly over all qualities, so that a sampler sees good and bad."""
    order = found.order()
    spread = np.linspace(0, len(order) - 1, batch).round().astype(np.int64)
    return list(dict.fromkeys([*order[:batch].tolist(), *order[spread].tolist()]))


def _polish(space: SearchSpace, evaluate: Evaluator, found: Evaluations, seed: int) -> tuple[Evaluations, int]:
    """Polish the best few distinct plans."""
    starts: list[FloatArray] = []
    for unit in found.units[found.order()[:1024]]:
        if all(np.abs(unit - other).max() > DISTINCT for other in starts):
            starts.append(unit)
        if len(starts) == STARTS:
            break
    run = polish(space, evaluate, np.array(starts), seed=seed)
    return run.path, run.evaluated


def _conclude(
    space: SearchSpace,
    parts: list[Evaluations],
    log: TrialLog,
    *,
    tolerance: float | None,
    evaluated: int,
    stopped: str | None,
    schedule: Schedule,
    evaluate: Evaluator | None = None,
) -> StudyResult:
    found = Evaluations.join(parts)
    refuse_infeasible(found)
    best = PlanPoint.of(found, found.best())
    threshold = best.high if tolerance is None else best.goal + tolerance
    near = _near(found, threshold)
    if evaluate is not None and stopped != "asked":
        cheaper, count = _cheapen(space, evaluate, near, threshold, schedule.seed)
        found, evaluated = Evaluations.join([found, cheaper]), evaluated + count
        near = _near(found, threshold)
    cheapest = near.take([int(np.lexsort((near.goal, near.cost))[0])])
    caveats = list(log.notes)
    if stopped is not None:
        caveats.append({"time": "the search ended at its time limit", "asked": "the search was stopped"}[stopped])
    return StudyResult(
        best=best,
        cheapest=PlanPoint.of(cheapest),
        threshold=threshold,
        near_optimal=near,
        evaluations=found,
        edges=space.edges(np.array(best.unit)),
        trials=len(log.records),
        evaluated=evaluated,
        stopped=stopped,
        sampler="exhaustive" if evaluate is None else schedule.sampler,
        seed=schedule.seed,
        caveats=tuple(caveats),
    )


def _near(found: Evaluations, threshold: float) -> Evaluations:
    order = found.order()
    return found.take(order[found.feasible[order] & (found.goal[order] <= threshold)])


def _cheapen(
    space: SearchSpace, evaluate: Evaluator, near: Evaluations, threshold: float, seed: int
) -> tuple[Evaluations, int]:
    """Walk from near-optimal plans to the cheapest that stays near-optimal.

    First by hops (``studies/polish.py``) to lower cost, after each of which the continuous knobs find the lowest risk;
    then by a pattern search on the cost itself inside the near-optimal region.
    """

    def by_cost(units: FloatArray) -> Evaluations:
        found = evaluate(units)
        excess = np.where(np.isfinite(found.goal), found.goal - threshold, 1e9)
        price = np.log1p(np.maximum(found.cost, 0.0))
        return replace(found, goal=price, violation=np.maximum(found.violation, excess))

    parts: list[Evaluations] = []
    evaluated = 0
    here = near.take([int(np.lexsort((near.goal, near.cost))[0])])
    for _ in range(CHEAPER_HOPS):
        # The best plan hops too, in the first round: the cheapest may sit in a dead end.
        bases = [here.units[0], near.units[0]] if not parts else [here.units[0]]
        points = evaluate(
            np.array([point for base in bases for point in hops(space, base)]).reshape(-1, space.dimensions)
        )
        cheaper = points.take(np.flatnonzero(points.cost < (near.cost[0] if not parts else here.cost[0])))
        landed, count = descend(space, evaluate, cheaper, iterations=HOP_ITERATIONS, passes=HOP_PASSES)
        evaluated += count + len(points)
        good = _near(landed, threshold)
        parts.append(landed)
        if not len(good) or not good.cost.min() < here.cost[0]:
            break
        here = good.take([int(np.argmin(good.cost))])
    run = polish(space, by_cost, here.units, seed=seed, rounds=1, smooth=False)
    parts.append(evaluate(run.path.units))
    return Evaluations.join(parts), evaluated + run.evaluated
