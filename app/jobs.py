"""Start, watch and stop workers: the same command lines that people type, each a process group of its own.

A worker's output goes to ``<root>/.jobs/<run>.log``.  That file stays locked (``flock``) as long as the worker lives,
because the worker inherits the open file; so any server, also a restarted one, can tell whether it still runs.
Watching the work itself is reading the run directory (``advisor.watching``).
"""

from __future__ import annotations

import fcntl
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import advisor
from advisor.run_ids import is_run_id, new_run_folder
from advisor.runs import STOP_NAME, RunDirectory

JOBS = ".jobs"
GRACE_SECONDS = 20.0  # a writer answers a request to stop within one training step; then it may be told by signal
LOG_TAIL = 4000  # characters
_CHILDREN: list[subprocess.Popen[bytes]] = []  # kept to be reaped


class WorkerRuns(RuntimeError):
    """A worker of this run is alive already."""


def start(root: Path, run_id: str, arguments: Sequence[str]) -> None:
    """Start ``merge-advisor <arguments>`` for a run.

    Raises:
        WorkerRuns: if one is alive.
    """
    path = _log_path(root, run_id)
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise WorkerRuns(f"run={run_id!r}: a worker is at it already; watch or stop that one") from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"$ merge-advisor {shlex.join(arguments)}\n".encode())
        _reap()
        _CHILDREN.append(
            subprocess.Popen(
                [sys.executable, "-m", "advisor.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=_environment(),
            )
        )
    finally:
        os.close(descriptor)


def run_project(root: Path, project: Path, name: str, *, command: str = "run") -> str:
    """Start a new run of a project file; returns its id."""
    folder = new_run_folder(root, name)
    start(root, folder.name, [command, str(project), "--out", str(folder), "--quiet"])
    return folder.name


def go_on(run: RunDirectory, *, command: str = "run", anyway: bool = False) -> None:
    """Continue a run where it stopped."""
    arguments = [command, str(run.path), "--out", str(run.path), "--quiet"]
    start(run.path.parent, run.id, [*arguments, "--anyway"] if anyway else arguments)


def run_demo(root: Path, run_id: str) -> None:
    """Start the demo in its folder, or go on with it."""
    start(root, run_id, ["demo", "--out", str(root), "--quiet"])


def write_report(run: RunDirectory) -> None:
    """Write the run's report anew."""
    start(run.path.parent, run.id, ["report", str(run.path), "--quiet"])


def is_alive(root: Path, run_id: str) -> bool:
    """Whether a worker that a page started for this run still lives."""
    _reap()
    try:
        descriptor = os.open(_log_path(root, run_id), os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)


def last_words(root: Path, run_id: str) -> str:
    """The end of a worker's output; empty where no page started one."""
    try:
        return _log_path(root, run_id).read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:]
    except OSError:
        return ""


def stop(run: RunDirectory) -> None:
    """Ask the writer to stop within one training step."""
    run.request_stop("asked in the app")


def stop_is_overdue(run: RunDirectory) -> bool:
    """Whether a request to stop has gone unanswered for longer than the grace period."""
    try:
        asked = (run.path / STOP_NAME).stat().st_mtime
    except OSError:
        return False
    return run.writer() is not None and time.time() - asked > GRACE_SECONDS


def stop_at_once(run: RunDirectory) -> None:
    """Tell the writer by signal, it and its children where it leads a process group; it still keeps what is done."""
    writer = run.writer()
    if writer is None or writer.host != socket.gethostname():
        raise ValueError(f"run={run.id!r} is not written by a process of this machine; stop it where it runs")
    if os.getpgid(writer.pid) == writer.pid:
        os.killpg(writer.pid, signal.SIGTERM)
    else:
        os.kill(writer.pid, signal.SIGTERM)


def _log_path(root: Path, run_id: str) -> Path:
    if not is_run_id(run_id):
        raise ValueError(f"run_id={run_id!r} is not the id of a run; choose one from the list of runs")
    return root / JOBS / f"{run_id}.log"


def _environment() -> dict[str, str]:
    """The server's own, with this code in reach wherever the server was started."""
    home = str(Path(str(advisor.__file__)).resolve().parent.parent)
    known = os.environ.get("PYTHONPATH", "")
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": os.pathsep.join(part for part in (home, known) if part)}


def _reap() -> None:
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]
