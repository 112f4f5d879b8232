r"""Traces of runs trained elsewhere, on disk: one folder a run (``docs/traces.md``).

    trace.json                     what was trained, from what, how: the header, ``merge-advisor/trace/1``
    steps.jsonl                    one line a recorded step: step, loss, squared_displacement
    checkpoint-<step>.safetensors  the weights that moved, under the backbone's names

Units: losses in nats, squared displacements ||x_k - x_0||^2 in |x|^2 over the backbone's weights (no head).  A number
that is not finite is ``null``.  ``steps.jsonl`` may be absent: a checkpoint and its recipe are the least.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from estimators.files import read_json, write_json
from estimators.trained_recipe import TrainedRecipe

SCHEMA = "merge-advisor/trace/1"
HEADER_NAME = "trace.json"
STEPS_NAME = "steps.jsonl"
NUMBERS = ("loss", "squared_displacement")

Status = Literal["recording", "finished"]


class BadTrace(ValueError):  # noqa: N818 - an outcome, named after what was found
    """A trace that is damaged, incomplete or of another version."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TraceHeader:
    """What ``trace.json`` says.

    Attributes:
        task: name of the task.
        recipe: how the run was trained.
        status: ``recording`` until the recorder was closed.
        seed: seed of the run, where it is known.
        probe: label that runs of different tasks share when they belong together; by default equal recipes do.
        base: SHA-256 of the recorded weights at x_0 (``estimators.checkpoints.fingerprint``), where it is known.
        parameters: name -> dtype of the recorded weights; empty where it is not known.
        checkpoints: step -> file, relative to the folder.
        prefix: beginning of the checkpoints' names that the backbone's names lack.
        rows: lines of ``steps.jsonl``, once finished.
        recorder: what recorded it.
        notes: caveats of the recorder.
    """

    task: str
    recipe: TrainedRecipe
    status: Status = "finished"
    seed: int | None = None
    probe: str | None = None
    base: str | None = None
    parameters: Mapping[str, str] = field(default_factory=dict)
    checkpoints: Mapping[int, str] = field(default_factory=dict)
    prefix: str = ""
    rows: int | None = None
    recorder: str = ""
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "schema": SCHEMA,
            "task": self.task,
            "status": self.status,
            "recipe": self.recipe.to_json(),
            "seed": self.seed,
            "probe": self.probe,
            "base": self.base,
            "parameters": dict(self.parameters),
            "checkpoints": {str(step): name for step, name in self.checkpoints.items()},
            "prefix": self.prefix,
            "rows": self.rows,
            "recorder": self.recorder,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> TraceHeader:
        """The inverse of :meth:`to_json`; only schema, task and recipe are required."""
        if data.get("schema") != SCHEMA:
            raise BadTrace(f"schema={data.get('schema')!r} must be {SCHEMA!r}; write it so or record again")
        known = {"schema", *cls.__slots__}
        unknown = sorted(set(data) - known)
        if unknown:
            raise BadTrace(f"fields {unknown} are not known; the fields are {sorted(known)}")
        missing = [name for name in ("task", "recipe") if not data.get(name)]
        if missing:
            raise BadTrace(f"{' and '.join(missing)} missing; add what was trained and how")
        if not isinstance(data["recipe"], Mapping):
            raise BadTrace("recipe must be a mapping of fields; see docs/traces.md")
        if data.get("status", "finished") not in ("recording", "finished"):
            raise BadTrace(f"status={data['status']!r} must be recording or finished; write finished")
        try:
            steps = {int(step): str(name) for step, name in dict(data.get("checkpoints") or {}).items()}
        except (TypeError, ValueError):
            raise BadTrace(f"checkpoints={data.get('checkpoints')!r} must map steps to file names") from None
        return cls(
            task=str(data["task"]),
            recipe=TrainedRecipe.from_json(data["recipe"]),
            status=data.get("status", "finished"),
            seed=data.get("seed"),
            probe=data.get("probe"),
            base=data.get("base"),
            parameters=dict(data.get("parameters") or {}),
            checkpoints=dict(sorted(steps.items())),
            prefix=str(data.get("prefix") or ""),
            rows=data.get("rows"),
            recorder=str(data.get("recorder") or ""),
            notes=tuple(str(note) for note in data.get("notes") or ()),
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Trace:
    """A trace as read from its folder.

    Attributes:
        folder: where it lies.
        header: what was trained.
        steps: recorded steps, increasing, [S]; empty without ``steps.jsonl``.
        losses: training loss there, [S]; NaN where it was not finite.
        squared_displacements: ||x_k - x_0||^2 there, [S]; infinite where it was not finite.
        digest: SHA-256 of everything in the folder that the header names.
    """

    folder: Path
    header: TraceHeader
    steps: NDArray[np.int64]
    losses: NDArray[np.float64]
    squared_displacements: NDArray[np.float64]
    digest: str

    def checkpoint(self, step: int) -> Path:
        """The file of a checkpoint."""
        return self.folder / self.header.checkpoints[step]


def write_header(folder: Path, header: TraceHeader) -> None:
    """Write ``trace.json`` in one piece."""
    write_json(folder / HEADER_NAME, header.to_json())


def find_traces(path: Path) -> tuple[Path, ...]:
    """Folders below ``path`` (or itself) that hold a trace, sorted.

    Raises:
        ValueError: if there is none.
    """
    if not path.is_dir():
        raise ValueError(f"from={str(path)!r} is not a folder; give the folder that holds the traces")
    found = tuple(sorted(header.parent for header in path.rglob(HEADER_NAME)))
    if not found:
        raise ValueError(
            f"from={str(path)!r} holds no {HEADER_NAME}; record runs with a recorder or write one beside each "
            "checkpoint (docs/traces.md)"
        )
    return found


def read_trace(folder: Path) -> Trace:
    """Read and check one trace.

    Raises:
        BadTrace: naming the file, what is wrong with it and what to do.
    """
    try:
        content = read_json(folder / HEADER_NAME)
    except (ValueError, OSError) as error:
        raise BadTrace(f"trace={str(folder)!r}: {HEADER_NAME} cannot be read ({error})") from None
    try:
        if not isinstance(content, dict):
            raise BadTrace(f"{HEADER_NAME} holds a {type(content).__name__}; it must be a mapping")
        header = TraceHeader.from_json(content)
        steps, losses, moved = _read_steps(folder, header)
        _check_checkpoints(folder, header, steps)
    except (ValueError, TypeError) as error:
        raise BadTrace(f"trace={str(folder)!r}: {error}") from None
    return Trace(
        folder=folder,
        header=header,
        steps=steps,
        losses=losses,
        squared_displacements=moved,
        digest=_digest(folder, header),
    )


def _read_steps(
    folder: Path, header: TraceHeader
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    path = folder / STEPS_NAME
    if not path.exists():
        if header.rows:
            raise BadTrace(f"{STEPS_NAME} is missing, {HEADER_NAME} says {header.rows} lines; copy the whole folder")
        return np.empty(0, dtype=np.int64), np.empty(0), np.empty(0)
    text = path.read_bytes()
    if text and not text.endswith(b"\n"):
        raise BadTrace(f"{STEPS_NAME} is cut off in its last line; delete that line, or copy the file again")
    rows = [_row(number, line) for number, line in enumerate(text.splitlines(), start=1)]
    if header.rows is not None and len(rows) != header.rows:
        raise BadTrace(f"{STEPS_NAME} has {len(rows)} lines, {HEADER_NAME} says {header.rows}; copy the file again")
    steps = np.array([row[0] for row in rows], dtype=np.int64)
    if len(steps) and (steps[0] < 1 or np.any(np.diff(steps) <= 0)):
        raise BadTrace(f"{STEPS_NAME}: steps must increase from 1 or more, each recorded once; remove repeated lines")
    if len(steps) and steps[-1] > header.recipe.steps:
        raise BadTrace(f"{STEPS_NAME} goes to step {steps[-1]}, recipe.steps={header.recipe.steps}; correct the recipe")
    losses = np.array([math.nan if row[1] is None else row[1] for row in rows], dtype=np.float64)
    moved = np.array([math.inf if row[2] is None else row[2] for row in rows], dtype=np.float64)
    return steps, losses, moved


def _row(number: int, line: bytes) -> tuple[int, float | None, float | None]:
    try:
        row = json.loads(line, parse_constant=lambda text: None)
        if not isinstance(row["step"], int) or isinstance(row["step"], bool):
            raise BadTrace(f"{STEPS_NAME} line {number}: step={row['step']!r} must be a whole number")
        loss, moved = (None if row[name] is None else float(row[name]) for name in NUMBERS)
    except BadTrace:
        raise
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise BadTrace(
            f"{STEPS_NAME} line {number} is no JSON object with step, {' and '.join(NUMBERS)} "
            f"({type(error).__name__}: {error}); correct the line"
        ) from None
    if moved is not None and moved < 0:
        raise BadTrace(f"{STEPS_NAME} line {number}: squared_displacement={moved} must be at least 0; record it again")
    return row["step"], loss, moved


def _check_checkpoints(folder: Path, header: TraceHeader, steps: NDArray[np.int64]) -> None:
    for step, name in header.checkpoints.items():
        if not 1 <= step <= header.recipe.steps:
            raise BadTrace(f"checkpoints name step {step}, outside of 1..{header.recipe.steps}; correct the step")
        if not (folder / name).resolve().is_relative_to(folder.resolve()):
            raise BadTrace(f"checkpoint {name!r} leads out of the trace's folder; copy it beside {HEADER_NAME}")
        if not (folder / name).is_file():
            raise BadTrace(f"checkpoint {name!r} of step {step} is not there; copy it beside {HEADER_NAME}")
    if not header.checkpoints and not len(steps):
        raise BadTrace(f"neither {STEPS_NAME} nor a checkpoint is there; a trace holds one of them at least")


def _digest(folder: Path, header: TraceHeader) -> str:
    whole = hashlib.sha256()
    for name in (HEADER_NAME, STEPS_NAME, *header.checkpoints.values()):
        if (folder / name).is_file():
            with (folder / name).open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
