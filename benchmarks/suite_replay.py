r"""Replay probes from a stored suite: the advisor's input, row by row, with what it would have cost.

A probe of k steps with a constant schedule is the beginning of a stored run, so its experts, merges and traces are in
the tables.  What was asked for is moved to the nearest stored setting (log distance); what is not stored at all is
left out of the replay and named in ``Replay.missing``.

Cost: training N b k units; every merged evaluation N E/3; the evaluation of x_0 once; constants and heads as stored.
One difference from real probing: a stored probe is the beginning of the stored long run (same batches), where the
advisor draws another batch order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.probing import LINEAR_METHOD, MergePoint
from benchmarks.suite_format import Suite, evaluation_units
from estimators.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRequest:
    """A probe to replay.

    Attributes:
        recipe: its recipe; ``steps`` is the probe's length.
        points: merges to look at.
        figure: which samples they are evaluated on, ``probe`` (few) or ``validation``.
    """

    recipe: Recipe
    points: tuple[MergePoint, ...]
    figure: str = "probe"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReplayedProbe:
    """One probe out of the tables.

    Attributes:
        recipe: the stored setting it became.
        number: index of the stored recipe.
        rows: rows of the suite it looked at.
        merges: the same rows as observations.
        traces: displacement traces up to the probe's end.
        training: units of training it.
        evaluation: units of its merged evaluations.
        missing: points that no stored row answers.
    """

    recipe: Recipe
    number: int
    rows: tuple[int, ...]
    merges: tuple[MergeObservation, ...]
    traces: tuple[DisplacementTrace, ...]
    training: float
    evaluation: float
    missing: tuple[MergePoint, ...]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Replay:
    """Probe data with its cost.

    Attributes:
        data: what the risk model is fitted on.
        probes: the probes behind it.
        cost: purpose -> units.
    """

    data: ProbeData
    probes: tuple[ReplayedProbe, ...]
    cost: dict[str, float]

    @property
    def units(self) -> float:
        """Everything counted."""
        return sum(self.cost.values())

    @property
    def rows(self) -> frozenset[int]:
        """Rows of the suite that were seen."""
        return frozenset(row for probe in self.probes for row in probe.rows)

    @property
    def longest(self) -> int:
        """Steps of the longest probe."""
        return max(probe.recipe.steps for probe in self.probes)


def replay_probes(suite: Suite, seed: int, design: Sequence[ProbeRequest]) -> Replay:
    """Replay a whole design; see :func:`replay_probe` for one."""
    return collect(suite, seed, [replay_probe(suite, seed, request) for request in design])


def collect(suite: Suite, seed: int, probes: Sequence[ReplayedProbe], figure: str = "probe") -> Replay:
    """Put replayed probes together with the constants and count everything."""
    if not probes:
        raise ValueError("design=[] must hold at least one probe; ask for one")
    constants = suite.constants(seed)
    data = ProbeData.of(constants, probes)
    return Replay(
        data=data,
        probes=tuple(probes),
        cost={
            "constants": constants.cost,
            "heads": float(suite.record(seed)["head_cost"]),
            "probes": sum(probe.training for probe in probes),
            "evaluations": evaluation_units(suite, seed, figure) + sum(probe.evaluation for probe in probes),
        },
    )


def replay_probe(suite: Suite, seed: int, request: ProbeRequest) -> ReplayedProbe:
    """The stored probe nearest to what was asked for.

    Raises:
        ValueError: if no stored run has the optimizer and schedule.
    """
    number, checkpoints = nearest_run(suite, seed, request.recipe)
    length = _nearest_step(checkpoints, request.recipe.steps)
    recipe = suite.recipes[number].replace(steps=length)
    found: list[int] = []
    missing: list[MergePoint] = []
    for point in request.points:
        row = _nearest_row(suite, seed, number, _nearest_step(checkpoints, min(point.step, length)), point, found)
        if row is None:
            missing.append(point)
        else:
            found.append(row)
    traces = [_cut(suite.traces[seed, number, task], length) for task in suite.tasks]
    return ReplayedProbe(
        recipe=recipe,
        number=number,
        rows=tuple(found),
        merges=tuple(observation(suite, row, request.figure) for row in found),
        traces=tuple(trace for trace in traces if trace is not None),
        training=float(len(suite.tasks) * recipe.cost()),
        evaluation=len(found) * evaluation_units(suite, seed, request.figure),
        missing=tuple(missing),
    )


def observation(suite: Suite, row: int, figure: str = "probe") -> MergeObservation:
    """A stored merge as the risk model takes it, seen on the ``probe`` or the ``validation`` samples."""
    group = suite.groups[int(suite.group[row])]
    initial = suite.initial(group.seed, figure)
    finite = bool(np.isfinite(group.gram).all())
    values = suite.figures[figure][row]
    return MergeObservation(
        plan=suite.plan(row),
        risks=dict(zip(suite.tasks, values.tolist(), strict=True)),
        initial_risks=dict(zip(suite.tasks, initial.tolist(), strict=True)),
        num_samples=suite.evaluation_size(group.seed, figure),
        noise=dict(zip(suite.tasks, suite.figures[f"{figure}_error"][row].tolist(), strict=True)),
        squared_displacements=dict(zip(suite.tasks, np.diag(group.gram).tolist(), strict=True)),
        displacement_gram=tuple(tuple(map(float, line)) for line in group.gram) if finite else None,
        seed=group.seed,
    )


def nearest_run(suite: Suite, seed: int, wanted: Recipe) -> tuple[int, list[int]]:
    """Index and checkpoints of the stored run nearest in batch size, then in learning rate, long enough if possible."""
    found = [
        (number, recipe)
        for number, recipe in suite.recipes.items()
        if (seed, number, suite.tasks[0]) in suite.outcomes
        and recipe.optimizer == wanted.optimizer
        and recipe.schedule == wanted.schedule
    ]
    if not found:
        raise ValueError(
            f"optimizer={wanted.optimizer!r} with schedule={wanted.schedule!r} is not in suite {suite.name!r}; "
            "ask for one that its grid holds"
        )

    def distance(entry: tuple[int, Recipe]) -> tuple[float, float, bool]:
        recipe = entry[1]
        return (
            abs(math.log(recipe.batch_size / wanted.batch_size)),
            round(abs(math.log(recipe.learning_rate / wanted.learning_rate)), 9),
            recipe.steps < wanted.steps,
        )

    number = min(found, key=distance)[0]
    return number, checkpoints_of(suite, seed, number)


def checkpoints_of(suite: Suite, seed: int, number: int) -> list[int]:
    """Steps at which the experts of a stored run were kept."""
    return sorted(
        step for s, recipe, task, step in suite.experts if (s, recipe, task) == (seed, number, suite.tasks[0])
    )


def _nearest_step(checkpoints: Sequence[int], wanted: int) -> int:
    """The nearest checkpoint in log distance, rounded down on a tie."""
    return min(checkpoints, key=lambda step: (round(abs(math.log(step / wanted)), 9), step))


def _nearest_row(suite: Suite, seed: int, number: int, step: int, point: MergePoint, seen: Sequence[int]) -> int | None:
    """The stored merge nearest to a point, not seen yet: same kind, nearest coefficient; ``None`` if there is none."""
    kind = "alone" if point.alone is not None else "uniform" if point.method == LINEAR_METHOD else "method"
    rows = [
        int(row)
        for row in suite.rows(seed, (kind,))
        if suite.method[row] == point.method and _is_of(suite, int(row), number, step) and int(row) not in seen
    ]
    if not rows:
        return None
    return min(rows, key=lambda row: abs(math.log(suite.coefficients[row].max() / point.coefficient)))


def _is_of(suite: Suite, row: int, number: int, step: int) -> bool:
    group = suite.groups[int(suite.group[row])]
    return set(group.recipes) == {number} and set(group.steps) == {step}


def _cut(trace: DisplacementTrace, length: int) -> DisplacementTrace | None:
    """A trace as a probe of ``length`` steps would have left it."""
    kept = trace.steps <= length
    if not kept.any():
        return None
    return DisplacementTrace(
        task=trace.task,
        recipe=trace.recipe.replace(steps=length),
        seed=trace.seed,
        steps=trace.steps[kept],
        squared_displacements=trace.squared_displacements[kept],
        losses=trace.losses[kept],
    )
