r"""The run directory: everything a run knows, as readable files, and its contract with other processes.

    <root>/<yyyymmdd-hhmmss>-<project>/   run.json, project.yaml, splits.json, probes, constants, study, recommendation,
                                          experts/, merged/, validation, report.*, manifest.json
                                          lock, heartbeat, events.jsonl, stop        (``docs/run-directory.md``)

One writer, many readers.  JSON artefacts carry ``"schema": "merge-advisor/<name>/<version>"`` as their first key and,
with all other artefacts, a checksum in ``manifest.json``; a damaged piece raises ``DamagedArtefact`` with its name, an
older or newer schema ``WrongSchema`` with the way on.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from advisor.interrupts import RunInterrupted
from advisor.run_ids import is_run_id, new_run_folder, program_version
from advisor.run_lock import Heartbeat, RunBusy, RunLock, Writer, living_writer
from advisor.run_log import LogPart, append_record, read_log
from advisor.run_manifest import (
    MANIFEST_NAME,
    Condition,
    DamagedArtefact,
    accept_checksum,
    artefact_condition,
    file_checksum,
    forget_checksum,
    read_manifest,
    write_manifest,
)
from advisor.run_schemas import read_typed, schema_of
from estimators.files import StorageFailed, json_text, remove_temporaries, sha256_bytes, write_bytes_atomic

RUN_NAME = "run.json"
EVENTS_NAME = "events.jsonl"
STOP_NAME = "stop"
LABEL_NAME = "label.txt"
UNFINISHED_NAME = "unfinished"  # no artefact: work goes on from it, results never rest on it
MAKERS = {  # beginning of an artefact's name -> the command that makes it
    "constants": "probe",
    "probe": "probe",
    "range_test": "probe",
    "risk_model": "recommend",
    "recommendation": "recommend",
    "experts": "train",
    "merged": "merge",
    "validation": "validate",
    "report": "report",
}
GROWING = (".jsonl", ".journal")  # each line has its own checksum
OTHERS_WRITE = ("stop", "label.txt")  # other processes than the run's one writer
CONTRACT_NAMES = frozenset({"lock", "heartbeat", EVENTS_NAME, STOP_NAME, LABEL_NAME, MANIFEST_NAME})


class ArtefactMissing(ValueError):
    """A step that others build on has not been done in this run."""


class NotARun(ValueError):
    """A path is not a run directory."""


class RunDirectory:
    """One run on disk; make it with :meth:`create` or :meth:`open`."""

    def __init__(self, path: Path, about: Mapping[str, Any]) -> None:
        self.path = path
        self.about = dict(about)
        self._lock = RunLock(path)
        self._heartbeat = Heartbeat(path)
        self._depth = 0

    # -- making and finding ---------------------------------------------------------------------------------------

    @classmethod
    def create(cls, root: Path | str, project: str, *, path: Path | str | None = None) -> RunDirectory:
        """Make a new run directory.

        Args:
            root: folder of runs; a new folder ``<yyyymmdd-hhmmss>-<project>`` is made in it.
            project: name of the project.
            path: make the run exactly here instead; the folder must be absent or empty.

        Raises:
            NotARun: if ``path`` holds something else.
            StorageFailed: if the folder cannot be made.
        """
        if path is None:
            folder = new_run_folder(Path(root), project)
        else:
            folder = Path(path)
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
                raise NotARun(f"out={str(folder)!r} exists and is not a run directory; choose another --out")
        about = {
            "id": folder.name,
            "project": project,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "version": program_version(),
        }
        run = cls(folder, about)
        run.write_json(RUN_NAME, about)
        return run

    @classmethod
    def open(cls, path: Path | str, *, mend: bool = False) -> RunDirectory:
        """Open an existing run directory, to read or to go on.

        Args:
            path: the folder.
            mend: rebuild a manifest that cannot be read, and take a damaged ``run.json`` from what else the folder
                tells; the next writer writes it again.

        Raises:
            NotARun: if there is none.
            DamagedArtefact: if ``run.json`` is damaged and is not to be mended.
            RunBusy: if the manifest is to be mended while another process writes.
        """
        folder = Path(path)
        if not is_run(folder):
            raise NotARun(f"run={str(folder)!r} is not a run directory (it has no {RUN_NAME}); see merge-advisor run")
        try:
            run = cls(folder, read_typed(folder / RUN_NAME))
        except DamagedArtefact:
            if not mend:
                raise
            run = cls(folder, _about(folder))
        if mend and not _is_readable(folder):
            run._lock.acquire("mend")
            try:
                run._mend_manifest()
            finally:
                run._lock.release()
        return run

    @classmethod
    def find(cls, root: Path | str, run_id: str) -> RunDirectory:
        """Open a run by its id, as it stands in an address; anything that is not a plain folder name is refused."""
        if not is_run_id(run_id) or (Path(root) / run_id).is_symlink():
            raise NotARun(f"run_id={run_id!r} is not the id of a run; choose one from the list of runs")
        return cls.open(Path(root) / run_id)

    @property
    def id(self) -> str:
        """The folder's name."""
        return self.path.name

    # -- artefacts ------------------------------------------------------------------------------------------------

    def path_of(self, name: str) -> Path:
        """The path of an artefact; a name that leads out of the run directory is refused."""
        path = self.path / name
        if not name or "\\" in name or not path.resolve().is_relative_to(self.path.resolve()):
            raise ValueError(f"name={name!r} leads out of run {self.id!r}; use a relative name inside it")
        return path

    def condition(self, name: str) -> Condition:
        """``whole``, ``damaged``, ``absent`` or ``unrecorded`` (there, but not known to be complete)."""
        return artefact_condition(self.path, self._name(name))

    def has(self, name: str) -> bool:
        """Whether an artefact is there, recorded and matches its checksum."""
        return self.condition(name) == "whole"

    def write_bytes(self, name: str, data: bytes) -> Path:
        """Write an artefact in one piece and record its checksum; it is whole at every moment."""
        path = self.path_of(name)
        checksum = sha256_bytes(data)
        accept_checksum(self.path, self._name(name), checksum)
        write_bytes_atomic(path, data)
        return path

    def write_text(self, name: str, text: str) -> Path:
        """The same for UTF-8 text."""
        return self.write_bytes(name, text.encode())

    def write_json(self, name: str, value: Mapping[str, Any]) -> Path:
        """Write a mapping as JSON with its schema as first key."""
        if "schema" in value:
            raise ValueError(f"{name} must not hold the key 'schema', which the run adds; rename the key")
        return self.write_text(name, json_text({"schema": schema_of(name), **value}, name))

    def read_bytes(self, name: str) -> bytes:
        """Read an artefact.

        Raises:
            ArtefactMissing: if it is absent or not known to be whole.
            DamagedArtefact: if it does not match its checksum.
        """
        self.require(name)
        return self.path_of(name).read_bytes()

    def read_json(self, name: str) -> dict[str, Any]:
        """Read what :meth:`write_json` wrote, without the schema.

        Raises:
            ArtefactMissing: if it is absent or not known to be whole.
            DamagedArtefact: if it does not match its checksum.
            WrongSchema: if another version wrote it.
        """
        self.require(name)
        return read_typed(self.path_of(name))

    def require(self, name: str) -> Path:
        """The path of an artefact that is there and undamaged; errors as in :meth:`read_bytes`."""
        condition = self.condition(name)
        if condition in ("absent", "unrecorded"):
            step = next((step for start, step in MAKERS.items() if name.startswith(start)), "run")
            raise ArtefactMissing(
                f"run={self.id!r} has no whole {name} yet; make it first: merge-advisor {step} {self.path}"
            )
        if condition == "damaged":
            raise DamagedArtefact(
                f"{name} of run {self.id!r} does not match its checksum (cut off or overwritten); "
                "run the same command again: this piece is made again and the rest is kept"
            )
        return self.path_of(name)

    def record(self, name: str) -> None:
        """Record the checksum of a file that something else wrote and that is now whole."""
        accept_checksum(self.path, self._name(name), file_checksum(self.path_of(name)))

    def discard(self, name: str) -> None:
        """Remove an artefact (a damaged one, or one that is to be made again)."""
        forget_checksum(self.path, self._name(name))
        self.path_of(name).unlink(missing_ok=True)

    def damaged(self) -> tuple[str, ...]:
        """Names of recorded artefacts that are there and do not match; the manifest itself if it cannot be read."""
        try:
            names = read_manifest(self.path)
        except DamagedArtefact:
            return (MANIFEST_NAME,)
        return tuple(name for name in names if artefact_condition(self.path, name) == "damaged")

    def append(self, name: str, record: Mapping[str, Any]) -> None:
        """Append one checked line to a log such as ``probes.jsonl``."""
        append_record(self.path_of(name), record)

    def read_log(self, name: str, *, start: int = 0) -> LogPart:
        """Whole records of a log from byte ``start`` on, with the damaged lines named."""
        return read_log(self.path_of(name), start=start)

    def _name(self, name: str) -> str:
        return self.path_of(name).relative_to(self.path).as_posix()

    # -- the contract with other processes ------------------------------------------------------------------------

    @contextmanager
    def writing(self, command: str) -> Iterator[None]:
        """Be the run's one writer inside the block: lock, heartbeat, and events of start and end.

        Blocks may nest; only the outermost takes the lock.  What was found damaged or stale is said in events.

        Raises:
            RunBusy: if another process writes.
        """
        if self._depth:
            with self._nested():
                yield
            return
        dead = self._lock.acquire(command)
        try:
            remove_temporaries(self.path, but=OTHERS_WRITE)
            self._mend_manifest()
            self._mend_about()
            self._heartbeat.start()
            self.clear_stop()
            if dead is not None:
                self.event("taken_over", command=command, writer=dead.describe())
            self.event("started", command=command, version=program_version())
            with self._nested(), self._told_end(command):
                yield
        finally:
            self._heartbeat.stop()
            self._lock.release()

    @contextmanager
    def _nested(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1

    @contextmanager
    def _told_end(self, command: str) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            kind = "interrupted" if isinstance(error, KeyboardInterrupt | RunInterrupted) else "failed"
            with suppress(StorageFailed):  # the first error matters more than a log that cannot be written
                self.event(kind, command=command, error=type(error).__name__, text=str(error))
            raise
        self.event("finished", command=command)

    def _mend_manifest(self) -> None:
        """Rebuild a manifest that is lost or cannot be read, from the artefacts that are there; said in an event."""
        try:
            if read_manifest(self.path):
                return
            raise DamagedArtefact(f"{MANIFEST_NAME} of run {self.id!r} is lost or empty")
        except DamagedArtefact as error:
            present = [path for path in sorted(self.path.rglob("*")) if path.is_file()]
            names = {path.relative_to(self.path).as_posix(): path for path in present}
            kept = {n: p for n, p in names.items() if n not in CONTRACT_NAMES and not p.name.startswith(".")}
            kept = {n: p for n, p in kept.items() if p.suffix not in GROWING and not n.startswith(UNFINISHED_NAME)}
            write_manifest(self.path, {name: (file_checksum(path),) for name, path in kept.items()})
            self.event("manifest_rebuilt", text=str(error))

    def _mend_about(self) -> None:
        """Write a damaged ``run.json`` again; said in an event."""
        if self.condition(RUN_NAME) == "damaged":
            about = _about(self.path)
            self.write_json(RUN_NAME, about)
            self.about = dict(about)
            self.event("mended", text=f"{RUN_NAME} was damaged and written again")

    def writer(self) -> Writer | None:
        """The living process that writes to this run now."""
        return living_writer(self.path)

    def tell(self, **status: Any) -> None:
        """What the heartbeat says from now on (stage, done, total)."""
        self._heartbeat.tell(status)

    def event(self, kind: str, **fields: Any) -> None:
        """Append an event: kind, time (UTC) and fields."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        append_record(self.path / EVENTS_NAME, {"time": time, "kind": kind, **fields})

    def events(self, *, start: int = 0) -> LogPart:
        """Events from byte ``start`` on; poll with the ``end`` of the last answer."""
        return read_log(self.path / EVENTS_NAME, start=start)

    def request_stop(self, reason: str = "asked to stop") -> None:
        """Ask the writer to stop within one training step."""
        write_bytes_atomic(self.path / STOP_NAME, reason.encode())

    def stop_requested(self) -> str | None:
        """The reason why someone asked the writer to stop, or ``None``."""
        try:
            return (self.path / STOP_NAME).read_text(encoding="utf-8", errors="replace") or "asked to stop"
        except OSError:
            return None

    def clear_stop(self) -> None:
        """Forget a request to stop; done when a writer begins."""
        (self.path / STOP_NAME).unlink(missing_ok=True)

    @property
    def label(self) -> str:
        """The name that people gave the run; its id by default."""
        try:
            return (self.path / LABEL_NAME).read_text(encoding="utf-8").strip() or self.id
        except (OSError, ValueError):
            return self.id

    def rename(self, label: str) -> None:
        """Give the run a name to be shown; the id and folder stay."""
        if not 0 < len(label.strip()) <= 100 or not label.isprintable():
            raise ValueError(f"label={label!r} must be 1 to 100 printable characters; choose another name")
        write_bytes_atomic(self.path / LABEL_NAME, label.strip().encode())

    def remove(self) -> None:
        """Delete the run; refused while a process writes to it."""
        writer = self.writer()
        if writer is not None:
            raise RunBusy(f"run={self.id!r} is being written by {writer.describe()}; stop it before you delete it")
        shutil.rmtree(self.path)


def _is_readable(folder: Path) -> bool:
    try:
        read_manifest(folder)
    except DamagedArtefact:
        return False
    return True


def _about(folder: Path) -> dict[str, str]:
    """What ``run.json`` holds, from the folder's name and its events."""
    events = read_log(folder / EVENTS_NAME).records
    versions = [str(event["version"]) for event in events if "version" in event]
    return {
        "id": folder.name,
        "project": re.sub(r"^\d{8}-\d{6}-", "", folder.name),
        "created": str(events[0]["time"]) if events else "",
        "version": versions[0] if versions else "unknown",
    }


def is_run(path: Path | str) -> bool:
    """Whether a path is a run directory."""
    return (Path(path) / RUN_NAME).is_file()
