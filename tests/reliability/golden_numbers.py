"""Stored numbers of every estimator, every term of the risk and every term of the bound: a change is seen, not found.

    python -m tests.reliability.golden_numbers          # rewrites golden_numbers.json

Estimators are measured on a small seeded network; terms get every parameter explicitly, never a fitted or prior one, so
that a better fit changes nothing here and another formula does.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advisor.bound import worst_case
from advisor.bound_constants import from_constants
from advisor.exposure import Exposure, TaskScales
from advisor.plan import Plan, PlanTable
from advisor.risk_form import KINDS, Moves, task_risk
from estimators.constants import Constants, Estimate, TaskConstants
from estimators.measuring import measure_constants
from estimators.recipe import Recipe
from tests.estimators.test_measuring import project

STORED = Path(__file__).with_suffix(".json")
COMMAND = "python -m tests.reliability.golden_numbers"
NAMES = ("a", "b")
# transformed parameters of the risk form; a kind that is not named here gets OTHER
PARAMETERS = {"gain": 0.6, "slope": -0.7, "tail": 0.1, "help": 0.8, "noise": -0.9, "steepness": 3.6}
OTHER = -0.4


def estimator_numbers() -> dict[str, float]:
    """Every default constant of two tasks on a small network."""
    torch.set_num_threads(1)
    objectives, tasks = project()
    constants = measure_constants(objectives, tasks, max_units=2400, seed=3).to_json()
    return dict(sorted(flat(constants).items()))


def flat(value: Any, name: str = "") -> dict[str, float]:
    """Finite numbers of a nested value by path."""
    if isinstance(value, dict):
        pairs = [(f"{name}/{key}", item) for key, item in value.items()]
    elif isinstance(value, list | tuple):
        pairs = [(f"{name}/{k}", item) for k, item in enumerate(value)]
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {name: float(value)} if is_number else {}
    return {key: number for path, item in pairs for key, number in flat(item, path).items()}


def example_constants() -> Constants:
    """Two tasks with round constants."""

    def exact(value: float) -> Estimate:
        return Estimate(value=value, low=value, high=value)

    return Constants(
        tasks={
            name: TaskConstants(
                initial_risk=exact(risk),
                initial_gap=exact(risk),
                initial_gradient_norm=exact(norm),
                gradient_variance=exact(4.0),
                top_curvature=exact(20.0),
                sample_smoothness=exact(30.0),
            )
            for name, risk, norm in (("a", 1.2, 0.8), ("b", 0.9, 0.5))
        },
        num_samples={"a": 400, "b": 300},
        num_classes=dict.fromkeys(NAMES, 5),
        num_parameters=1000,
        gradient_gram=tuple(tuple(exact(v) for v in row) for row in ((0.64, 0.1), (0.1, 0.25))),
    )


def example_plans() -> list[Plan]:
    """A short, a long and a wild plan with unequal coefficients."""
    recipe = Recipe(learning_rate=0.01, batch_size=16, steps=40)
    kinds = ((recipe, 0.4), (recipe.replace(steps=400), 0.7), (recipe.replace(learning_rate=0.2, steps=100), 1.5))
    return [Plan(recipes=dict.fromkeys(NAMES, r), coefficients={"a": c, "b": 1.5 * c}) for r, c in kinds]


def term_numbers() -> dict[str, float]:
    """Every term of the risk form at given parameters and displacements."""
    constants = example_constants()
    scales = TaskScales.from_constants(constants)
    exposure = Exposure.of(PlanTable.from_plans(example_plans(), constants.num_samples), scales)
    time = np.array([[0.4], [4.0], [20.0]])
    moves = Moves(
        exposure=exposure,
        linear=exposure.coefficients,
        square=exposure.coefficients,
        drift=0.5 * time * np.array([[1.0, 0.7]]),
        walk=0.01 * time * np.array([[1.0, 1.3]]),
        luck=np.array([0.0, 0.1, -0.1]),
    )
    values = np.array([[PARAMETERS.get(kind, OTHER)] * len(NAMES) for kind in KINDS])
    risk, terms = task_risk({0: values}, moves, scales, np.array([[1.0, 0.25], [0.25, 1.0]]))
    return flat({"risk": risk.tolist(), **{name: value.tolist() for name, value in terms.items()}})


def bound_numbers() -> dict[str, float]:
    """Every term of the worst-case bound, log10."""
    constants = example_constants()
    table = PlanTable.from_plans(example_plans(), constants.num_samples)
    terms = worst_case(from_constants(constants, [0.5, 0.5]), table)
    return flat({name: terms.log10(name).tolist() for name in bound_names(terms)})


def bound_names(terms: Any) -> list[str]:
    """Names of the bound's terms."""
    fields = [name.removeprefix("log_") for name in terms.__dataclass_fields__ if name.startswith("log_")]
    return [*fields, "total"]


def all_numbers() -> dict[str, dict[str, float]]:
    """Everything that is stored."""
    return {"estimators": estimator_numbers(), "risk terms": term_numbers(), "bound terms": bound_numbers()}


if __name__ == "__main__":
    STORED.write_text(json.dumps({"command": COMMAND, "kinds": list(KINDS), **all_numbers()}, indent=1) + "\n")
