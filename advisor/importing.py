r"""Probes from runs that were trained elsewhere: their weights merged and evaluated here, as own probes are.

A probe is one run a task; merges are at the coefficients that own probes would be merged at (``advisor.probing``), on
the project's validation samples with the project's heads.  Everything is checked before anything is written, and each
finished probe is one line of ``probes.jsonl``, so an import that was stopped goes on where it was.  Training elsewhere
is not counted in the run's cost; evaluating is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advisor.imported_runs import ImportedRun, admit, belonging_together, squared_distance, trace_of, weights_at
from advisor.measuring import methods_of
from advisor.merged_risks import TRACE_POINTS, MergedRisks
from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.plan import Plan
from advisor.probe_session import merged_risks, probe_to_json, stored_probes
from advisor.probing import EVALUATION_SAMPLES, RUNGS, MergePoint, Probe, ProbeDesign, measured_gain
from advisor.runs import RunDirectory
from advisor.workspace import PROBES_NAME, Spending, Workspace
from estimators.constants import Constants
from estimators.objectives import evaluate
from estimators.trace_files import find_traces, read_trace

IMPORTED_NAME = "imported.json"
EARLIEST, LATEST_EARLY = 0.15, 0.75  # an early merge is made from a checkpoint in this share of the steps


def import_probes(ws: Workspace, folder: Path, constants: Constants) -> tuple[ProbeData, bool]:
    """Probe data with the runs below ``folder`` added, and whether any of them is new.

    Raises:
        BadTrace: if any trace is damaged or does not fit the project; nothing is imported then.
        RunInterrupted: between two probes.
    """
    runs = [admit(ws, read_trace(place)) for place in find_traces(folder)]
    probes = belonging_together(runs, tuple(ws.tasks))
    known = _known_digests(ws.run)
    new = [probe for probe in probes if _digests(probe) - known]
    samples = min(EVALUATION_SAMPLES, *(len(task.validation) for task in ws.tasks.values()))
    risks = merged_risks(ws, samples)
    if new:
        cost = samples * len(ws.tasks) / 3 * (1 + (RUNGS + 4) * len(new))
        ws.require_affordable(cost, "evaluating the imported runs")
        risks.initial()
    for done, probe in enumerate(new):
        ws.progress("import", done, len(new), probe=done + 1)
        ws.interrupts.check()
        _import_probe(ws, probe, risks, samples)
    ws.progress("import", len(new), len(new))
    _note(ws.run, runs, new)
    return ProbeData.of(constants, stored_probes(ws)), bool(new)


def imported_notes(run: RunDirectory) -> tuple[str, ...]:
    """Caveats of imported runs, for the advice."""
    return tuple(run.read_json(IMPORTED_NAME)["notes"]) if run.has(IMPORTED_NAME) else ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Group:
    """Runs of one probe and the weights of the checkpoints that are merged."""

    runs: Mapping[str, ImportedRun]
    early: Mapping[str, int] | None
    weights: Mapping[str, Mapping[int, Tensor]]

    def steps(self, point: MergePoint, first: ImportedRun) -> dict[str, int] | None:
        """Task -> checkpoint that a merge point means; ``None`` where there is none."""
        if point.step == first.recipe.steps:
            return {name: run.recipe.steps for name, run in self.runs.items()}
        return dict(self.early) if self.early is not None else None


def _import_probe(ws: Workspace, runs: Mapping[str, ImportedRun], risks: MergedRisks, samples: int) -> None:
    stored = stored_probes(ws)
    first = next(iter(runs.values()))
    design = ProbeDesign(
        tasks=tuple(runs),
        rates={},
        batch_sizes=(1, 1),
        max_steps=first.recipe.steps,
        budget=math.inf,
        evaluation_samples=samples,
        anchors={},
        methods=methods_of(ws),
    )
    with ws.spending("probes") as spending:
        risks.meter = spending.meter
        if not stored:
            spending.meter.add(forwards=samples * len(ws.tasks))  # x_0, evaluated for all
        traces = {name: _trace(ws, run, spending) for name, run in runs.items()}
        is_first = all(probe.recipe.optimizer != first.recipe.optimizer for probe in stored)
        merges = _merges(ws, _group(ws, runs), design, risks, number=len(stored), first=is_first)
        probes = _by_recipe(runs, traces, merges, spending.meter.units)
    for place, probe in enumerate(probes):
        about = {"seconds": spending.seconds if place == 0 else 0.0, "number": len(stored) + place}
        names = {trace.task for trace in probe.traces}
        source = [runs[name].trace.digest for name in runs if name in names]
        elsewhere = sum(runs[name].recipe.cost() for name in names)
        ws.run.append(PROBES_NAME, probe_to_json(probe) | about | {"imported": source, "units_elsewhere": elsewhere})


def _group(ws: Workspace, runs: Mapping[str, ImportedRun]) -> _Group:
    early: dict[str, int] | None = {}
    for name, run in runs.items():
        last = run.recipe.steps
        near = [step for step in run.steps if EARLIEST * last <= step <= LATEST_EARLY * last]
        if early is not None and near:
            early[name] = min(near, key=lambda step: abs(step - last / 3))
        else:
            early = None
    weights = {}
    for name, run in runs.items():
        wanted = {run.recipe.steps, *([early[name]] if early else [])} & set(run.steps)
        weights[name] = {step: _flat(ws, run, step) for step in sorted(wanted)}
    return _Group(runs=runs, early=early, weights=weights)


def _flat(ws: Workspace, run: ImportedRun, step: int) -> Tensor:
    """Weights [D] of a checkpoint; a project whose heads train along adds its own head."""
    shared = weights_at(ws.prepared.backbone, run.trace, step)
    objective = ws.objectives[run.task]
    return torch.cat([shared, objective.initial[objective.num_shared :]])


def _merges(
    ws: Workspace, group: _Group, design: ProbeDesign, risks: MergedRisks, *, number: int, first: bool
) -> list[MergeObservation]:
    """Every merge that own probes would make and whose checkpoints are there."""
    merges: list[MergeObservation] = []
    done: list[tuple[MergePoint, float]] = []
    lead = next(iter(group.runs.values()))
    if not all(run.recipe.steps in run.steps or run.outcome == "diverged" for run in group.runs.values()):
        return merges
    while (point := design.next_merge(lead.recipe, done, number=number, first=first)) is not None:
        steps = group.steps(point, lead)
        if steps is None:
            done.append((point, -math.inf))
            continue
        plan = Plan(
            recipes={name: run.recipe.replace(steps=steps[name]) for name, run in group.runs.items()},
            coefficients={n: point.coefficient if point.alone in (None, n) else 0.0 for n in group.runs},
            method=point.method,
        )
        experts = {name: group.weights[name].get(step) for name, step in steps.items()}
        merges.append(risks.measure(plan, experts, seed=lead.seed))
        done.append((point, measured_gain(merges[-1], ws.goal.weights)))
    return merges


def _trace(ws: Workspace, run: ImportedRun, spending: Spending) -> DisplacementTrace:
    """The run's displacement trace; without recorded steps, measured at its checkpoints."""
    measured: dict[int, tuple[float, float]] = {}
    if not len(run.trace.steps):
        train = ws.tasks[run.task].train.head(EVALUATION_SAMPLES)
        for step in run.trace.header.checkpoints:
            weights = _flat(ws, run, step)
            loss = evaluate(ws.objectives[run.task], weights, train, meter=spending.meter).risk
            measured[step] = (
                squared_distance(ws.prepared.backbone, weights[: ws.prepared.backbone.num_parameters]),
                loss,
            )
    return trace_of(run, TRACE_POINTS, measured)


