"""Which merges of a unit are measured: one stored piece for each run and step, and one for the subsets of tasks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.claim_design import (
    COEFFICIENTS,
    FURTHER,
    MAIN,
    METHOD_COEFFICIENTS,
    METHODS,
    PROBE_STEPS,
    Design,
    PoolRun,
)
from benchmarks.claim_inputs import Unit
from benchmarks.claim_merging import Row, UnitMerger
from estimators.sampling import stable_seed

EARLY_COEFFICIENTS = (0.25, 1.0, 2.0)  # merges that the model may be fitted on
LATE_COEFFICIENTS = (0.125, 0.25, 0.5, 0.75)
SGD_EARLY, SGD_LATE = (0.25, 1.0, 3.0), (0.25, 1.0)
FIXED = 0.25  # coefficient at which the penalty of further tasks is measured
EIGHT = MAIN + FURTHER


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Some rows that are measured and stored together.

    Attributes:
        name: of its file.
        make: measures them.
    """

    name: str
    make: Callable[[], list[Row]]


def pieces(design: Design, unit: Unit, runs: list[PoolRun], folder: Path) -> list[Piece]:
    """All pieces of a unit, in the order in which they are worth having."""
    merger = UnitMerger(unit, folder)
    found = [
        Piece(name=f"{run.name}@{step}", make=lambda run=run, step=step: _of_run(design, merger, run, step))  # type: ignore[misc]
        for run in runs
        if run.name != "more"
        for step in run.checkpoints
    ]
    if 9 in design.claims:
        found.append(Piece(name="left-out", make=lambda: left_out_rows(merger, design.middle)))
    if 5 in design.claims:
        found.append(Piece(name="alone", make=lambda: alone_rows(merger, design.middle)))
        found.append(Piece(name="eight", make=lambda: eight_rows(design, merger)))
        found += [
            Piece(name=f"subsets-{size}", make=lambda size=size: subset_rows(design, merger, size))  # type: ignore[misc]
            for size in range(2, len(EIGHT) + 1)
        ]
    return found


def expert_pieces(unit: Unit, runs: list[PoolRun], folder: Path) -> list[Piece]:
    """Every expert on its own task."""
    merger = UnitMerger(unit, folder)
    return [
        Piece(
            name=f"experts-{run.name}@{step}",
            make=lambda run=run, step=step: merger.expert_rows(run.name, run.tasks, step, run.recipe.num_samples),  # type: ignore[misc]
        )
        for run in runs
        for step in run.checkpoints
    ]


def _of_run(design: Design, merger: UnitMerger, run: PoolRun, step: int) -> list[Row]:
    """The merges of one run at one step."""
    early = step <= PROBE_STEPS
    if run.name == "base":
        rows = merger.common("linear", "base", MAIN, step, COEFFICIENTS)
        if 10 in design.claims:
            for method in METHODS:
                rows += merger.common("method", "base", MAIN, step, METHOD_COEFFICIENTS[method], method=method)
        if early and design.name == "full":
            alone = MAIN[design.checkpoints.index(step) % len(MAIN)]
            members = dict.fromkeys(MAIN, ("base", step))
            rows.append(merger.row("probe-alone", members, {t: 1.0 if t == alone else 0.0 for t in MAIN}))
        return rows
    if run.recipe.optimizer == "sgd":
        return merger.common("linear", run.name, MAIN, step, SGD_EARLY if step < design.sgd_steps else SGD_LATE)
    if run.recipe.num_samples is not None or run.recipe.alignment != "none":
        return merger.common("linear", run.name, MAIN, step, (0.25, 0.5)) if step == run.recipe.steps else []
    if step not in (10, PROBE_STEPS, design.middle):
        return []
    return merger.common("linear", run.name, MAIN, step, EARLY_COEFFICIENTS if early else LATE_COEFFICIENTS)


def left_out_rows(merger: UnitMerger, step: int) -> list[Row]:
    """The main experts but one, each left out in turn, at the simple average's coefficient."""
    members = dict.fromkeys(MAIN, ("base", step))
    return [merger.row("left-out", members, {t: 0.0 if t == out else 1 / len(MAIN) for t in MAIN}) for out in MAIN]


def run_of(task: str) -> str:
    """Run that holds the base recipe's expert of a task."""
    return "base" if task in MAIN else "more"


def alone_rows(merger: UnitMerger, step: int) -> list[Row]:
    """Each expert alone: itself on all eight tasks, and at the fixed coefficient on its own."""
    rows = []
    for task in EIGHT:
        members = {task: (run_of(task), step)}
        rows.append(merger.row("single", members, {task: 1.0}, judged=EIGHT))
        rows.append(merger.row("alone", members, {task: FIXED}))
    return rows


def eight_rows(design: Design, merger: UnitMerger) -> list[Row]:
    """Early merges of all eight experts: what the model learns the further tasks from."""
    rows = []
    for step in sorted({design.checkpoints[0], max(design.early)}):
        members = {task: (run_of(task), step) for task in EIGHT}
        for value in (0.125, 0.5, 1.0):
            rows.append(merger.row("eight", members, dict.fromkeys(EIGHT, value)))
    return rows


def subset_rows(design: Design, merger: UnitMerger, size: int) -> list[Row]:
    """Random subsets of a size: the simple average and the fixed coefficient, looked at on all eight tasks."""
    generator = np.random.default_rng(stable_seed(merger.unit.seed, "subsets", size))
    chosen: list[tuple[str, ...]] = []
    while len(chosen) < (design.subsets if size < len(EIGHT) else 1):
        picked = {int(i) for i in generator.choice(len(EIGHT), size=size, replace=False)}
        subset = tuple(task for i, task in enumerate(EIGHT) if i in picked)
        if subset not in chosen:
            chosen.append(subset)
    rows = []
    for subset in chosen:
        members = {task: (run_of(task), design.middle) for task in subset}
        rows.append(merger.row("subset-average", members, dict.fromkeys(subset, 1 / size), judged=EIGHT))
        rows.append(merger.row("subset-fixed", members, dict.fromkeys(subset, FIXED)))
    return rows
