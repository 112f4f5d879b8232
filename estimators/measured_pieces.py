r"""What measuring the constants has found so far, in pieces that are kept: one estimator of one task, or of all tasks.

A piece is a function of data, weights, seed and budget, and of the pieces before it, so one that was kept by a killed
process is taken as it is: the constants end with the same bits.  Units are counted as if it had been measured now.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from estimators.constants import Estimate, Matrix
from estimators.cost import CostMeter
from estimators.gradient_rows import GradientRows
from estimators.objectives import Objective
from estimators.sample_design import WeightedDraw
from estimators.snapshot_folder import Snapshots
from estimators.snapshots import Snapshot
from estimators.tasks import Task
from estimators.tensor_digests import tensor_digest
from estimators.training_snapshots import objective_fingerprint

ROWS = ("exact", "samples_per_row", "population", "note")


@dataclass(slots=True, kw_only=True)
class Findings:
    """What estimators have found.

    Attributes:
        fields: task -> field -> estimate.
        failures: task -> field -> why there is none.
        rows: task -> gradient rows.
        goal: curvature of the goal's risk.
        relative: every task's curvature along every other's gradient.
    """

    fields: dict[str, dict[str, Estimate]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, GradientRows] = field(default_factory=dict)
    goal: Estimate | None = None
    relative: Matrix | None = None

    def copy(self) -> Findings:
        """The same findings, to which more can be added apart."""
        return Findings(
            fields={task: dict(found) for task, found in self.fields.items()},
            failures={task: dict(found) for task, found in self.failures.items()},
            rows=dict(self.rows),
            goal=self.goal,
            relative=self.relative,
        )

    def since(self, before: Findings) -> Findings:
        """What was added to an earlier copy; nothing is ever replaced."""
        return Findings(
            fields={
                task: {name: value for name, value in found.items() if name not in before.fields.get(task, {})}
                for task, found in self.fields.items()
            },
            failures={
                task: {name: value for name, value in found.items() if name not in before.failures.get(task, {})}
                for task, found in self.failures.items()
            },
            rows={task: rows for task, rows in self.rows.items() if task not in before.rows},
            goal=self.goal if before.goal is None else None,
            relative=self.relative if before.relative is None else None,
        )

    def take(self, other: Findings) -> None:
        """Add what another holds."""
        for mine, theirs in ((self.fields, other.fields), (self.failures, other.failures)):
            for task, found in theirs.items():
                mine.setdefault(task, {}).update(found)  # type: ignore[arg-type]
        self.rows |= other.rows
        self.goal = self.goal if other.goal is None else other.goal
        self.relative = self.relative if other.relative is None else other.relative


class MeasuredPieces:
    """Measures each piece once.

    Args:
        kept: where pieces are kept.
        meter: counts what they cost.
        basis: everything that all pieces depend on, as :func:`measuring_basis` gives it.
    """

    def __init__(self, kept: Snapshots, meter: CostMeter, basis: str) -> None:
        self.kept, self.meter, self.basis = kept, meter, basis

    def once(self, what: str, device: torch.device, measure: Callable[[CostMeter], Findings]) -> Findings:
        """One piece: from where it was kept, or measured and offered.

        Args:
            what: names the piece.
            device: where gradient rows belong.
            measure: measures it, counting on the meter it is given.
        """
        name = f"constants-{hashlib.sha256(f'{self.basis}|{what}'.encode()).hexdigest()[:24]}"
        snapshot = self.kept.load(name)
        if snapshot is None:
            own = CostMeter()
            found = measure(own)
            state = to_snapshot(found, own)
            self.kept.keep(name, lambda: state)
            self.meter.absorb(own.to_json())
            return found
        self.meter.absorb(snapshot.facts["units"])
        return from_snapshot(snapshot, device)


def measuring_basis(
    objectives: Mapping[str, Objective], tasks: Mapping[str, Task], weights: Tensor | None, *others: object
) -> str:
    """A hash of everything that measured constants depend on."""
    parts: list[object] = [None if weights is None else tensor_digest(weights), *map(repr, others)]
    for name, task in tasks.items():
        splits = [tensor_digest(value) for s in (task.train, task.validation) for value in (s.inputs, s.labels)]
        held_out = None if task.held_out_losses is None else tensor_digest(task.held_out_losses)
        features = None if task.features is None else tensor_digest(task.features)
        parts.append([name, objective_fingerprint(objectives[name]), splits, held_out, features])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def to_snapshot(found: Findings, meter: CostMeter) -> Snapshot:
    """Findings and their cost as a snapshot."""
    tensors: dict[str, Tensor] = {}
    rows: dict[str, dict[str, Any]] = {}
    for task, row in found.rows.items():
        rows[task] = {name: getattr(row, name) for name in ROWS} | {"norms": row.squared_norms.tolist()}
        rows[task]["chances"] = None if row.draw is None else row.draw.chances.tolist()
        tensors |= {f"mean/{task}": row.mean, f"sketches/{task}": row.sketches}
        if row.draw is not None and row.deviations is not None and row.mean_sketch is not None:
            tensors |= {
                f"places/{task}": row.draw.places,
                f"deviations/{task}": row.deviations,
                f"mean_sketch/{task}": row.mean_sketch,
            }
    facts = {
        "fields": {
            task: {name: _plain(value) for name, value in cells.items()} for task, cells in found.fields.items()
        },
        "failures": found.failures,
        "rows": rows,
        "goal": None if found.goal is None else _plain(found.goal),
        "relative": None if found.relative is None else [[_plain(cell) for cell in row] for row in found.relative],
        "units": meter.to_json(),
    }
    return Snapshot(tensors=tensors, facts=facts)


def from_snapshot(snapshot: Snapshot, device: torch.device) -> Findings:
    """The inverse; rows go to a device."""
    facts, tensors = snapshot.facts, snapshot.tensors
    relative = facts["relative"]
    return Findings(
        fields={
            task: {name: Estimate.from_json(cell) for name, cell in cells.items()}
            for task, cells in facts["fields"].items()
        },
        failures={task: dict(cells) for task, cells in facts["failures"].items()},
        rows={
            task: GradientRows(
                mean=tensors[f"mean/{task}"].to(device),
                sketches=tensors[f"sketches/{task}"],
                squared_norms=np.array(row["norms"]),
                draw=None
                if row["chances"] is None
                else WeightedDraw(
                    places=tensors[f"places/{task}"], chances=np.array(row["chances"]), population=row["population"]
                ),
                deviations=tensors.get(f"deviations/{task}"),
                mean_sketch=tensors.get(f"mean_sketch/{task}"),
                **{name: row[name] for name in ROWS},
            )
            for task, row in facts["rows"].items()
        },
        goal=None if facts["goal"] is None else Estimate.from_json(facts["goal"]),
        relative=None if relative is None else tuple(tuple(map(Estimate.from_json, row)) for row in relative),
    )


def _plain(estimate: Estimate) -> dict[str, Any]:
    """Plain values; an infinite end becomes ``None``."""
    return {
        name: None if isinstance(value, float) and math.isinf(value) else value
        for name, value in asdict(estimate).items()
    }
