"""The pool's experts: each run trained once, its experts and traces kept on disk, so that a killed build goes on.

WORK/<network>-<seed>/experts/<run>.safetensors   experts under "<task>|<step>"        <run>.json   outcomes, traces
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.claim_design import PoolRun
from benchmarks.claim_inputs import Unit
from benchmarks.suite_measuring import second_order_safe
from estimators.files import read_json, write_bytes_atomic, write_json
from estimators.fine_tuning import FineTuned, Run, fine_tune_stack

TRACE_POINTS = 20


def train_run(unit: Unit, run: PoolRun, folder: Path) -> None:
    """Train one run on all its tasks in one stack, unless it is there."""
    record = folder / f"{run.name}.json"
    if record.exists():
        return
    objectives = [unit.inputs.objectives[task] for task in run.tasks]
    trains = [unit.inputs.trains[task] for task in run.tasks]
    runs = [Run(task=task, recipe=run.recipe, seed=unit.seed, checkpoints=run.checkpoints) for task in run.tasks]
    with second_order_safe():
        results = fine_tune_stack(objectives, trains, runs)
    kept = {
        f"{result.run.task}|{step}": weights.cpu().contiguous()
        for result in results
        for step, weights in result.checkpoints.items()
    }
    write_bytes_atomic(folder / f"{run.name}.safetensors", save(kept))
    write_json(record, {"recipe": run.recipe.to_json(), "runs": [_describe(result) for result in results]})


def read_experts(folder: Path, run: str) -> dict[tuple[str, int], Tensor]:
    """(task, step) -> weights of a stored run; an expert that diverged is not there."""
    found: dict[tuple[str, int], Tensor] = {}
    for name, weights in load_file(folder / f"{run}.safetensors").items():
        task, step = name.split("|")
        found[task, int(step)] = weights
    return found


def read_run(folder: Path, run: str) -> dict[str, Any]:
    """Recipe, outcomes and traces of a stored run."""
    return dict(read_json(folder / f"{run}.json"))


def _describe(result: FineTuned) -> dict[str, Any]:
    done = len(result.losses)
    steps = np.unique(np.geomspace(1, max(done, 1), TRACE_POINTS).round().astype(int))[: done or 0]
    return {
        "task": result.run.task,
        "outcome": result.outcome,
        "cause": result.cause,
        "steps": steps.tolist(),
        "losses": [_finite(result.losses[k - 1]) for k in steps],
        "squared_displacements": [_finite(result.squared_displacements[k - 1]) for k in steps],
    }


def _finite(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None
