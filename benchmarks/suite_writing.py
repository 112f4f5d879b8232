"""Write a suite's tables: one JSON file and gzip-compressed CSV files, each far below 5 MB.

- ``suite.json``: version, tasks, seeds with x_0 and constants, sizes, grid, project, environment, command
- ``recipes.csv.gz``: recipe -> its fields; ``runs.csv.gz``: outcome of each run
- ``traces.csv.gz``: loss and displacement at log-spaced steps; ``experts.csv.gz``: each expert on its own task
- ``groups.csv.gz``: which experts were merged, and their Gram matrix
- ``merges.csv.gz``: coefficients and figures of each merge; ``joint.csv.gz``: joint training on all tasks
"""

from __future__ import annotations

import csv
import dataclasses
import gzip
import io
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks.suite_grid import Grid
from benchmarks.suite_measuring import Part, Row, recipe_key
from estimators.files import write_bytes_atomic, write_json

SUITE_VERSION = 1
DIGITS = 6  # significant digits of stored numbers


def write_suite(
    out: Path, grid: Grid, records: Mapping[int, Row], parts: Mapping[int, Part], metadata: Mapping[str, Any]
) -> None:
    """Write all tables of a suite into ``out``."""
    whole = Part()
    for part in parts.values():
        whole.extend(part)
    settings = {row["recipe"]: row["settings"] for row in (*whole.runs, *whole.joint)}
    order = {recipe_key(recipe): number for number, recipe in enumerate(grid.recipes)}
    for key in settings:
        order.setdefault(key, len(order))
    numbered = sorted((order[key], value) for key, value in settings.items())
    write_table(out / "recipes.csv.gz", ({"recipe": number, **value} for number, value in numbered))
    without = ("settings",)
    write_table(out / "runs.csv.gz", (_numbered(_less(row, without), order) for row in whole.runs))
    write_table(out / "traces.csv.gz", (_numbered(row, order) for row in whole.traces))
    write_table(out / "experts.csv.gz", (_numbered(row, order) for row in whole.experts))
    groups = {row["group"]: number for number, row in enumerate({row["group"]: row for row in whole.groups}.values())}
    unique = {row["group"]: row for row in whole.groups}.values()
    write_table(out / "groups.csv.gz", (_numbered(row | {"group": groups[row["group"]]}, order) for row in unique))
    write_table(out / "merges.csv.gz", (row | {"group": groups[row["group"]]} for row in whole.merges))
    write_table(out / "joint.csv.gz", (_numbered(_less(row, without), order) for row in whole.joint))
    first = next(iter(records.values()))
    write_json(
        out / "suite.json",
        {
            "version": SUITE_VERSION,
            "name": out.name,
            "tasks": first["tasks"],
            "seeds": {str(seed): _finite(record) for seed, record in records.items()},
            "max_steps": grid.max_steps,
            "rows": {"merges": len(whole.merges), "runs": len(whole.runs)},
            "grid": json.loads(json.dumps(dataclasses.asdict(grid), default=_name)),
            **metadata,
        },
    )


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Write rows of equal keys as compressed CSV; a missing table is an empty file with no header."""
    text = io.StringIO()
    writer = None
    for row in rows:
        if writer is None:
            writer = csv.DictWriter(text, fieldnames=list(row), lineterminator="\n")
            writer.writeheader()
        writer.writerow({name: _cell(value) for name, value in row.items()})
    write_bytes_atomic(path, gzip.compress(text.getvalue().encode(), compresslevel=9, mtime=0))


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.{DIGITS}g}"
    return "" if value is None else value


def _numbered(row: Row, order: Mapping[str, int]) -> Row:
    return {
        name: order[value] if name == "recipe" or name.startswith("recipe_") else value for name, value in row.items()
    }


def _less(row: Row, names: Iterable[str]) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _finite(value: Any) -> Any:
    """JSON has no infinity: a figure that is infinite becomes null."""
    if isinstance(value, Mapping):
        return {key: _finite(cell) for key, cell in value.items()}
    if isinstance(value, list):
        return [_finite(cell) for cell in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _name(value: Any) -> str:
    return value.name if isinstance(value, Path) else str(value)
