"""Files that are whole or not there: written to a temporary file in the same folder, synced, then renamed.

A reader never sees half a file, and a killed or full-disk write leaves the old version in place.  ``StorageFailed`` is
the one outcome a caller may want to catch: no space, no permission, a read-only disk.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

NEXT_STEPS = {
    errno.ENOSPC: "free some space or choose another --out",
    errno.EDQUOT: "free some of your quota or choose another --out",
    errno.EACCES: "grant write permission or choose another --out",
    errno.EPERM: "grant write permission or choose another --out",
    errno.EROFS: "the disk is read-only: choose another --out",
    errno.EEXIST: "a file has the name of a folder: choose another --out",
    errno.ENOTDIR: "a part of the path is a file: choose another --out",
    errno.EISDIR: "a folder has that name: choose another --out",
}


_TEMPORARY = re.compile(r"\.(?P<name>.{1,64})\.[0-9a-f]{12}\.tmp")


class StorageFailed(OSError):
    """A file could not be written; what was there before is untouched."""


def write_bytes_atomic(path: Path | str, data: bytes | Iterable[bytes | memoryview]) -> None:
    """Write ``data`` so that ``path`` holds either the old content or all of the new; folders are made as needed.

    Args:
        path: the file.
        data: its content, in one piece or in several that are written one after the other.

    Raises:
        StorageFailed: if the disk is full, read-only or closed to us; the error names the path and the next step.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        candidate = path.parent / f".{path.name[:64]}.{secrets.token_hex(6)}.tmp"
        descriptor = os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)  # the user's umask applies
        temporary = candidate
        with os.fdopen(descriptor, "wb") as file:
            file.writelines([data] if isinstance(data, bytes) else data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise _storage_failed(path, error) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)


def remove_temporaries(folder: Path, *, but: Collection[str] = ()) -> None:
    """Remove temporary files that killed processes left below a folder; for its one writer.

    Args:
        folder: where to look.
        but: names of files whose temporaries are left alone, since other processes may be writing them now.
    """
    for path in folder.rglob(".*.tmp"):
        found = _TEMPORARY.fullmatch(path.name)
        if found is not None and found["name"] not in but:
            with contextlib.suppress(OSError):
                path.unlink()


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` survive a power cut; a no-op where folders cannot be opened."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text in one piece."""
    write_bytes_atomic(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON in one piece; errors as in :func:`json_text`."""
    write_text(path, json_text(value, Path(path).name))


def json_text(value: Any, name: str) -> str:
    """A value as indented JSON; NaN and infinity are refused, for they are not JSON.

    Raises:
        ValueError: if ``value`` holds NaN, infinity or a key that is no text; the error speaks of ``name``.
        TypeError: if it holds something JSON has no form for.
    """
    try:
        return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    except ValueError as error:
        raise ValueError(f"{name} cannot hold this value ({error}); store null for what is unknown") from None


def read_json(path: Path | str) -> Any:
    """Read JSON; a damaged file is refused by name."""
    path = Path(path)
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"path={str(path)!r} is not readable JSON ({type(error).__name__}); delete it so that it is made again"
        ) from None


def append_json_line(path: Path | str, value: Mapping[str, Any]) -> None:
    """Append one JSON line and sync it; lines of other writers stay whole (one ``write`` call in append mode)."""
    path = Path(path)
    line = json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        try:
            os.write(descriptor, line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _storage_failed(path, error) from error


def sha256_bytes(data: bytes) -> str:
    """SHA-256 as 64 hexadecimal digits.

    >>> sha256_bytes(b"")[:8]
    'e3b0c442'
    """
    return hashlib.sha256(data).hexdigest()


def _storage_failed(path: Path, error: OSError) -> StorageFailed:
    hint = NEXT_STEPS.get(error.errno or 0, "look at the path and try again")
    return StorageFailed(error.errno, f"path={str(path)!r} cannot be written ({error.strerror or error}); {hint}")


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"value={value!r} of type {type(value).__name__} has no JSON form; convert it to plain values")
