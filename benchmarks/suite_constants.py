"""Constants at x_0 of one seed and a learning-rate range test, by the advisor's own estimators and budget."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from advisor.project import Project
from benchmarks.suite_inputs import SuiteInputs
from estimators.cost import CostMeter
from estimators.files import read_json, write_json
from estimators.joint_training import join_tasks
from estimators.measuring import measure_constants
from estimators.range_test import run_range_test

RANGE_TEST_BATCH = 16
RANGE_TEST_STEPS = 60


def measure_suite_constants(inputs: SuiteInputs, path: Path, *, seed: int, max_units: float) -> dict[str, Any]:
    """Measure once, keep under ``path``, read back afterwards; plain values as ``Constants.to_json`` gives them."""
    if not path.exists():
        constants = measure_constants(
            inputs.objectives, {task.name: task for task in inputs.tasks}, seed=seed, max_units=max_units
        )
        write_json(path, constants.to_json())
    return dict(read_json(path))


def measure_range_test(inputs: SuiteInputs, project: Project, path: Path, *, seed: int) -> dict[str, float]:
    """Learning rate that an SGD range test on all tasks suggests, and its cost; measured once, kept under ``path``."""
    if not path.exists():
        objective, pool = join_tasks(
            inputs.backbone, {task.name: task for task in inputs.tasks}, dict.fromkeys(inputs.names, 1.0)
        )
        rates = dict(project.search.learning_rate)
        meter = CostMeter()
        found = run_range_test(
            objective,
            pool,
            highest=max(100 * high for _, high in rates.values()),
            batch_size=RANGE_TEST_BATCH,
            steps=RANGE_TEST_STEPS,
            seed=seed,
            meter=meter,
        )
        write_json(path, {"suggestion": found.suggestion, "cost": meter.units})
    return dict(read_json(path))
