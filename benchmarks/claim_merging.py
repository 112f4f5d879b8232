r"""Merges of the pool's experts and the figures they are measured by.

A *row* is one merge: who was merged (task -> run and step), with which coefficients and operator, the Gram matrix of
the task vectors, and, for each task that was looked at, test, validation and training risk (nats), test accuracy and
the standard error of validation risk - x_0's.  An expert that diverged makes every merge that holds it infinite, stored
as ``None``.  The same evaluation samples serve x_0 and all merges of a unit, so differences are paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advisor.merged_risks import merge_flat
from advisor.probing import LINEAR_METHOD
from benchmarks.claim_inputs import Unit
from benchmarks.claim_training import read_experts
from estimators.files import read_json, write_json

Row = dict[str, Any]
Member = tuple[str, int]  # run and step

FIGURES = ("validation", "validation_error", "test", "test_accuracy", "train")


class UnitMerger:
    """Forms and measures merges of a unit.

    Args:
        unit: the unit.
        folder: where its experts are.
    """

    def __init__(self, unit: Unit, folder: Path) -> None:
        self.unit, self.folder = unit, folder
        self.start = unit.inputs.backbone.initial
        self._runs: dict[str, dict[tuple[str, int], Tensor]] = {}

    def task_vector(self, task: str, member: Member) -> Tensor | None:
        """Task vector of an expert; ``None`` if it diverged before that step."""
        run, step = member
        if run not in self._runs:
            self._runs[run] = read_experts(self.folder, run)
        weights = self._runs[run].get((task, step))
        return None if weights is None else weights.to(self.start.device) - self.start

    def merged(self, members: Mapping[str, Member], coefficients: Mapping[str, float], method: str) -> Tensor | None:
        """Merged weights; ``None`` if a merged expert diverged."""
        used = {task: value for task, value in coefficients.items() if value > 0}
        vectors = {task: self.task_vector(task, members[task]) for task in used}
        alive = {task: vector for task, vector in vectors.items() if vector is not None}
        if len(alive) < len(used):
            return None
        if method == LINEAR_METHOD:
            out = self.start.clone()
            for task, value in used.items():
                out.add_(alive[task], alpha=value)
            return out
        experts = {task: self.start + vector for task, vector in alive.items()}
        return merge_flat(self.unit.inputs.backbone, self.start, experts, used, method)

    def row(
        self,
        kind: str,
        members: Mapping[str, Member],
        coefficients: Mapping[str, float],
        *,
        method: str = LINEAR_METHOD,
        judged: Sequence[str] = (),
    ) -> Row:
        """Merge and measure on ``judged`` tasks (default: the merged ones)."""
        weights = self.merged(members, coefficients, method)
        return {
            "kind": kind,
            "method": method,
            "members": {task: list(member) for task, member in members.items()},
            "coefficients": dict(coefficients),
            "gram": self.gram(members),
            "figures": {task: self.figures(task, weights) for task in judged or tuple(members)},
        }

    def figures(self, task: str, weights: Tensor | None) -> dict[str, float | None]:
        """Figures of some weights on a task."""
        found = self.unit.samples[task].figures(weights)
        return {name: rounded(found[name]) for name in FIGURES}

    def gram(self, members: Mapping[str, Member]) -> list[list[float]] | None:
        """Inner products of the task vectors in the order of ``members``; ``None`` if one diverged."""
        vectors = [self.task_vector(task, member) for task, member in members.items()]
        alive = [vector for vector in vectors if vector is not None]
        if len(alive) < len(vectors):
            return None
        stacked = torch.stack(alive).double()
        return [[float(f"{cell:.6g}") for cell in line] for line in (stacked @ stacked.T).tolist()]

    def common(
        self,
        kind: str,
        run: str,
        tasks: Sequence[str],
        step: int,
        values: Sequence[float],
        *,
        method: str = LINEAR_METHOD,
        judged: Sequence[str] = (),
    ) -> list[Row]:
        """One run's experts at one step, merged with each common coefficient."""
        members = dict.fromkeys(tasks, (run, step))
        return [self.row(kind, members, dict.fromkeys(tasks, value), method=method, judged=judged) for value in values]

    def expert_rows(self, run: str, tasks: Sequence[str], step: int, num_samples: int | None) -> list[Row]:
        """Experts on their own tasks; training risk over samples that they were trained on."""
        rows = []
        for task in tasks:
            vector = self.task_vector(task, (run, step))
            row: Row = {"run": run, "task": task, "step": step}
            if vector is None:
                rows.append(row | {"test": None, "train": None, "test_accuracy": None, "norm": None})
                continue
            samples = self.unit.samples[task]
            losses, correct = samples.evaluate(self.start + vector)
            sizes = samples.sizes
            first, last = sizes.validation, sizes.validation + sizes.test
            used = min(sizes.train, num_samples or sizes.train)
            rows.append(
                row
                | {
                    "test": rounded(losses[first:last].mean()),
                    "train": rounded(losses[last : last + used].mean()),
                    "test_accuracy": rounded(correct[first:last].mean()),
                    "norm": rounded(float(vector.norm())),
                }
            )
        return rows


def stored_rows(path: Path, make: Any) -> list[Row]:
    """Rows of a finished piece, or those that ``make()`` measures now, kept under ``path``."""
    if not path.exists():
        write_json(path, make())
    return list(read_json(path))


def rounded(value: float) -> float | None:
    """Six digits; ``None`` for what is no finite number."""
    return float(f"{value:.6g}") if math.isfinite(value) else None
