"""The stored tables of the claims: one JSON file a unit, and what the fitted bound predicts for it beside it.

    <network>-<seed>.json               measured (``benchmarks.claim_building``)
    <network>-<seed>.predictions.json   predicted from the short merges of that table (``benchmarks.claim_predictions``)

Lists of rows are written one row a line.  A risk that is no number, or larger, counts as ``DIVERGED_RISK``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claim_parts import DIVERGED_RISK
from estimators.files import read_json, write_text
from estimators.recipe import Recipe

TABLES = Path(__file__).parent / "results" / "claims"
NEEDED = ("network", "seed", "design", "tasks", "num_samples", "edge", "initial", "runs", "experts", "merges", "twins")


class BrokenTable(ValueError):  # noqa: N818 - an outcome, named after what happened
    """A stored table that lacks something or holds what it cannot hold."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class UnitTable:
    """What was measured, and predicted, of one network and seed.

    Attributes:
        data: the measured table.
        predictions: what the fitted bound predicts; empty if nothing was predicted.
    """

    data: Mapping[str, Any]
    predictions: Mapping[str, Any]
    _common: dict[tuple[Any, ...], int] = field(init=False, default_factory=dict)  # merges of one run by their key

    def __post_init__(self) -> None:
        """Refuse a table that lacks a part; index the merges of one run with a common coefficient."""
        missing = [name for name in NEEDED if name not in self.data]
        if missing:
            raise BrokenTable(f"table lacks {missing}; build the unit again")
        for number, row in enumerate(self.data["merges"]):
            members = {(run, step) for run, step in row["members"].values()}
            values = {round(value, 9) for value in row["coefficients"].values()}
            if len(members) == 1 and len(values) == 1:
                key = (row["kind"], row["method"], *members.pop(), values.pop())
                self._common.setdefault(key, number)

    @property
    def name(self) -> str:
        """Network and seed."""
        return f"{self.data['network']}-{self.data['seed']}"

    def recipe(self, run: str) -> Recipe:
        """Recipe of a run."""
        if run not in self.data["runs"]:
            raise BrokenTable(f"table {self.name} holds no run {run!r}; build the unit again")
        return Recipe.from_json(dict(self.data["runs"][run]["recipe"]))

    def rows(self, kind: str, run: str | None = None, step: int | None = None, method: str | None = None) -> list[Any]:
        """Merges of a kind, all of whose members come from a run and a step."""
        found = []
        for number, row in enumerate(self.data["merges"]):
            members = list(row["members"].values())
            if (
                row["kind"] == kind
                and (run is None or all(member[0] == run for member in members))
                and (step is None or all(member[1] == step for member in members))
                and (method is None or row["method"] == method)
            ):
                found.append(dict(row) | {"number": number})
        return found

    def one(self, kind: str, run: str, step: int, coefficient: float, method: str = "task_arithmetic") -> Any:
        """The merge of a run's experts at a step with a common coefficient."""
        number = self._common.get((kind, method, run, step, round(coefficient, 9)))
        if number is not None:
            return dict(self.data["merges"][number]) | {"number": number}
        raise BrokenTable(
            f"table {self.name} holds no {method} merge of run {run!r} at step {step} with coefficient {coefficient:g};"
            " build the unit again"
        )

    def steps(self, run: str) -> list[int]:
        """Steps at which a run was measured, increasing."""
        return sorted({int(row["step"]) for row in self.data["experts"] if row["run"] == run})

    def expert_mean(self, run: str, step: int, figure: str) -> float:
        """Mean over tasks of a figure of a run's experts on their own tasks."""
        values = [row[figure] for row in self.data["experts"] if row["run"] == run and row["step"] == step]
        if not values:
            raise BrokenTable(f"table {self.name} holds no experts of run {run!r} at step {step}; build the unit again")
        return float(np.mean([capped(value) for value in values]))

    def initial(self, figure: str, tasks: Sequence[str]) -> float:
        """Mean over tasks of a figure of x_0."""
        return float(np.mean([self.data["initial"][task][figure] for task in tasks]))

    def predicted(self, row: Mapping[str, Any]) -> float:
        """Predicted mean risk of a merge over the tasks it was judged on."""
        return self.predicted_figure(row, "risk")

    def predicted_figure(self, row: Mapping[str, Any], name: str) -> float:
        """A predicted figure of a merge, ``risk`` or ``gap``; NaN where nothing was predicted."""
        if not self.predictions:
            return np.nan
        value = self.predictions["rows"][row["number"]][name]
        return np.nan if value is None else float(value)


def capped(value: float | None) -> float:
    """A risk as it counts: at most ``DIVERGED_RISK``, which also stands for no number.

    >>> capped(0.3), capped(None), capped(50.0)
    (0.3, 10.0, 10.0)
    """
    if value is None or not value < DIVERGED_RISK:
        return DIVERGED_RISK
    if value < 0:
        raise BrokenTable(f"risk={value} must be at least 0; build the unit again")
    return float(value)


def risk(row: Mapping[str, Any], figure: str = "test") -> float:
    """Mean over the judged tasks of a merge's risk."""
    return float(np.mean([capped(values[figure]) for values in row["figures"].values()]))


def accuracy(row: Mapping[str, Any]) -> float:
    """Mean over the judged tasks of a merge's test accuracy."""
    return float(np.mean([values["test_accuracy"] or 0.0 for values in row["figures"].values()]))


def write_unit_table(path: Path, table: Mapping[str, Any]) -> None:
    """Write a table, its lists one row a line."""
    parts = []
    for name, value in table.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            lines = ",\n".join("  " + json.dumps(row, ensure_ascii=False, allow_nan=False) for row in value)
            parts.append(f" {json.dumps(name)}: [\n{lines}\n ]")
        else:
            parts.append(f" {json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_tables(folder: Path) -> list[UnitTable]:
    """Every unit of a folder, by network and seed.

    Raises:
        BrokenTable: if there is none, or one lacks a part.
    """
    paths = sorted(path for path in folder.glob("*-*.json") if not path.name.endswith(".predictions.json"))
    if not paths:
        raise BrokenTable(f"folder={str(folder)!r} holds no table; run python -m benchmarks.claims build first")
    found = []
    for path in paths:
        predicted = path.with_suffix(".predictions.json")
        found.append(UnitTable(data=read_json(path), predictions=read_json(predicted) if predicted.exists() else {}))
    return sorted(found, key=lambda table: (table.data["network"], table.data["seed"]))
