"""The journal file of a study: its lock, its checksums, and what is done about damaged lines.

A journal is one JSON object a line, one line an operation of Optuna.  A line that a kill has cut short, that is no
longer JSON, or whose trial does not match the SHA-256 of its record is dropped; whoever opens the study redoes it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LOCK_GRACE_SECONDS = 10  # a lock this old was left by a killed process: one append takes milliseconds
_CREATE_STUDY, _CREATE_TRIAL = 0, 4  # operation codes of Optuna's journal
_TRIAL_OPERATIONS = range(5, 10)


class CorruptStudyError(ValueError):
    """A stored study cannot be read; the message names file and line."""


def checksum(data: Mapping[str, Any]) -> str:
    """SHA-256 of a record's JSON with sorted keys."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def journal_lock(path: Path) -> Any:
    """The lock of a journal file, on any file system with exclusive creation."""
    from optuna.storages.journal import JournalFileOpenLock

    return JournalFileOpenLock(str(path), grace_period=LOCK_GRACE_SECONDS)


def mend_journal(path: Path, *, repair: bool) -> Iterator[str]:
    """Drop damaged lines of a journal, keeping a copy of the file; yield a note for each repair.

    Without ``repair`` a damaged line raises ``CorruptStudyError``; a last line cut short by a kill is dropped anyway.
    """
    if not path.parent.is_dir():
        raise ValueError(f"path={path}: the folder of a study file must exist; create {path.parent}")
    if not path.exists():
        return
    with _locked(path):
        _remove_left_locks(path)
        lines = path.read_bytes().splitlines(keepends=True)
        torn = bool(lines) and not lines[-1].endswith(b"\n")
        damaged = _damaged_lines(lines)
        if not damaged:
            return
        only_torn = torn and damaged == [len(lines)]
        if not repair and not only_torn:
            raise CorruptStudyError(
                f"line {damaged[0]} of study file {path} is damaged; open it with repair=True to redo that trial alone"
            )
        kept = [line for number, line in enumerate(lines, start=1) if number not in damaged]
        if not (only_torn or _coherent(kept)):
            raise CorruptStudyError(
                f"line {damaged[0]} of study file {path} is damaged and later lines rest on it; "
                "move the file away and run again, the same seed finds the same plan"
            )
        copy = _free_name(path)
        copy.write_bytes(b"".join(lines))
        _replace(path, b"".join(kept))
    for number in damaged:
        what = "was cut short by a kill" if torn and number == len(lines) else "was damaged"
        yield f"line {number} of {path.name} {what}: dropped and redone; the old file is kept as {copy.name}"


def _damaged_lines(lines: list[bytes]) -> list[int]:
    """Numbers, from 1, of lines that are torn, not JSON objects, or trials that do not match their checksum."""
    damaged = []
    for number, line in enumerate(lines, start=1):
        try:
            data = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            data = None
        if not isinstance(data, dict) or not isinstance(data.get("op_code"), int):
            damaged.append(number)
        elif data["op_code"] == _CREATE_TRIAL:
            attrs = data.get("user_attrs") or {}
            if "record" in attrs and (attrs.get("checksum") != checksum(attrs["record"]) or not _readable(data)):
                damaged.append(number)
    return damaged


def _readable(trial: Mapping[str, Any]) -> bool:
    """Whether Optuna can read the parts of a trial that no checksum covers: its distributions and its state."""
    from optuna.distributions import json_to_distribution
    from optuna.trial import TrialState

    try:
        for text in (trial.get("distributions") or {}).values():
            json_to_distribution(text)
        TrialState(trial.get("state", TrialState.COMPLETE.value))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return True


def _coherent(lines: list[bytes]) -> bool:
    """Whether what is left still makes sense: every study is created, and no operation speaks of a trial by number."""
    studies: set[str] = set()
    for line in lines:
        data = json.loads(line)
        if data["op_code"] in _TRIAL_OPERATIONS:
            return False
        if data["op_code"] == _CREATE_STUDY:
            studies.add(data["study_name"])
        elif not 0 <= data.get("study_id", -1) < len(studies):
            return False
    return True


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = journal_lock(path)
    lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_left_locks(path: Path) -> None:
    """Remove what Optuna's lock leaves when its process is killed while it lets go; young ones may be in use."""
    for left in path.parent.glob(f"{path.name}.lock*.rename"):
        with suppress(OSError):
            if time.time() - left.stat().st_mtime > LOCK_GRACE_SECONDS:
                left.unlink()


def _free_name(path: Path) -> Path:
    number = 1
    while (copy := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return copy


def _replace(path: Path, content: bytes) -> None:
    """Write a file whole or not at all: temporary file, fsync, rename."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
