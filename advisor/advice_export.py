"""Advice in the forms that other programs take: YAML, CSV for ``merge-advisor predict``, an Optuna study, commands."""

from __future__ import annotations

import csv
import io
import shlex
from pathlib import Path

import yaml

from advisor.advice import Recommendation
from advisor.plan import Plan

STUDY_NAME = "study.journal"
FIELDS = ("learning_rate", "batch_size", "steps", "optimizer", "momentum", "schedule", "num_samples")


def advice_yaml(recommendation: Recommendation) -> str:
    """The plan with its prediction, as YAML."""
    r = recommendation
    content = {
        "status": r.status,
        "answer": r.answer,
        "method": r.plan.method,
        "predicted_goal_risk": {"value": r.goal.value, "low": r.goal.low, "high": r.goal.high, "unit": "nats"},
        "recipes": {name: recipe.to_json() for name, recipe in r.plan.recipes.items()},
        "coefficients": {name: float(value) for name, value in r.plan.coefficients.items()},
    }
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def plan_csv(plan: Plan, *, label: str = "advised") -> str:
    """The plan as one row that ``merge-advisor predict`` reads back.

    An empty cell is a default there: no momentum, all samples.
    """
    row: dict[str, object] = {"label": label, "method": plan.method}
    first = next(iter(plan.recipes.values()))
    for field in FIELDS:
        row[field] = _cell(getattr(first, field))
    for name, recipe in plan.recipes.items():
        if recipe != first:
            row |= {f"{field}_{name}": _cell(getattr(recipe, field)) for field in FIELDS}
        row[f"coefficient_{name}"] = _cell(plan.coefficients[name])
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(row), lineterminator="\n")
    writer.writeheader()
    writer.writerow(row)
    return stream.getvalue()


def study_code(run: Path, *, name: str = "recipes") -> str:
    """Python lines that open the run's Optuna study."""
    return (
        "import optuna\n"
        "from optuna.storages import JournalStorage\n"
        "from optuna.storages.journal import JournalFileBackend\n\n"
        f"storage = JournalStorage(JournalFileBackend({str(run / STUDY_NAME)!r}))\n"
        f"study = optuna.load_study(study_name={name!r}, storage=storage)\n"
    )


def commands(run: Path) -> str:
    """Command lines that go on from the advice."""
    where = shlex.quote(str(run))
    return "\n".join(f"merge-advisor {command} {where}" for command in ("train", "merge", "validate", "report"))


def _cell(value: object) -> str:
    if value is None or value == 0.0:
        return "" if value is None else "0"
    return repr(value) if isinstance(value, float) else str(value)
