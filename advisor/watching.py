"""What a run is doing right now, for whoever looks on: stage, time left, the probes so far.  Reads only ends of logs.

A run may be huge, so only the last ``TAIL_BYTES`` of a log are read; what is left out is counted and said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from advisor.live_probe import LiveProbe, read_live
from advisor.observations import DisplacementTrace, MergeObservation
from advisor.run_listing import STAGES, RunSummary, summarise
from advisor.run_lock import read_heartbeat
from advisor.run_log import LogPart, read_log
from advisor.runs import EVENTS_NAME
from estimators.recipe import Recipe

PROBES_NAME = "probes.jsonl"
PROBE_STAGE = "probes"
TAIL_BYTES = 2 << 20
EVENT_BYTES = 1 << 16
SHOWN_PROBES = 12  # the last ones; more lines in one figure cannot be told apart


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedProbe:
    """One finished probe.

    Attributes:
        recipe: its recipe.
        outcomes: task -> finished or diverged.
        traces: loss and displacement of each task.
        merges: its measured merges.
        cost: per-sample gradients.
    """

    recipe: Recipe
    outcomes: Mapping[str, str]
    traces: tuple[DisplacementTrace, ...]
    merges: tuple[MergeObservation, ...]
    cost: float

    @property
    def diverged(self) -> tuple[str, ...]:
        """Tasks whose run diverged."""
        return tuple(task for task, outcome in self.outcomes.items() if outcome == "diverged")

    @property
    def best(self) -> MergeObservation | None:
        """The merge of all tasks with the lowest mean risk."""
        alive = [merge for merge in self.merges if not merge.diverged]
        return min(alive, key=lambda merge: sum(merge.risks.values()) / len(merge.risks), default=None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A run at this moment.

    Attributes:
        summary: state, stages done, writer.
        stage: what is being done; empty where nothing is.
        done: of ``total``, in the stage's own unit.
        total: 0 where unknown.
        seconds_left: of the stage at its pace so far.
        detail: what the stage says besides.
        probes: the last finished probes, oldest first.
        hidden_probes: earlier ones that were not read.
        damaged_lines: lines of the probe log that cannot be trusted; they are done again when the run goes on.
        live: the probe that runs now, as far as it has come.
    """

    summary: RunSummary
    stage: str
    done: float
    total: float
    seconds_left: float | None
    detail: Mapping[str, Any]
    probes: tuple[WatchedProbe, ...]
    hidden_probes: int
    damaged_lines: int
    live: LiveProbe | None = None

    @property
    def share(self) -> float:
        """Share of the stage that is done, in [0, 1]."""
        return min(1.0, max(0.0, self.done / self.total)) if self.total > 0 else 0.0

    @property
    def is_running(self) -> bool:
        """Whether a living process writes to the run."""
        return self.summary.state == "running"

    @property
    def next_stage(self) -> str | None:
        """The first step whose result is not there yet."""
        return next((stage for stage in STAGES if stage not in self.summary.stages), None)


def watch(path: Path, *, with_probes: bool = True) -> Watched:
    """Look at a run directory; never raises for a run that is damaged or half there."""
    summary = summarise(path)
    beat = read_heartbeat(path) if summary.state == "running" else {}
    events = read_tail(path / EVENTS_NAME, EVENT_BYTES).records if summary.state == "running" else ()
    stage = str(beat.get("stage", ""))
    probes, hidden, damaged = _probes(path / PROBES_NAME) if with_probes else ((), 0, 0)
    progress = [e for e in events if e.get("kind") == "progress" and e.get("stage") == stage]
    last = progress[-1] if progress else {}
    return Watched(
        summary=summary,
        stage=stage,
        done=_number(beat.get("done")),
        total=_number(beat.get("total")),
        seconds_left=_seconds_left(progress),
        detail={k: v for k, v in last.items() if k not in ("time", "kind", "stage", "done", "total")},
        probes=probes,
        hidden_probes=hidden,
        damaged_lines=damaged,
        live=read_live(path) if with_probes and stage == PROBE_STAGE else None,
    )


def read_tail(path: Path, most: int) -> LogPart:
    """The last whole records of a log within ``most`` bytes; a record cut by the window is not counted as damaged."""
    try:
        size = path.stat().st_size
    except OSError:
        size = 0
    start = max(0, size - most)
    part = read_log(path, start=start)
    if start and part.damaged and part.damaged[0].number == 1:
        return LogPart(records=part.records, damaged=part.damaged[1:], end=part.end)
    return part


def _probes(path: Path) -> tuple[tuple[WatchedProbe, ...], int, int]:
    part = read_tail(path, TAIL_BYTES)
    records = [record for record in part.records if "recipe" in record]
    shown = records[-SHOWN_PROBES:]
    found, broken = [], len(part.damaged)
    for record in shown:
        try:
            found.append(_probe(record))
        except (KeyError, TypeError, ValueError):
            broken += 1
    return tuple(found), max(0, _count_lines(path) - len(part.damaged) - len(shown)), broken


def _probe(record: Mapping[str, Any]) -> WatchedProbe:
    return WatchedProbe(
        recipe=Recipe.from_json(record["recipe"]),
        outcomes=dict(record["outcomes"]),
        traces=tuple(DisplacementTrace.from_json(item) for item in record["traces"]),
        merges=tuple(MergeObservation.from_json(item) for item in record["merges"]),
        cost=float(record["cost"]),
    )


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as file:
            return sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
    except OSError:
        return 0


def _seconds_left(progress: Sequence[Mapping[str, Any]]) -> float | None:
    if len(progress) < 2:
        return None
    first, last = progress[0], progress[-1]
    done, total = _number(last.get("done")), _number(last.get("total"))
    gained = done - _number(first.get("done"))
    if not (gained > 0 and total > done):
        return None
    spent = _time(last) - _time(first)
    return None if not spent > 0 else spent * (total - done) / gained


def _time(event: Mapping[str, Any]) -> float:
    try:
        return datetime.fromisoformat(str(event.get("time"))).timestamp()
    except ValueError:
        return math.nan


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0