def _by_recipe(
    runs: Mapping[str, ImportedRun],
    traces: Mapping[str, DisplacementTrace],
    merges: Sequence[MergeObservation],
    cost: float,
) -> list[Probe]:
    """One probe a recipe; the first holds the merges and their cost."""
    recipes = list(dict.fromkeys(run.recipe for run in runs.values()))
    probes = []
    for place, recipe in enumerate(recipes):
        names = [name for name, run in runs.items() if run.recipe == recipe]
        probes.append(
            Probe(
                recipe=recipe,
                traces=tuple(traces[name] for name in names),
                merges=tuple(merges) if place == 0 else (),
                outcomes={name: runs[name].outcome for name in names},
                cost=cost if place == 0 else 0.0,
            )
        )
    return probes


def _note(run: RunDirectory, runs: Sequence[ImportedRun], new: Sequence[Mapping[str, ImportedRun]]) -> None:
    """Keep the caveats of everything imported so far."""
    stored = run.read_json(IMPORTED_NAME) if run.has(IMPORTED_NAME) else {"notes": [], "digests": []}
    fresh = [item for item in runs if item.trace.digest not in stored["digests"]]
    if not fresh:
        return
    units = sum(item.recipe.cost() for item in fresh)
    notes = [
        *stored["notes"],
        f"{len(fresh)} runs were trained elsewhere ({units:.3g} per-sample gradients, not counted here): training "
        "losses are those of their own heads, and whether they saw this project's validation images is unknown",
    ]
    tasks: dict[str, list[str]] = {}
    for item in fresh:
        for text in item.caveats:
            if item.task not in tasks.setdefault(text, []):
                tasks[text].append(item.task)
    notes += [f"imported runs of {', '.join(names)}: {text}" for text, names in tasks.items()]
    partial = [probe for probe in new if len(probe) < len({item.task for item in runs})]
    if partial:
        listed = "; ".join(", ".join(probe) for probe in partial[:3])
        notes.append(
            f"{len(partial)} imported probes hold runs of some tasks only ({listed}), so they show less of how tasks "
            "interfere; runs that belong together carry the same recipe or the same probe label"
        )
    known = sorted({*stored["digests"], *(item.trace.digest for item in fresh)})
    run.write_json(IMPORTED_NAME, {"notes": notes, "digests": known})


def _digests(probe: Mapping[str, ImportedRun]) -> set[str]:
    return {run.trace.digest for run in probe.values()}


def _known_digests(run: RunDirectory) -> set[str]:
    if not run.path_of(PROBES_NAME).exists():
        return set()
    records: Sequence[Mapping[str, Any]] = run.read_log(PROBES_NAME).records
    return {digest for record in records for digest in record.get("imported", ())}
