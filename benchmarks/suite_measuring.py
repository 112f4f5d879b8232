r"""Train the recipes of a grid and measure merges of their experts: the rows of a suite.

Every merge is evaluated on the same samples as x_0, so differences are paired: ``validation_error`` is the standard
error of (risk - initial risk) over the validation samples, ``probe_error`` over the first few of them that a probe
would be evaluated on.  An expert that diverged makes every merge that holds it infinite.

Weights are flat [P]; figures are in nats; a row is a dictionary of plain values.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from advisor.merged_risks import merge_flat
from advisor.probing import LINEAR_METHOD
from benchmarks.suite_grid import EvaluationSizes, Grid
from benchmarks.suite_inputs import SuiteInputs
from estimators.fine_tuning import FineTuned, Run, fine_tune_stack, stack_key
from estimators.objectives import ClassificationObjective
from estimators.recipe import Recipe

EVALUATION_BATCH = 256
TRACE_POINTS = 28  # log-spaced points kept of a run's trace
FIGURES = (
    "validation",
    "validation_error",
    "validation_accuracy",
    "probe",
    "probe_error",
    "test",
    "test_error",
    "test_accuracy",
    "train",
)

Row = dict[str, Any]
BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(slots=True)
class Part:
    """Rows of some recipes of one seed."""

    runs: list[Row] = field(default_factory=list)
    traces: list[Row] = field(default_factory=list)
    experts: list[Row] = field(default_factory=list)
    groups: list[Row] = field(default_factory=list)
    merges: list[Row] = field(default_factory=list)
    joint: list[Row] = field(default_factory=list)

    def to_json(self) -> dict[str, list[Row]]:
        """Plain values; infinite numbers stay (the file is written with ``allow_nan``)."""
        return {cell.name: getattr(self, cell.name) for cell in dataclasses.fields(self)}

    def extend(self, other: Part) -> None:
        """Take over another part's rows."""
        for cell in dataclasses.fields(self):
            getattr(self, cell.name).extend(getattr(other, cell.name))


def recipe_key(recipe: Recipe) -> str:
    """A short name that depends on the recipe alone."""
    return hashlib.sha256(json.dumps(recipe.to_json(), sort_keys=True).encode()).hexdigest()[:10]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Samples:
    """Evaluation samples of one task: validation, test and train one after another.

    Attributes:
        objective: the task's loss.
        inputs: [n, ...].
        labels: [n].
        sizes: how many of each.
        initial: losses of x_0 [n].
    """

    objective: ClassificationObjective
    inputs: Tensor
    labels: Tensor
    sizes: EvaluationSizes
    initial: FloatArray

    @torch.no_grad()
    def evaluate(self, weights: Tensor) -> tuple[FloatArray, BoolArray]:
        """Losses [n] and whether each sample is classified correctly [n]."""
        losses, correct = [], []
        for start in range(0, len(self.labels), EVALUATION_BATCH):
            labels = self.labels[start : start + EVALUATION_BATCH]
            logits = self.objective.logits(weights, self.inputs[start : start + EVALUATION_BATCH]).float()
            losses.append(functional.cross_entropy(logits, labels, reduction="none"))
            correct.append(logits.argmax(1) == labels)
        return torch.cat(losses).double().cpu().numpy(), torch.cat(correct).cpu().numpy()

    def figures(self, weights: Tensor | None) -> dict[str, float]:
        """All ``FIGURES`` of some weights; infinite risks for ``None`` or where a loss is not finite."""
        losses = None if weights is None else self.evaluate(weights)
        if losses is None or not np.isfinite(losses[0]).all():
            return {name: 0.0 if "error" in name or "accuracy" in name else math.inf for name in FIGURES}
        values, correct = losses
        sizes, gain = self.sizes, values - self.initial
        validation = slice(0, sizes.validation)
        test = slice(sizes.validation, sizes.validation + sizes.test)
        probe = slice(0, sizes.probe)
        return {
            "validation": values[validation].mean(),
            "validation_error": _standard_error(gain[validation]),
            "validation_accuracy": correct[validation].mean(),
            "probe": values[probe].mean(),
            "probe_error": _standard_error(gain[probe]),
            "test": values[test].mean(),
            "test_error": _standard_error(gain[test]),
            "test_accuracy": correct[test].mean(),
            "train": values[sizes.validation + sizes.test :].mean(),
        }


