r"""Where unfinished work is kept: a folder with one file for each piece that is not yet part of a result.

Whoever works says after every step what could be kept (``keep``), which costs nothing; it is written once ``seconds``
have passed since the last writing, so a kill repeats at most that plus one step.  Where writing is slow the pause
grows, up to ``longest``, so that writing takes a small share of the time:

    pause = min(max(seconds, took / SHARE), max(seconds, longest))          seconds of a clock that never jumps

Finished pieces wait in memory and are written with the next one, so work in many short pieces writes no oftener than
work in one long one.  A file that is damaged is named through ``told``, removed, and its piece done again.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from estimators.files import write_bytes_atomic
from estimators.snapshots import DamagedSnapshot, Snapshot, decode_snapshot, encode_snapshot

SECONDS = 15.0  # a kill repeats less than half a minute: this, one step, and the time of writing
LONGEST = 25.0
SHARE = 0.02  # of the time, at most, while the pause is below its longest
SUFFIX = ".safetensors"

Take = Callable[[], Snapshot]


class Snapshots(Protocol):
    """What a training loop needs of the place where its snapshots are kept."""

    def load(self, name: str) -> Snapshot | None:
        """The last snapshot of that name that was kept and is whole."""
        ...

    def keep(self, name: str, take: Take) -> None:
        """Offer the present state under a name, in place of what was offered before; ``take`` makes it if needed."""
        ...

    def forget(self, name: str) -> None:
        """Take back what was offered and not written."""
        ...


class Pieces(Snapshots, Protocol):
    """What work in several pieces needs of the place where they are kept."""

    def keep(self, name: str, take: Take, *, instead_of: Collection[str] = ()) -> None:
        """As above; once it is written, the pieces it was made of are removed."""
        ...

    def value(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Plain values that are computed once."""
        ...

    def parts(self) -> contextlib.AbstractContextManager[list[str]]:
        """Collects the names of the pieces used inside the block."""
        ...


class NotKept:
    """Keeps nothing: every piece is made anew."""

    def load(self, name: str) -> Snapshot | None:
        """Nothing is there."""
        return None

    def keep(self, name: str, take: Take, *, instead_of: Collection[str] = ()) -> None:
        """Do nothing."""

    def forget(self, name: str) -> None:
        """Do nothing."""

    def value(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Compute."""
        return dict(compute())

    def parts(self) -> contextlib.AbstractContextManager[list[str]]:
        """No names."""
        return contextlib.nullcontext([])


class SnapshotFolder:
    """Snapshots in one folder.

    Args:
        folder: made when the first one is written.
        seconds: pause between two writings; by default ``SECONDS``.
        longest: longest pause where writing is slow; by default ``LONGEST``.
        clock: a clock that never jumps, seconds.
        told: told about damaged snapshots.
        found: told about snapshots of earlier processes that are gone on from.
        ask: asked before a value is computed; raises to stop.
    """

    def __init__(
        self,
        folder: Path,
        *,
        seconds: float | None = None,
        longest: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        told: Callable[[str], None] = lambda text: None,
        found: Callable[[Snapshot], None] = lambda snapshot: None,
        ask: Callable[[], None] = lambda: None,
    ) -> None:
        self.folder, self.clock, self.told, self.found, self.ask = folder, clock, told, found, ask
        self.seconds = SECONDS if seconds is None else seconds
        self.longest = LONGEST if longest is None else longest
        self.pause = self.seconds
        self._waiting: dict[str, Take] = {}
        self._replaced: dict[str, tuple[str, ...]] = {}
        self._used: list[str] = []
        self._last = clock()

    def load(self, name: str) -> Snapshot | None:
        """What was kept under a name: waiting, or in its file."""
        self._used.append(name)
        if name in self._waiting:
            return self._waiting[name]()
        path = self._path(name)
        try:
            found = decode_snapshot(path.read_bytes())
        except FileNotFoundError:
            return None
        except DamagedSnapshot as error:
            path.unlink()
            self.told(f"{path.name} of {self.folder.name} is damaged ({error}) and was thrown away: it is done again")
            return None
        self.found(found)
        return found

    def keep(self, name: str, take: Take, *, instead_of: Collection[str] = ()) -> None:
        """Offer a state; it is written when its time has come, and the pieces it was made of are removed then."""
        if name not in self._waiting:
            self._used.append(name)
        self._waiting[name] = take
        for part in instead_of:
            self._waiting.pop(part, None)
            self._replaced.pop(part, None)
        if instead_of:
            self._replaced[name] = tuple(instead_of)
        if self.clock() - self._last >= self.pause:
            self.flush()

    def value(self, name: str, compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Plain values that are computed once: read if they are kept, else computed and offered."""
        found = self.load(name)
        if found is None:
            self.ask()
            began = self.clock()
            made = Snapshot(facts={"value": dict(compute()), "seconds": self.clock() - began})
            self.keep(name, lambda: made)
            found = made
        return dict(found.facts["value"])

    def forget(self, name: str) -> None:
        """Take back what was offered and not written."""
        self._waiting.pop(name, None)

    def flush(self) -> None:
        """Write everything that waits, now.

        Raises:
            StorageFailed: if the disk is full, read-only or closed to us; what was written before is untouched.
        """
        began = self.clock()
        while self._waiting:
            name = next(iter(self._waiting))
            write_bytes_atomic(self._path(name), encode_snapshot(self._waiting[name]()))
            del self._waiting[name]
            for part in self._replaced.pop(name, ()):
                self._path(part).unlink(missing_ok=True)
        self._last = self.clock()
        self.pause = min(max(self.seconds, (self._last - began) / SHARE), max(self.seconds, self.longest))

    @contextlib.contextmanager
    def parts(self) -> Iterator[list[str]]:
        """Collects the names of the pieces used inside the block, for ``instead_of``."""
        before, self._used = self._used, []
        names: list[str] = self._used
        try:
            yield names
        finally:
            self._used = [*before, *names]

    def remove(self) -> None:
        """Remove all: the work is done and its result is kept elsewhere."""
        self._waiting.clear()
        self._replaced.clear()
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()  # where it was the last

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}{SUFFIX}"
