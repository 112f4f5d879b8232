"""The study of merging coefficients for experts that exist: which lambda_1 ... lambda_N merge best?

Coefficients lie in a box or on a simplex (``studies/coefficient_space.py``).  The study starts at the uniform merge,
and in a box at common multiples of it: the line that a grid over one common lambda would search.

A predicted risk is cheap and vectorised: sweep, sampler, polish, as for recipes.  A *measured* risk (merge, evaluate)
is dear: one merge at a time, each stored as soon as it is known and shared by any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from studies.coefficient_space import CoefficientSpace
from studies.evaluation import Evaluations, Evaluator, RiskBatch
from studies.knobs import FloatArray
from studies.polish import polish
from studies.recipes import check_risk, records_of, refuse_infeasible
from studies.samplers import check_sampler, sobol
from studies.storage import Record, StudyStorage, open_study
from studies.trials import Progress, Schedule, Stop, TrialLog, Worker, run_batches

# Coefficients [M, N] -> the goal of M merges.
CoefficientRisk = Callable[[FloatArray], RiskBatch]
SWEEP = 2048
STARTS = 4  # best plans descended together
MULTIPLES = (1.0, 0.5, 1.5, 2.0, 3.0)  # of the start, as long as they lie in the box


@dataclass(frozen=True, slots=True, kw_only=True)
class CoefficientResult:
    """What a study of coefficients found.

    Attributes:
        coefficients: expert -> coefficient of the best merge.
        goal: its goal.
        low: lower end of its interval.
        high: upper end.
        start_goal: goal of the merge that the study started from; infinite if that one diverged.
        rows: [T, N] coefficients of all trials, in the order of ``coefficients``.
        goals: [T] their goals.
        feasible: [T] which of them violate nothing.
        evaluated: how many merges the risk was asked for by this process.
        stopped: ``None``, or why the search ended early: ``time`` or ``asked``.
        edges: coefficients at the edge of the box: (expert, ``low`` or ``high``); on the simplex those that are 0.
        caveats: what was repaired or cut short, in sentences.
    """

    coefficients: dict[str, float]
    goal: float
    low: float
    high: float
    start_goal: float
    rows: FloatArray
    goals: FloatArray
    feasible: NDArray[np.bool_]
    evaluated: int
    stopped: str | None
    edges: tuple[tuple[str, str], ...]
    caveats: tuple[str, ...] = ()

    @property
    def trials(self) -> int:
        """Number of trials."""
        return len(self.goals)


def search_coefficients(
    risk: CoefficientRisk,
    names: Sequence[str],
    *,
    bounds: tuple[float, float] = (0.0, 2.0),
    simplex: bool = False,
    total: float = 1.0,
    seed: int,
    trials: int = 64,
    sampler: str = "tpe",
    batch: int = 8,
    start: Sequence[float] | None = None,
    measured: bool = False,
    worker: Worker | None = None,
    storage: StudyStorage | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> CoefficientResult:
    """Find the coefficients of the best merge.

    Args:
        risk: coefficients [M, N] -> ``RiskBatch``; for a measured risk M is 1.
        names: the N experts, in the order of the risk's columns.
        bounds: smallest and largest coefficient of the box; not used on the simplex.
        simplex: whether coefficients are at least 0 and add up to ``total``.
        total: see ``simplex``.
        seed: the same seed gives the same result, whatever the number of workers.
        trials: most trials, those at the start included; the sampler's part is rounded down to whole batches.
        sampler: ``tpe``, ``gp``, ``cmaes``, ``random`` or ``qmc``.
        batch: trials proposed together.
        start: coefficients to start from; default: uniform, 1/N each (``total``/N on the simplex).
        measured: whether the risk is dear: no sweep, no polish, one merge at a time, each stored at once.
        worker: this process's rank among several that share a measured study; needs ``storage``.
        storage: where trials are kept.
        max_seconds: start no further batch after this time.
        progress: called after each batch.
        stop: asked before each batch and each measured merge.
    """
    low, high = (float(bound) for bound in bounds)
    space = CoefficientSpace(names=tuple(names), low=low, high=high, total=float(total) if simplex else None)
    check_sampler(sampler, dimensions=len(space.names), objectives=1)
    if worker is not None and (storage is None or not measured):
        raise ValueError(
            "worker needs measured=True and a storage that the workers share; leave it out for one process"
        )
    warm = _warm_starts(space, start)
    if trials < len(warm):
        raise ValueError(f"trials={trials} must be at least {len(warm)}, the merges at the start; allow more")
    schedule = Schedule(
        sampler=sampler,
        seed=seed,
        trials=(trials - len(warm)) // batch * batch if batch else 0,
        batch=batch,
        max_seconds=max_seconds,
    )
    settings = {
        "coefficients": [sorted(space.names), low, high, space.total],
        "start": warm[0].tolist(),
        "sampler": sampler,
        "seed": seed,
        "batch": batch,
        "measured": measured,
    }
    opened = open_study(storage, settings=settings) if storage else None
    log = TrialLog(knobs=space.knobs, opened=opened)
    evaluate, asked = _evaluator(space, risk)
    if not measured:
        check_risk(evaluate, log)
    each = _one_by_one(evaluate, log, worker or Worker(), stop) if measured else _together(evaluate)
    keys = [f"start-{k:06d}" for k in range(len(warm))]
    for record in each(warm, keys, "sweep"):
        log.add(record)
    given = [log.records[key] for key in keys if key in log.records]
    done: list[Record] = []
    stopped: str | None = "asked"
    if len(given) == len(keys):
        done, stopped = run_batches(log, schedule, each, given=given, progress=progress, stop=stop)
    found = [_again(space, [*given, *done])] if given else []
    if not measured and stopped != "asked":
        wide = evaluate(sobol(len(space.names), SWEEP, seed))
        pool = Evaluations.join([*found, wide])
        run = polish(space, evaluate, pool.units[pool.order()[:STARTS]], seed=seed)
        found += [wide, run.path]
        best = run.path.take([run.path.best()])
        log.add(records_of(best, [f"polish-{len(done):06d}"], "polish")[0])
    if not found:
        raise ValueError("the search was stopped before the first merge was measured; run it again to go on")
    return _conclude(space, Evaluations.join(found), log, given, done, asked, stopped)


def _warm_starts(space: CoefficientSpace, start: Sequence[float] | None) -> FloatArray:
    """Points of the start and, in a box, of its multiples."""
    count = len(space.names)
    if start is None:
        even = (space.total or 1.0) / count
        inside = space.total is not None or space.low <= even <= space.high
        start = [even if inside else (space.low + space.high) / 2] * count
    base = np.asarray(start, dtype=np.float64)
    if space.total is not None:
        return space.encode(base)[None, :]
    rows = [base] + [m * base for m in MULTIPLES[1:] if ((m * base >= space.low) & (m * base <= space.high)).all()]
    distinct = [row for k, row in enumerate(rows) if not any(np.array_equal(row, other) for other in rows[:k])]
    return np.stack([space.encode(row) for row in distinct])


def _evaluator(space: CoefficientSpace, risk: CoefficientRisk) -> tuple[Evaluator, list[int]]:
    """Points to evaluated merges, and a counter of the merges asked for."""
    asked = [0]

    def evaluate(units: FloatArray) -> Evaluations:
        rows = space.decode(units)
        asked[0] += len(rows)
        answer = risk(rows)
        if len(answer.goal) != len(rows):
            raise ValueError(f"risk returned {len(answer.goal)} values for {len(rows)} merges; return one for each")
        return Evaluations(
            units=units,
            columns=space.columns(rows),
            goal=np.where(np.isfinite(answer.goal), answer.goal, np.inf),
            low=answer.low,
            high=answer.high,
            violation=answer.violation,
            cost=np.zeros(len(rows)),
        )

    return evaluate, asked


def _together(evaluate: Evaluator) -> Callable[[FloatArray, Sequence[str], str], list[Record]]:
    return lambda units, keys, kind: records_of(evaluate(units), keys, kind)


def _one_by_one(
    evaluate: Evaluator, log: TrialLog, worker: Worker, stop: Stop | None
) -> Callable[[FloatArray, Sequence[str], str], list[Record]]:
    """Measure what nobody has measured: the worker's own share first, then from the end what others still lack."""

    def each(units: FloatArray, keys: Sequence[str], kind: str) -> list[Record]:
        own = [k for k in range(len(keys)) if k % worker.count == worker.rank]
        for k in [*own, *(k for k in reversed(range(len(keys))) if k not in own)]:
            log.refresh()
            if keys[k] not in log.records:
                if stop is not None and stop():
                    break
                log.add(records_of(evaluate(units[k : k + 1]), [keys[k]], kind)[0])
        return [log.records[key] for key in keys if key in log.records]

    return each


