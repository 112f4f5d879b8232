r"""Plans from a CSV file, for ``merge-advisor predict``.

One row is one plan.  Columns are a plan's fields, ``learning_rate``, ``batch_size``, ``steps``, ``optimizer``,
``momentum``, ``schedule``, ``num_samples`` and ``coefficient``, each also as ``<field>_<task>``, which wins over the
plain column; ``method`` is one for the plan; ``label`` is free text.  An empty cell takes the plain column's value or
the default: SGD, constant, all samples, coefficient 1/N, task arithmetic.  Errors name line, column, value and rule.
"""

from __future__ import annotations

import csv
import difflib
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from advisor.merging.registry import OPERATORS
from advisor.plan import OPTIMIZERS, SCHEDULES, Plan
from estimators.recipe import Recipe

MAX_BYTES = 16 << 20
MAX_PLANS = 100_000
MAX_STEPS = 1_000_000  # a schedule is summed step by step
REQUIRED = ("learning_rate", "batch_size", "steps")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One row.

    Attributes:
        line: line of the file, from 1.
        label: the row's label, else ``line <n>``.
        plan: the plan.
    """

    line: int
    label: str
    plan: Plan


def _number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError
    return value


def _whole(text: str) -> int:
    value = _number(text)
    if value != int(value):
        raise ValueError
    return int(value)


def _steps(text: str) -> int:
    value = _whole(text)
    if value > MAX_STEPS:
        raise ValueError
    return value


FIELDS: Mapping[str, tuple[Callable[[str], Any], str]] = {
    "learning_rate": (_number, "a number above 0, such as 0.01"),
    "batch_size": (_whole, "a whole number of at least 1"),
    "steps": (_steps, f"a whole number from 1 to {MAX_STEPS:,}"),
    "optimizer": (str, f"one of {', '.join(OPTIMIZERS)}"),
    "momentum": (_number, "a number in (0, 1), with optimizer momentum"),
    "schedule": (str, f"one of {', '.join(SCHEDULES)}"),
    "num_samples": (_whole, "a whole number of at least 1"),
    "coefficient": (_number, "a number of at least 0"),
}


def read_plans(path: Path | str, num_samples: Mapping[str, int]) -> tuple[PlanRow, ...]:
    """Read a CSV file of plans.

    Args:
        path: the file, UTF-8 with commas.
        num_samples: task -> training samples, in the project's order of tasks.

    Raises:
        ValueError: naming line, column, value, rule and next step.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"plans={str(path)!r} is not a file; name a CSV file with a header line")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"plans={str(path)!r} is larger than {MAX_BYTES >> 20} MiB; split it into several files")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"plans={str(path)!r} is not UTF-8 text (byte {error.start}); save it as UTF-8 CSV") from None
    return parse_plans(text, num_samples, label=path.name)


