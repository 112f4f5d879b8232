"""Risks over plain parameters whose best plan is known in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np

from studies.evaluation import RiskBatch
from studies.knobs import Columns
from studies.search_space import SearchSpace

RANGES: dict[str, Any] = {
    "learning_rate": {"sgd": (1e-4, 1.0)},
    "batch_size": (8, 128),
    "steps": (20, 640),
    "coefficient": (0.0, 2.0),
}
BEST_RATE, BEST_STEPS, BEST_COEFFICIENT = 0.02, 150, 0.6


def make_space(**changes: Any) -> SearchSpace:
    """A space of two tasks, one optimizer and one schedule, with some fields changed."""
    return SearchSpace(**({"tasks": ("a", "b"), **RANGES} | changes))


def quadratic_terms(columns: Columns, suffix: str = "") -> np.ndarray:
    """log-quadratic with a strong interaction of rate and steps; 0 at the best plan."""
    rate = np.log(columns.get(f"learning_rate{suffix}", columns.get("learning_rate")) / BEST_RATE)
    steps = np.log(columns.get(f"steps{suffix}", columns.get("steps")) / BEST_STEPS)
    coefficient = columns.get(f"coefficient{suffix}", columns.get("coefficient")) - BEST_COEFFICIENT
    return rate**2 + steps**2 + 1.6 * rate * steps + 4 * coefficient**2


def quadratic_risk(columns: Columns) -> RiskBatch:
    """0.3 + 0.1 quadratic, interval of 0.01 either side."""
    goal = 0.3 + 0.1 * quadratic_terms(columns)
    return RiskBatch(goal=goal, low=goal - 0.01, high=goal + 0.01, violation=np.full(len(goal), -1.0))


def diverging_risk(columns: Columns) -> RiskBatch:
    """The quadratic with an edge at learning rate 0.005, four times below the best: above it the goal is infinite."""
    violation = np.log(columns["learning_rate"] / 0.005)
    goal = np.where(violation > 0, np.inf, 0.3 + 0.1 * quadratic_terms(columns))
    return RiskBatch(goal=goal, low=goal - 0.01, high=goal + 0.01, violation=violation)


def task_risk(columns: Columns) -> RiskBatch:
    """A quadratic for each task, best steps alike, best coefficient 0.6; added in the order of the tasks' names."""
    tasks = sorted(name.removeprefix("steps_") for name in columns if name.startswith("steps_"))
    goal = 0.3 + 0.1 * sum(quadratic_terms(columns, f"_{task}") for task in tasks) / len(tasks)
    return RiskBatch(goal=goal, low=goal - 0.01, high=goal + 0.01, violation=np.full(len(goal), -1.0))
