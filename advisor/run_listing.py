"""What runs there are and how far each has come: the values behind lists of runs on the command line and in the app."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from advisor.run_lock import Writer, living_writer, read_writer
from advisor.run_log import read_log
from advisor.run_manifest import MANIFEST_NAME
from advisor.runs import EVENTS_NAME, RunDirectory, is_run
from estimators.files import read_json

State = Literal["new", "running", "interrupted", "failed", "finished", "damaged"]

STAGES = {
    "probe": "probe_data.json",
    "recommend": "recommendation.json",
    "train": "experts",
    "merge": "merged/model.safetensors",
    "validate": "validation.json",
    "report": "report.json",
}
LAST_BYTES = 1 << 14
END_STATES: dict[str, State] = {"finished": "finished", "failed": "failed", "interrupted": "interrupted"}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSummary:
    """One line of a list of runs.

    Attributes:
        id: folder name.
        path: the folder.
        label: name to show.
        project: name of its project.
        state: what the run is doing or how its last command ended; killed counts as interrupted.
        stages: steps whose results are there, in order.
        created: when, ISO 8601; empty where unknown.
        updated: when the last event or heartbeat was, ISO 8601; empty where unknown.
        writer: the living process that writes to it.
        message: why it failed, was interrupted or is damaged; empty otherwise.
    """

    id: str
    path: Path
    label: str
    project: str
    state: State
    stages: tuple[str, ...]
    created: str
    updated: str
    writer: Writer | None
    message: str = ""

    @property
    def is_complete(self) -> bool:
        """Whether the whole path up to the report is there."""
        return self.state == "finished" and set(STAGES) <= set(self.stages)


def list_runs(root: Path | str) -> tuple[RunSummary, ...]:
    """All runs in a folder, newest first; a run that cannot be read is listed as damaged."""
    folder = Path(root)
    if not folder.is_dir():
        return ()
    runs = [path for path in folder.iterdir() if is_run(path) and not path.is_symlink()]
    return tuple(sorted((summarise(path) for path in runs), key=lambda run: (run.created, run.id), reverse=True))


def summarise(path: Path | str) -> RunSummary:
    """The summary of one run directory."""
    folder = Path(path)
    try:
        run = RunDirectory.open(folder)
        manifest = folder / MANIFEST_NAME
        if manifest.exists():
            read_json(manifest)
    except ValueError as error:
        return RunSummary(
            id=folder.name,
            path=folder,
            label=folder.name,
            project="",
            state="damaged",
            stages=_stages(folder),
            created="",
            updated=_updated(folder),
            writer=living_writer(folder),
            message=str(error),
        )
    state, message = _state(folder)
    return RunSummary(
        id=run.id,
        path=folder,
        label=run.label,
        project=str(run.about.get("project", "")),
        state=state,
        stages=_stages(folder),
        created=str(run.about.get("created", "")),
        updated=_updated(folder),
        writer=living_writer(folder),
        message=message,
    )


def runs_of_project(root: Path | str, project_text: str) -> tuple[RunSummary, ...]:
    """Runs of the same project, newest first.

    Args:
        root: folder of runs.
        project_text: content of ``project.yaml`` as a run stores it.
    """

    def is_of(run: RunSummary) -> bool:
        stored = run.path / "project.yaml"
        return stored.is_file() and stored.read_text(encoding="utf-8", errors="replace") == project_text

    return tuple(run for run in list_runs(root) if is_of(run))


def _state(folder: Path) -> tuple[State, str]:
    if living_writer(folder) is not None:
        return "running", ""
    last = _last_event(folder)
    if last is None:
        return "new", ""
    state = END_STATES.get(str(last.get("kind")))
    if state is not None:
        return state, "" if state == "finished" else str(last.get("text", ""))
    writer = read_writer(folder)
    who = writer.describe() if writer is not None else "its process"
    return "interrupted", f"{who} ended without a word (killed, or the machine stopped)"


def _last_event(folder: Path) -> dict[str, Any] | None:
    """The last event that says how a command ended, or any event behind it."""
    path = folder / EVENTS_NAME
    size = path.stat().st_size if path.exists() else 0
    # a long run's log is long and looked at often: its end is enough, unless no whole record lies in it
    records = read_log(path, start=max(0, size - LAST_BYTES)).records or read_log(path).records
    return records[-1] if records else None


def _stages(folder: Path) -> tuple[str, ...]:
    return tuple(stage for stage, name in STAGES.items() if _is_there(folder / name))


def _is_there(path: Path) -> bool:
    return any(path.glob("*.safetensors")) if path.is_dir() else path.is_file()


def _updated(folder: Path) -> str:
    times = []
    for name in (EVENTS_NAME, "heartbeat", "run.json"):
        path = folder / name
        if path.exists():
            times.append(path.stat().st_mtime)
    return datetime.fromtimestamp(max(times), UTC).isoformat(timespec="seconds") if times else ""