def parse_plans(text: str, num_samples: Mapping[str, int], *, label: str = "plans") -> tuple[PlanRow, ...]:
    """The same for text that was read already; ``label`` stands for the file in errors."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    rows: list[PlanRow] = []
    header: _Header | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = _Header(cells, tuple(num_samples), place=f"{label} line {reader.line_num}")
                continue
            if len(rows) >= MAX_PLANS:
                raise ValueError(f"{label} holds more than {MAX_PLANS} plans; split it into several files")
            rows.append(_row(cells, header, num_samples, line=reader.line_num, label=label))
    except csv.Error as error:
        raise ValueError(f"{label} line {reader.line_num} is not CSV ({error}); check its quotes") from None
    if header is None or not rows:
        raise ValueError(f"{label} holds no plan; write a header line ({','.join(REQUIRED)}) and one line a plan")
    return tuple(rows)


class _Header:
    """Columns and what each stands for: (field, task or ``None``)."""

    def __init__(self, cells: Sequence[str], tasks: Sequence[str], *, place: str) -> None:
        self.names = [cell.strip() for cell in cells]
        self.tasks = tuple(tasks)
        known = {name: (name, None) for name in (*FIELDS, "method", "label")}
        self.known: dict[str, tuple[str, str | None]] = known | {
            f"{field}_{task}": (field, task) for field in FIELDS for task in tasks
        }
        for number, name in enumerate(self.names, start=1):
            self._check(name, number, place)
        for field in REQUIRED:
            absent = [task for task in tasks if f"{field}_{task}" not in self.names]
            if field not in self.names and absent:
                raise ValueError(f"{place}: column {field!r} is missing for {', '.join(absent)}; add {field}")

    def _check(self, name: str, number: int, place: str) -> None:
        if self.names.index(name) != number - 1:
            raise ValueError(f"{place}: column {name!r} stands there twice; remove one")
        if name in self.known:
            return
        if ";" in name or "\t" in name:
            raise ValueError(f"{place}: columns must be separated by commas, not {name[:40]!r}; save it as CSV")
        if name.startswith("method_"):
            raise ValueError(f"{place}: column {name!r}: a plan has one merge method; name the column method")
        near = difflib.get_close_matches(name, self.known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"the columns are {', '.join((*FIELDS, 'method', 'label'))}"
        raise ValueError(
            f"{place}: column {number} {name[:60]!r} is not known; {hint} (tasks: {', '.join(self.tasks)})"
        )


def _row(cells: Sequence[str], header: _Header, num_samples: Mapping[str, int], *, line: int, label: str) -> PlanRow:
    place = f"{label} line {line}"
    if len(cells) != len(header.names):
        raise ValueError(f"{place} has {len(cells)} cells for {len(header.names)} columns; write one cell a column")
    given: dict[tuple[str, str | None], Any] = {}
    for name, cell in zip(header.names, cells, strict=True):
        if cell.strip():
            given[header.known[name]] = _value(header.known[name][0], cell.strip(), f"{place}, column {name!r}")
    recipes = {task: _recipe(given, task, num_samples[task], place) for task in header.tasks}
    even = 1.0 / len(header.tasks)
    coefficients = {
        task: given.get(("coefficient", task), given.get(("coefficient", None), even)) for task in header.tasks
    }
    try:
        plan = Plan(recipes=recipes, coefficients=coefficients, method=given.get(("method", None), "task_arithmetic"))
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from None
    return PlanRow(line=line, label=given.get(("label", None), f"line {line}"), plan=plan)


def _value(field: str, cell: str, place: str) -> Any:
    if field == "label":
        return cell
    if field == "method":
        if cell not in OPERATORS:
            raise ValueError(f"{place}: value {cell[:60]!r} must be one of {', '.join(OPERATORS)}; choose one")
        return cell
    convert, rule = FIELDS[field]
    try:
        return convert(cell)
    except (ValueError, OverflowError):
        raise ValueError(f"{place}: value {cell[:60]!r} must be {rule}; correct the cell") from None


def _recipe(given: Mapping[tuple[str, str | None], Any], task: str, samples: int, place: str) -> Recipe:
    fields = {
        field: given.get((field, task), given.get((field, None)))
        for field in FIELDS
        if field != "coefficient" and ((field, task) in given or (field, None) in given)
    }
    for field in REQUIRED:
        if field not in fields:
            raise ValueError(f"{place}: {field} of task {task!r} is empty; fill column {field} or {field}_{task}")
    if fields.get("optimizer", "sgd") != "momentum" and ("momentum", task) not in given:
        fields.pop("momentum", None)  # a plain momentum column speaks of the rows and tasks that use it
    for field, value in (("batch_size", fields["batch_size"]), ("num_samples", fields.get("num_samples", 0))):
        if value > samples:
            raise ValueError(f"{place}: {field}={value} exceeds the {samples} training samples of {task!r}; lower it")
    try:
        return Recipe(**fields)
    except ValueError as error:
        raise ValueError(f"{place}, task {task!r}: {error}") from None