def _again(space: CoefficientSpace, records: Sequence[Record]) -> Evaluations:
    """Evaluations of records, without asking the risk."""

    def numbers(name: str) -> FloatArray:
        return np.array([getattr(record, name) for record in records], dtype=np.float64)

    parts: dict[str, Any] = {name: numbers(name) for name in ("goal", "low", "high", "violation", "cost")}
    units = np.array([record.unit for record in records])
    return Evaluations(units=units, columns=space.columns(space.decode(units)), **parts)


def _conclude(
    space: CoefficientSpace,
    found: Evaluations,
    log: TrialLog,
    given: Sequence[Record],
    done: Sequence[Record],
    asked: list[int],
    stopped: str | None,
) -> CoefficientResult:
    refuse_infeasible(found)
    best = found.take([found.best()])
    row = space.decode(best.units)[0]
    tried = _again(space, [*given, *done])
    low, high = (0.0, np.inf) if space.total is not None else (space.low, space.high)
    edges = [(n, "low") for n, v in zip(space.names, row, strict=True) if v <= low + 1e-6] + [
        (n, "high") for n, v in zip(space.names, row, strict=True) if v >= high - 1e-6
    ]
    caveats = list(log.notes)
    if stopped is not None:
        caveats.append({"time": "the search ended at its time limit", "asked": "the search was stopped"}[stopped])
    return CoefficientResult(
        coefficients=dict(zip(space.names, row.tolist(), strict=True)),
        goal=float(best.goal[0]),
        low=float(best.low[0]),
        high=float(best.high[0]),
        start_goal=given[0].goal,
        rows=space.decode(tried.units),
        goals=tried.goal,
        feasible=tried.feasible,
        evaluated=asked[0],
        stopped=stopped,
        edges=tuple(edges),
        caveats=tuple(caveats),
    )
