r"""Stopping cleanly: signals, the stop flag and deadlines, asked between two training steps.

``Interrupts.control`` is the control callback of the training loop (``estimators.fine_tuning.Control``): it answers
``stopped`` after SIGINT, SIGTERM or a request through the run's ``stop`` file and ``deadline`` once the time limit has
passed.  Between stages :meth:`Interrupts.check` turns the same into ``RunInterrupted``.  Work without training steps
runs inside :meth:`Interrupts.at_once`, where a signal interrupts without waiting.  A second SIGINT ends the process at
once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Literal, Self

Reason = Literal["signal", "stop", "deadline"]

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class RunInterrupted(Exception):  # noqa: N818 - no RuntimeError, which fallbacks catch
    """The work was asked to stop and did so, with everything kept.

    Attributes:
        reason: ``signal``, ``stop`` (the flag file) or ``deadline``.
    """

    def __init__(self, text: str, reason: Reason = "stop") -> None:
        super().__init__(text)
        self.reason: Reason = reason


class Interrupts:
    """A context that catches signals and answers whether to go on.

    Args:
        stop_requested: the reason of a request to stop, or ``None``; e.g. ``RunDirectory.stop_requested``.
        time_limit: seconds from now until the deadline; ``None`` for none.
        clock: a clock that never jumps, seconds.
    """

    def __init__(
        self,
        stop_requested: Callable[[], str | None] = lambda: None,
        *,
        time_limit: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if time_limit is not None and not time_limit > 0:
            raise ValueError(f"time_limit={time_limit} must be more than 0 seconds; leave it out for none")
        self._stop_requested = stop_requested
        self._clock = clock
        self._deadline = None if time_limit is None else clock() + time_limit
        self._signal: signal.Signals | None = None
        self._before: dict[signal.Signals, Any] = {}
        self._at_once = False

    def __enter__(self) -> Self:
        """Catch signals, where this thread may (Python lets only the main thread do so)."""
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back to who had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def control(self, done: int, total: int) -> Literal["go", "deadline", "stopped"]:
        """The training loop's question after ``done`` of ``total`` steps."""
        reason = self.reason
        if reason is None or (reason == "deadline" and done >= total):
            return "go"
        return "deadline" if reason == "deadline" else "stopped"

    @property
    def reason(self) -> Reason | None:
        """Why to stop, or ``None`` to go on; a person's wish comes before the deadline."""
        if self._signal is not None:
            return "signal"
        if self._stop_requested() is not None:
            return "stop"
        if self._deadline is not None and self._clock() >= self._deadline:
            return "deadline"
        return None

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the deadline, at least 0; ``None`` without one."""
        return None if self._deadline is None else max(0.0, self._deadline - self._clock())

    def check(self, *, deadline: bool = True) -> None:
        """Raise if the work should stop now; ``deadline=False`` lets a deadline pass (cheap last stages).

        Raises:
            RunInterrupted: after a signal, a request to stop, or the deadline.
        """
        reason = self.reason
        if reason is not None and (deadline or reason != "deadline"):
            raise self.interruption(reason)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside the block a signal interrupts at once: for work without training steps, nothing of which is kept."""
        before, self._at_once = self._at_once, True
        try:
            yield
        finally:
            self._at_once = before

    def interruption(self, reason: Reason) -> RunInterrupted:
        """The error for a reason, in words."""
        if reason == "signal":
            name = self._signal.name if self._signal is not None else "a signal"
            return RunInterrupted(f"stopped by {name}; everything done so far is kept", reason)
        if reason == "deadline":
            return RunInterrupted("the time limit has passed; everything done so far is kept", reason)
        return RunInterrupted(f"stopped on request ({self._stop_requested()}); everything done so far is kept", reason)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt  # asked twice: at once, at the price of the running step
        self._signal = signal.Signals(number)
        if self._at_once:
            raise self.interruption("signal")
