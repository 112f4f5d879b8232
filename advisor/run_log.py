r"""Append-only logs of a run, one JSON object a line, each line with its own checksum.

A line is ``{..., "check": "1a2b3c4d"}`` where ``check`` is the CRC-32 of the line's JSON text without it.  A killed
writer can leave at most one half line, at the end; the next append starts on a fresh line, and readers name damaged
lines instead of failing on them.
"""

from __future__ import annotations

import errno
import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from estimators.files import NEXT_STEPS, StorageFailed, write_bytes_atomic


@dataclass(frozen=True, slots=True, kw_only=True)
class DamagedLine:
    """A line that cannot be trusted.

    Attributes:
        number: line number from 1, counted from where reading began.
        reason: what is wrong with it, in words.
    """

    number: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """What was read of a log.

    Attributes:
        records: whole records, in order.
        damaged: lines that were left out.
        end: byte offset behind the last complete line; read from there next time.
    """

    records: tuple[dict[str, Any], ...]
    damaged: tuple[DamagedLine, ...]
    end: int


def append_record(path: Path, record: Mapping[str, Any], *, sync: bool = True) -> None:
    """Append one checked line; on failure the file is as before.

    Raises:
        ValueError: if the record holds the key ``check``, NaN or infinity.
        StorageFailed: if the disk is full, read-only or closed to us.
    """
    if "check" in record:
        raise ValueError(f"record={dict(record)!r} must not hold the key 'check', which the log adds; rename the key")
    line = encode_record(record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            _append_bytes(descriptor, line)
            if sync:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        hint = NEXT_STEPS.get(error.errno or 0, "look at the path and try again")
        reason = f"path={str(path)!r} cannot be written ({error.strerror or error}); {hint}"
        raise StorageFailed(error.errno, reason) from error


def _append_bytes(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    if size and os.pread(descriptor, 1, size - 1) != b"\n":
        line = b"\n" + line  # a killed writer left half a line
    written = os.write(descriptor, line)
    if written != len(line):
        os.ftruncate(descriptor, size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def encode_record(record: Mapping[str, Any]) -> bytes:
    r"""One line of the log, with its checksum.

    >>> encode_record({"kind": "started"})
    b'{"kind": "started", "check": "e4af234c"}\n'
    """
    try:
        text = json.dumps(dict(record), ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(
            f"record={dict(record)!r} has no JSON form ({error}); store null for what is unknown"
        ) from None
    # what JSON makes of the record (tuples become lists, keys become text) is what a reader will check
    text = json.dumps(json.loads(text), ensure_ascii=False, allow_nan=False)
    check = f'"check": "{_checksum(text)}"}}'
    return (f"{text[:-1]}, {check}\n" if record else f"{{{check}\n").encode()


def mend_log(path: Path) -> tuple[DamagedLine, ...]:
    """Drop damaged lines and a half line at the end, for the log's one writer; returns the damaged lines.

    Raises:
        StorageFailed: if the mended log cannot be written; the old one is untouched then.
    """
    part = read_log(path)
    if part.damaged or (path.exists() and path.stat().st_size > part.end):
        write_bytes_atomic(path, b"".join(encode_record(record) for record in part.records))
    return part.damaged


def read_log(path: Path, *, start: int = 0) -> LogPart:
    """All whole records from byte ``start`` on; a missing file is an empty log.

    A last line without its newline is a write in progress or the rest of a killed one: it is not read and not yet
    damaged, and ``end`` stays in front of it.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read()
    except FileNotFoundError:
        return LogPart(records=(), damaged=(), end=start)
    complete = data[: data.rfind(b"\n") + 1]
    records: list[dict[str, Any]] = []
    damaged: list[DamagedLine] = []
    for number, line in enumerate(complete.split(b"\n")[:-1], start=1):
        found = _decode_record(line)
        if isinstance(found, str):
            damaged.append(DamagedLine(number=number, reason=found))
        else:
            records.append(found)
    return LogPart(records=tuple(records), damaged=tuple(damaged), end=start + len(complete))


def _decode_record(line: bytes) -> dict[str, Any] | str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return "is not JSON (cut off or overwritten)"
    if not isinstance(record, dict):
        return "is not a JSON object"
    check = record.pop("check", None)
    if check is None:
        return "has no checksum"
    text = json.dumps(record, ensure_ascii=False)
    return record if _checksum(text) == check else "does not match its checksum"


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"
