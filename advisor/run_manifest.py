r"""Checksums of a run's artefacts, so that a truncated or bit-flipped piece is named and made again.

``manifest.json`` holds for each artefact the SHA-256 of its content.  A file whose content is known before it is
written (JSON, text) gets its new checksum *beside* the old one first, then the file, so that at every moment in between
the file matches one of the two and a kill damages nothing.  A file that another library writes (weights) is recorded
after it is whole; until then it counts as unrecorded, which is as good as absent.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from estimators.files import read_json, write_json

MANIFEST_NAME = "manifest.json"
MANIFEST_SCHEMA = "merge-advisor/manifest/1"
_CHUNK_BYTES = 1 << 20

Condition = Literal["whole", "damaged", "absent", "unrecorded"]


class DamagedArtefact(ValueError):
    """A stored piece of a run does not match its checksum or cannot be read; it must be made again."""


def file_checksum(path: Path) -> str:
    """SHA-256 of a file of any size, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def read_manifest(folder: Path) -> dict[str, tuple[str, ...]]:
    """Artefact -> checksums its content may have.

    Raises:
        DamagedArtefact: if the manifest itself cannot be read.
    """
    path = folder / MANIFEST_NAME
    if not path.exists():
        return {}
    try:
        content = read_json(path)
    except ValueError as error:
        raise DamagedArtefact(str(error)) from None
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or content.get("schema") != MANIFEST_SCHEMA or not _well_formed(files):
        raise DamagedArtefact(f"path={str(path)!r} is not a manifest of {MANIFEST_SCHEMA}; delete it to rebuild it")
    return {name: tuple(sums) for name, sums in files.items()}


def _well_formed(files: Mapping[Any, Any]) -> bool:
    return all(isinstance(sums, list) and sums and all(isinstance(s, str) for s in sums) for sums in files.values())


def write_manifest(folder: Path, files: Mapping[str, tuple[str, ...]]) -> None:
    """Write the manifest in one piece."""
    write_json(folder / MANIFEST_NAME, {"schema": MANIFEST_SCHEMA, "files": {k: list(v) for k, v in files.items()}})


def accept_checksum(folder: Path, name: str, checksum: str) -> None:
    """Let artefact ``name`` have content of this checksum, beside the whole content it has now."""
    files = read_manifest(folder)
    path = folder / name
    now = (file_checksum(path),) if path.is_file() else ()
    files[name] = tuple(c for c in now if c in files.get(name, ()) and c != checksum) + (checksum,)
    write_manifest(folder, files)


def forget_checksum(folder: Path, name: str) -> None:
    """Let artefact ``name`` count as absent until it is recorded again."""
    files = read_manifest(folder)
    if files.pop(name, None) is not None:
        write_manifest(folder, files)


def artefact_condition(folder: Path, name: str) -> Condition:
    """Whether an artefact is there and matches its checksum."""
    path = folder / name
    if not path.is_file():
        return "absent"
    allowed = read_manifest(folder).get(name)
    if allowed is None:
        return "unrecorded"
    return "whole" if file_checksum(path) in allowed else "damaged"
