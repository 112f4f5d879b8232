r"""Progress of long work: bars with the time left on a terminal, plain lines elsewhere, events in the run.

A stage calls ``progress(stage, done, total, **info)`` as often as it likes; ``total`` 0 means not known yet.  Whoever
listens decides how much of it to show.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.console import Console

    from advisor.runs import RunDirectory

PLAIN_SECONDS = 10.0  # least time between two plain lines of one stage
EVENT_SECONDS = 1.0  # least time between two events of one stage


class Progress(Protocol):
    """What long work tells."""

    def __call__(self, stage: str, done: float, total: float, **info: object) -> None:
        """``done`` of ``total`` of a stage are done; ``info`` holds what else is worth knowing, e.g. a loss."""
        ...


def silent(stage: str, done: float, total: float, **info: object) -> None:
    """Show nothing."""


def both(*listeners: Progress) -> Progress:
    """Tell several listeners."""

    def tell(stage: str, done: float, total: float, **info: object) -> None:
        for listener in listeners:
            listener(stage, done, total, **info)

    return tell


class Pace:
    """When to speak: at the start and end of a stage, and at most once in ``seconds`` in between."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds = seconds
        self.clock = clock
        self.stage = ""
        self.started = self.spoke = self.begun_at = 0.0
        self.finished = False

    def is_due(self, stage: str, done: float, total: float) -> bool:
        """Whether to speak now; remembers that it was."""
        now = self.clock()
        if stage != self.stage:
            self.stage, self.started, self.spoke, self.begun_at = stage, now, now, done
            self.finished = total > 0 and done >= total
            return True
        ends = total > 0 and done >= total and not self.finished
        self.finished = total > 0 and done >= total
        if ends or (not self.finished and now - self.spoke >= self.seconds):
            self.spoke = now
            return True
        return False

    def seconds_left(self, done: float, total: float) -> float | None:
        """Time left at the stage's pace since it was first heard of; ``None`` while nothing is known."""
        spent = self.clock() - self.started
        if not (self.begun_at < done <= total and spent > 0):
            return None
        return spent * (total - done) / (done - self.begun_at)


def plain_progress(stream: IO[str], *, clock: Callable[[], float] = time.monotonic) -> Progress:
    """One line at the start and end of each stage and every ten seconds in between."""
    pace = Pace(PLAIN_SECONDS, clock)

    def tell(stage: str, done: float, total: float, **info: object) -> None:
        if pace.is_due(stage, done, total):
            stream.write(describe(stage, done, total, pace.seconds_left(done, total), info) + "\n")
            stream.flush()

    return tell


def event_progress(run: RunDirectory, *, clock: Callable[[], float] = time.monotonic) -> Progress:
    """``progress`` events in the run's ``events.jsonl`` and the stage in its heartbeat."""
    pace = Pace(EVENT_SECONDS, clock)

    def tell(stage: str, done: float, total: float, **info: object) -> None:
        run.tell(stage=stage, done=done, total=total)
        if pace.is_due(stage, done, total):
            run.event("progress", stage=stage, done=done, total=total, **_plain(info))

    return tell


@contextmanager
def shown_progress(console: Console, *, quiet: bool = False) -> Iterator[Progress]:
    """What fits the console: bars on a terminal, plain lines elsewhere, nothing when ``quiet``."""
    if quiet:
        yield silent
    elif console.is_terminal:
        with bar_progress(console) as progress:
            yield progress
    else:
        yield plain_progress(console.file)


@contextmanager
def bar_progress(console: Console) -> Iterator[Progress]:
    """A bar for each stage with the time left."""
    from rich import progress as bars

    display = bars.Progress(
        bars.SpinnerColumn(finished_text="✓"),
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=24),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
        bars.TextColumn("left"),
        bars.TimeRemainingColumn(),
        bars.TextColumn("{task.fields[info]}", markup=False),
        console=console,
    )
    known: dict[str, bars.TaskID] = {}

    def tell(stage: str, done: float, total: float, **info: object) -> None:
        if stage not in known:
            known[stage] = display.add_task(stage, total=total or None, info="")
        display.update(known[stage], completed=done, total=total or None, info=describe_info(info))

    with display:
        yield tell


def describe(stage: str, done: float, total: float, seconds_left: float | None, info: dict[str, object]) -> str:
    """One plain line.

    >>> describe("probe", 3, 12, 75.0, {"loss": 0.5123})
    'probe: 3 of 12 (25 %), about 1 min 15 s left, loss 0.512'
    """
    parts = [f"{stage}: {_count(done)} of {_count(total)} ({100 * done / total:.0f} %)" if total else stage]
    if seconds_left is not None and done < total:
        parts.append(f"about {describe_seconds(seconds_left)} left")
    if info:
        parts.append(describe_info(info))
    return ", ".join(parts)


def _count(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def describe_info(info: dict[str, object]) -> str:
    """What a stage tells besides, as words."""
    words = ((name.replace("_", " "), value) for name, value in info.items())
    return ", ".join(f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}" for name, value in words)


def describe_seconds(seconds: float) -> str:
    """A duration as people say it.

    >>> describe_seconds(3.2), describe_seconds(75), describe_seconds(7260)
    ('3 s', '1 min 15 s', '2 h 1 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _plain(info: dict[str, object]) -> dict[str, object]:
    """Values that JSON can hold; what is not a number, truth or text becomes text (NaN and infinity too)."""
    return {name: value if _is_plain(value) else str(value) for name, value in info.items()}


def _is_plain(value: object) -> bool:
    if isinstance(value, float):
        return value - value == 0  # finite
    return value is None or isinstance(value, str | int)
