"""The engine of every study: synchronous batches of trials, kept as records, resumed without repeating or changing one.

Batch k proposes trials kB ... kB+B-1 from the results of batches 0 ... k-1 alone (``studies/samplers.py``), evaluates
them, stores them, and only then goes on.  Hence a study that was killed, or that several processes work on, is the same
list of trials: whoever finds a trial in the storage takes its result, whoever does not evaluates it.  With an expensive
risk each worker starts at its own share of a batch (trial number mod workers), then takes what is still missing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from studies.knobs import FloatArray, Knob
from studies.samplers import ceiling_of, frozen_trial, propose
from studies.storage import OpenedStudy, Record

# (finished trials, planned trials, best goal so far)
Progress = Callable[[int, int, float], None]
Stop = Callable[[], bool]
# Points [B, D], keys and kind -> records; fewer than keys if it was told to stop.
EvaluateBatch = Callable[[FloatArray, Sequence[str], str], list[Record]]
AGREEMENT = 1e-6  # relative difference above which a stored goal and the risk's present answer disagree


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One of several processes on one study: its rank, 0 ... count-1, and how many there are."""

    rank: int = 0
    count: int = 1

    def __post_init__(self) -> None:
        """Check the rank."""
        if not 0 <= self.rank < self.count:
            raise ValueError(f"rank={self.rank} must lie in 0 ... {self.count - 1} (count={self.count}); number from 0")


@dataclass(slots=True, kw_only=True)
class TrialLog:
    """Records of one study, in memory and, if there is a storage, on disk.

    Attributes:
        knobs: the free knobs of the study.
        objectives: 1 or 2.
        opened: the stored study, or ``None``.
        records: all records by key.
        notes: what was repaired or redone.
    """

    knobs: Sequence[Knob]
    objectives: int = 1
    opened: OpenedStudy | None = None
    records: dict[str, Record] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Take up what is stored."""
        if self.opened is not None:
            self.notes += self.opened.notes
            self.refresh()

    def refresh(self) -> None:
        """Read what other workers have stored since."""
        if self.opened is not None:
            found, notes = self.opened.records()
            self.records |= found
            self.notes += [note for note in notes if note not in self.notes]

    def add(self, record: Record) -> Record:
        """Keep a record, and store it; the one already there wins."""
        if record.key not in self.records:
            self.records[record.key] = record
            if self.opened is not None:
                ceiling = ceiling_of(list(self.records.values()))
                trial = frozen_trial(self.knobs, record, objectives=self.objectives, ceiling=ceiling, meta=True)
                self.opened.add(trial)
        return self.records[record.key]


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """How many trials, in which batches, from which sampler, until when.

    Attributes:
        sampler: name of the sampler.
        seed: seed of the study.
        trials: trials to propose; rounded up to whole batches.
        batch: trials in a batch; results depend on it, not on the number of workers.
        max_seconds: start no further batch after this time.
    """

    sampler: str
    seed: int
    trials: int
    batch: int
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not (isinstance(self.seed, int) and self.seed >= 0):
            raise ValueError(f"seed={self.seed!r} must be a whole number of at least 0; give an integer")
        if not self.trials >= 0:
            raise ValueError(f"trials={self.trials} must be at least 0; 0 leaves the search to the sweep")
        if not self.batch >= 2:
            raise ValueError(f"batch={self.batch} must be at least 2; 16 suits most studies")
        if self.max_seconds is not None and not self.max_seconds > 0:
            raise ValueError(f"max_seconds={self.max_seconds} must be positive; leave it out for no limit")

    @property
    def batches(self) -> int:
        """Number of batches."""
        return -(-self.trials // self.batch)


def run_batches(
    log: TrialLog,
    schedule: Schedule,
    evaluate: EvaluateBatch,
    *,
    given: Sequence[Record] = (),
    progress: Progress | None = None,
    stop: Stop | None = None,
) -> tuple[list[Record], str | None]:
    """Run, or take up, the sampler's trials.

    Args:
        log: records of the study.
        schedule: how many, from where, until when.
        evaluate: the risk of a whole batch, always called on the whole batch so that its last bits never change.
        given: finished trials that the sampler may learn from, e.g. the best of a sweep.
        progress: called after each batch.
        stop: asked before each batch; true ends the search.

    Returns:
        the sampler's trials in order, and why it ended early: ``None``, ``"time"`` or ``"asked"``.
    """
    done: list[Record] = []
    began = time.monotonic()
    recorded = _recorded_stop(log, schedule)
    for number in range(schedule.batches):
        if stop is not None and stop():
            return done, "asked"
        late = schedule.max_seconds is not None and time.monotonic() - began > schedule.max_seconds
        if number == recorded or (recorded is None and late):
            _record_stop(log, schedule, number)
            return done, "time"
        start = number * schedule.batch
        keys = [f"trial-{start + k:06d}" for k in range(schedule.batch)]
        if any(key not in log.records for key in keys):
            log.refresh()
        if any(key not in log.records for key in keys):
            units = propose(
                schedule.sampler,
                log.knobs,
                [*given, *done],
                seed=schedule.seed,
                start=start,
                batch=schedule.batch,
                objectives=log.objectives,
            )
            for record in evaluate(units, keys, "sampler"):
                log.add(record)
        if any(key not in log.records for key in keys):  # a dear evaluation was stopped inside the batch
            return done, "asked"
        done += [log.records[key] for key in keys]
        if progress is not None:
            best = min((r.goal for r in [*given, *done] if r.violation <= 0), default=np.inf)
            progress(len(done), schedule.batches * schedule.batch, float(best))
    return done, None


def _recorded_stop(log: TrialLog, schedule: Schedule) -> int | None:
    """The batch at which an earlier run with the same limit ended by the clock: replayed, not timed again."""
    if log.opened is None or schedule.max_seconds is None:
        return None
    stored = log.opened.study.user_attrs.get("stopped")
    return int(stored["batch"]) if stored and stored["max_seconds"] == schedule.max_seconds else None


def _record_stop(log: TrialLog, schedule: Schedule, number: int) -> None:
    if log.opened is not None:
        log.opened.study.set_user_attr("stopped", {"batch": number, "max_seconds": schedule.max_seconds})


def check_unchanged(stored: Sequence[Record], goals: FloatArray) -> None:
    """Refuse to continue a study whose risk now answers differently for a stored point."""
    for record, goal in zip(stored, goals.tolist(), strict=True):
        if record.goal != goal and not abs(record.goal - goal) <= AGREEMENT * max(abs(record.goal), abs(goal)):
            raise ValueError(
                f"goal={record.goal} of stored {record.key} is {goal} under the present risk, which has changed since; "
                "use another study name for a new fit"
            )
