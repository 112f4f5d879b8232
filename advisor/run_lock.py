r"""One writer a run: the ``lock`` file, and the ``heartbeat`` that shows readers that the writer lives.

The lock is a file that names its holder (pid, host, start time, command) and on which the holder keeps an exclusive
``flock``: the kernel drops it when the process dies, however it dies, so a lock without a living holder is taken over.
Between hosts, where that is not seen, a heartbeat older than ``FOREIGN_STALE_SECONDS`` counts as death.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from estimators.files import NEXT_STEPS, StorageFailed

LOCK_NAME = "lock"
HEARTBEAT_NAME = "heartbeat"
HEARTBEAT_SECONDS = 2.0
FOREIGN_STALE_SECONDS = 120.0  # sixty missed heartbeats; hosts' clocks are expected to agree within a minute


class RunBusy(RuntimeError):
    """Another living process writes to this run."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Writer:
    """Who holds a lock.

    Attributes:
        pid: process id.
        host: name of its machine.
        started: when the process took the lock, ISO 8601, UTC.
        ticks: kernel start time of the process, so that a reused pid is told apart; 0 where unknown.
        command: what it does, e.g. ``run``.
    """

    pid: int
    host: str
    started: str
    ticks: int
    command: str

    @classmethod
    def here(cls, command: str) -> Writer:
        """This process."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            started=datetime.now(UTC).isoformat(timespec="seconds"),
            ticks=_start_ticks(os.getpid()),
            command=command,
        )

    def describe(self) -> str:
        """One phrase, e.g. ``process 71 on box ("run", since 2026-11-22T06:00:00+00:00)``."""
        return f'process {self.pid} on {self.host} ("{self.command}", since {self.started})'


def read_writer(folder: Path) -> Writer | None:
    """Who the lock names, living or dead; ``None`` without a lock or while one is being taken."""
    try:
        content = json.loads((folder / LOCK_NAME).read_bytes())
        return Writer(**content)
    except (OSError, ValueError, TypeError):
        return None


def is_alive(folder: Path, writer: Writer) -> bool:
    """Whether the process that a lock names still runs, as far as this machine can tell."""
    if writer.host != socket.gethostname():
        return heartbeat_age(folder) < FOREIGN_STALE_SECONDS
    try:
        os.kill(writer.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return _start_ticks(writer.pid) == writer.ticks


def living_writer(folder: Path) -> Writer | None:
    """The process that writes to a run now."""
    writer = read_writer(folder)
    return writer if writer is not None and is_alive(folder, writer) else None


def heartbeat_age(folder: Path) -> float:
    """Seconds since the last heartbeat; infinite without one."""
    try:
        return max(0.0, time.time() - (folder / HEARTBEAT_NAME).stat().st_mtime)
    except OSError:
        return float("inf")


def read_heartbeat(folder: Path) -> dict[str, Any]:
    """The last heartbeat: beat, time, pid, stage, done, total; empty without one."""
    try:
        content = json.loads((folder / HEARTBEAT_NAME).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


class RunLock:
    """The lock of one run, to be taken and released by its writer."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / LOCK_NAME
        self._descriptor: int | None = None

    def acquire(self, command: str) -> Writer | None:
        """Take the lock; returns the dead writer it was taken over from, if any.

        Raises:
            RunBusy: if a living process holds it; the error names that process.
            StorageFailed: if the folder cannot be written.
        """
        if self._descriptor is not None:
            raise RunBusy(f"run={self.path.parent.name!r} is already being written by this process; release it first")
        descriptor = self._open_locked()
        before = read_writer(self.path.parent)
        if before is not None and before.host != socket.gethostname() and is_alive(self.path.parent, before):
            os.close(descriptor)
            raise RunBusy(self._refusal(before))
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(asdict(Writer.here(command))).encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise _storage_failed(self.path, error) from error
        self._descriptor = descriptor
        return before

    def release(self) -> None:
        """Give the lock back; a no-op when it is not held."""
        if self._descriptor is None:
            return
        # unlink while holding it: whoever waits finds the path gone or another file there, and opens anew
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)
        self._descriptor = None

    def _open_locked(self) -> int:
        while True:
            try:
                descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            except OSError as error:
                raise _storage_failed(self.path, error) from error
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
                raise RunBusy(self._refusal(read_writer(self.path.parent))) from None
            with contextlib.suppress(FileNotFoundError):
                if os.fstat(descriptor).st_ino == self.path.stat().st_ino:
                    return descriptor
            os.close(descriptor)  # the former holder released it between our open and our lock

    def _refusal(self, writer: Writer | None) -> str:
        who = writer.describe() if writer is not None else "another process"
        return (
            f"run={self.path.parent.name!r} is being written by {who}; one run has one writer: wait for it, "
            "stop it, watch it with the app, or choose another --out"
        )


class Heartbeat:
    """A thread that refreshes the ``heartbeat`` file while a writer works."""

    def __init__(self, folder: Path, *, seconds: float = HEARTBEAT_SECONDS) -> None:
        self.path = folder / HEARTBEAT_NAME
        self.seconds = seconds
        self._status: dict[str, Any] = {}
        self._beats = 0
        self._end = threading.Event()
        self._guard = threading.Lock()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._end.clear()
        self.beat()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)
        self._thread.start()

    def tell(self, status: Mapping[str, Any]) -> None:
        """What the next beats say about the work (stage, done, total)."""
        self._status = dict(status)

    def beat(self) -> None:
        """Refresh the file now.  A full disk stops no work: readers see the age, the next artefact reports the disk."""
        with self._guard, contextlib.suppress(OSError):
            self._beats += 1
            content = {
                "beat": self._beats,
                "pid": os.getpid(),
                "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
                **self._status,
            }
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            temporary.replace(self.path)

    def stop(self) -> None:
        """End the thread; the last heartbeat stays as a record."""
        self._end.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._end.wait(self.seconds):
            self.beat()


def _start_ticks(pid: int) -> int:
    if sys.platform != "linux":
        return 0
    try:
        # the command name, in parentheses, may hold blanks: field 22 is the 20th behind the last parenthesis
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        return int(fields[19]) if fields[0] != "Z" else -1  # a zombie has ended and only waits for its parent
    except (OSError, ValueError, IndexError):
        return 0


def _storage_failed(path: Path, error: OSError) -> StorageFailed:
    hint = NEXT_STEPS.get(error.errno or 0, "look at the path and try again")
    return StorageFailed(error.errno, f"path={str(path)!r} cannot be written ({error.strerror or error}); {hint}")