def evaluation_samples(inputs: SuiteInputs, wanted: EvaluationSizes) -> dict[str, Samples]:
    """Evaluation samples of every task; sizes are lowered to what the smallest task has."""
    sizes = EvaluationSizes(
        probe=min(wanted.probe, *(len(task.validation) for task in inputs.tasks)),
        validation=min(wanted.validation, *(len(task.validation) for task in inputs.tasks)),
        test=min(wanted.test, *(len(split) for split in inputs.tests.values())),
        train=min(wanted.train, *(len(task.train) for task in inputs.tasks)),
    )
    found: dict[str, Samples] = {}
    for task in inputs.tasks:
        parts = [
            task.validation.head(sizes.validation),
            inputs.tests[task.name].head(sizes.test),
            task.train.head(sizes.train),
        ]
        objective = inputs.objectives[task.name]
        device = objective.initial.device
        samples = Samples(
            objective=objective,
            inputs=torch.cat([part.inputs for part in parts]).to(device),
            labels=torch.cat([part.labels for part in parts]).to(device),
            sizes=sizes,
            initial=np.zeros(0),
        )
        found[task.name] = dataclasses.replace(samples, initial=samples.evaluate(objective.initial)[0])
    return found


def chunks_of(recipes: Iterable[Recipe], num_tasks: int, stack: int) -> list[tuple[Recipe, ...]]:
    """Recipes that train together: equal shape, all tasks of a recipe in one stack, at most ``stack`` runs."""
    shapes: dict[tuple[object, ...], list[Recipe]] = {}
    for recipe in recipes:
        shapes.setdefault((*stack_key(recipe), recipe.schedule, recipe.num_samples), []).append(recipe)
    size = max(1, stack // num_tasks)
    return [tuple(group[i : i + size]) for group in shapes.values() for i in range(0, len(group), size)]


def second_order_safe() -> AbstractContextManager[None]:
    """Plain attention: the fused kernels have no batching rule, so a stack would run them one by one."""
    return sdpa_kernel(SDPBackend.MATH)


def train_chunk(inputs: SuiteInputs, grid: Grid, recipes: Sequence[Recipe], *, seed: int) -> list[FineTuned]:
    """Fine-tune every task with every recipe of a chunk."""
    runs = [
        Run(task=name, recipe=recipe, seed=seed, checkpoints=grid.checkpoints_of(recipe))
        for recipe in recipes
        for name in inputs.names
    ]
    trains = inputs.trains
    keep_on = "cpu" if inputs.backbone.device.type == "cpu" else str(inputs.backbone.device)
    with second_order_safe():
        return fine_tune_stack(
            [inputs.objectives[run.task] for run in runs], [trains[run.task] for run in runs], runs, keep_on=keep_on
        )


def describe_runs(results: Sequence[FineTuned], *, seed: int) -> Part:
    """Rows of runs and their traces."""
    part = Part()
    for result in results:
        key = {"seed": seed, "recipe": recipe_key(result.run.recipe), "task": result.run.task}
        done = len(result.losses)
        part.runs.append(
            key
            | {
                "settings": result.run.recipe.to_json(),
                "outcome": result.outcome,
                "cause": result.cause,
                "steps_done": done,
                "seconds": result.seconds,
            }
        )
        for step in np.unique(np.geomspace(1, max(done, 1), TRACE_POINTS).round().astype(int))[: done or 0]:
            part.traces.append(
                key
                | {
                    "step": int(step),
                    "loss": _finite(result.losses[step - 1]),
                    "gradient_norm": _finite(result.gradient_norms[step - 1]),
                    "squared_displacement": _finite(result.squared_displacements[step - 1]),
                }
            )
    return part


class Merger:
    """Forms merges of one seed's experts and writes their rows.

    Args:
        inputs: the seed's tasks.
        samples: task -> evaluation samples.
        seed: the seed.
    """

    def __init__(self, inputs: SuiteInputs, samples: Mapping[str, Samples], seed: int) -> None:
        self.inputs, self.samples, self.seed = inputs, samples, seed
        self.names = inputs.names
        self.start = inputs.backbone.initial

    def group(
        self, members: Mapping[str, tuple[Recipe, int]], experts: Mapping[str, Tensor | None]
    ) -> tuple[Row, dict[str, Tensor]]:
        """The row of a group of experts with the Gram matrix of their task vectors, and those vectors."""
        taus = {name: value.to(self.start) - self.start for name, value in experts.items() if value is not None}
        name = "|".join(f"{recipe_key(members[task][0])}@{members[task][1]}" for task in self.names)
        row: Row = {"seed": self.seed, "group": f"{self.seed}|{name}"}
        for task in self.names:
            row[f"recipe_{task}"], row[f"steps_{task}"] = recipe_key(members[task][0]), members[task][1]
        for i, first in enumerate(self.names):
            for second in self.names[i:]:
                known = first in taus and second in taus
                row[f"gram_{first}_{second}"] = float(taus[first] @ taus[second]) if known else math.inf
        return row, taus

    def merge(
        self,
        group: str,
        taus: Mapping[str, Tensor],
        coefficients: Mapping[str, float],
        *,
        kind: str,
        method: str = LINEAR_METHOD,
    ) -> Row:
        """Merge and evaluate on every task."""
        row: Row = {"group": group, "kind": kind, "method": method}
        row |= {f"coefficient_{name}": coefficients[name] for name in self.names}
        used = {name: value for name, value in coefficients.items() if value > 0}
        weights = None if set(used) - set(taus) else self._weights(taus, used, method)
        for name in self.names:
            row |= {f"{figure}_{name}": value for figure, value in self.samples[name].figures(weights).items()}
        return row

    def _weights(self, taus: Mapping[str, Tensor], used: Mapping[str, float], method: str) -> Tensor:
        if method == LINEAR_METHOD:
            merged = self.start.clone()
            for name, value in used.items():
                merged.add_(taus[name], alpha=value)
            return merged
        experts = {name: self.start + taus[name] for name in used}
        return merge_flat(self.inputs.backbone, self.start, experts, used, method)

    def initial_row(self) -> dict[str, dict[str, float]]:
        """Figures of x_0 on every task."""
        return {name: self.samples[name].figures(self.start) for name in self.names}


def measure_chunk(merger: Merger, grid: Grid, results: Sequence[FineTuned]) -> Part:
    """All rows of a trained chunk: runs, experts at every checkpoint, merges with equal recipes."""
    part = describe_runs(results, seed=merger.seed)
    by_recipe: dict[str, dict[str, FineTuned]] = {}
    for result in results:
        by_recipe.setdefault(recipe_key(result.run.recipe), {})[result.run.task] = result
    for runs in by_recipe.values():
        recipe = next(iter(runs.values())).run.recipe
        for steps in grid.checkpoints_of(recipe):
            experts = {name: runs[name].checkpoints.get(steps) for name in merger.names}
            part.experts += [_expert_row(merger, recipe, name, steps, value) for name, value in experts.items()]
            row, taus = merger.group({name: (recipe, steps) for name in merger.names}, experts)
            part.groups.append(row)
            for value in grid.coefficients.at(steps):
                part.merges.append(merger.merge(row["group"], taus, dict.fromkeys(merger.names, value), kind="uniform"))
            alone = grid.alone_at(recipe, steps, merger.names)
            if alone is not None:
                values = {name: float(grid.alone or 0.0) if name == alone else 0.0 for name in merger.names}
                part.merges.append(merger.merge(row["group"], taus, values, kind="alone"))
            if steps in grid.method_steps:
                part.merges += _method_rows(merger, grid, row["group"], taus)
    return part


def _method_rows(merger: Merger, grid: Grid, group: str, taus: Mapping[str, Tensor]) -> list[Row]:
    if len(taus) < len(merger.names):
        return []
    return [
        merger.merge(group, taus, dict.fromkeys(merger.names, value), kind="method", method=method)
        for method, values in grid.methods.items()
        for value in values
    ]


def _expert_row(merger: Merger, recipe: Recipe, name: str, steps: int, weights: Tensor | None) -> Row:
    weights = None if weights is None else weights.to(merger.start)
    return {
        "seed": merger.seed,
        "recipe": recipe_key(recipe),
        "task": name,
        "step": steps,
        **merger.samples[name].figures(weights),
    }


def _standard_error(gains: FloatArray) -> float:
    return float(gains.std(ddof=1) / math.sqrt(len(gains))) if len(gains) > 1 else 0.0


def _finite(value: float) -> float:
    return float(value) if math.isfinite(value) else math.inf
