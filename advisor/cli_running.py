r"""Commands on a run: find or make it, do stages with progress, and say how to go on when stopped."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli_shell import BAD_INPUT, Shell, explain
from advisor.interrupts import RunInterrupted
from advisor.progress import both, shown_progress, silent
from advisor.run_listing import runs_of_project, summarise
from advisor.run_lock import RunBusy
from advisor.runs import RunDirectory, is_run

if TYPE_CHECKING:
    from advisor.engine import EngineSettings
    from advisor.project import Project
    from advisor.workspace import Workspace

RUNS_ROOT = Path("runs")
MEASURED = ("constants.json", "probes.jsonl", "recommendation.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """Options of commands that work on a run; as in ``merge-advisor run --help``."""

    out: Path | None = None
    max_cost: float | None = None
    time_limit: float | None = None
    device: str | None = None
    seed: int | None = None
    skip_unreadable: bool = False
    is_new: bool = False
    engine: EngineSettings | None = None
    storage: str | None = None


@contextmanager
def opened(shell: Shell, command: str, source: Path, options: RunOptions) -> Iterator[Workspace]:
    """The workspace of a project file or run directory, as its one writer, with progress shown.

    A run that this command made and that holds nothing measured yet goes away again when the input is bad.
    """
    from advisor.workspace import open_workspace

    out = options.out if options.out is not None else _run_to_continue(shell, source, options)
    there = _existing(out if out is not None else source)
    kept_folder = out is not None and out.is_dir()
    ws = open_workspace(
        source,
        out,
        device=options.device,
        seed=options.seed,
        max_cost=options.max_cost,
        time_limit=options.time_limit,
        allow_unreadable=options.skip_unreadable,
        engine=options.engine,
        storage=options.storage,
    )
    hint = f"merge-advisor {command} {shlex.quote(str(ws.run.path))}"
    try:
        if there is not None:
            _say_what_is_there(shell, ws.run)
        with (
            resume_hint(hint),
            shown_progress(shell.err, quiet=shell.is_quiet or shell.as_json) as shown,
            ws.session(command),
        ):
            ws.progress = both(ws.progress, shown)
            yield ws
    except Exception as error:
        if there is None and explain(error)[0] == BAD_INPUT and not any(map(ws.run.has, MEASURED)):
            _take_back(ws.run, keep_folder=kept_folder)
        raise
    finally:
        ws.progress = silent


@contextmanager
def resume_hint(command: str) -> Iterator[None]:
    """Say in an interruption which command goes on."""
    try:
        yield
    except (KeyboardInterrupt, RunInterrupted) as error:
        why = str(error) or "interrupted; everything that was finished is kept"
        raise RunInterrupted(f"{why}; go on with: {command}") from error


def load(source: Path, *, seed: int | None = None) -> tuple[Project, RunDirectory | None]:
    """The project of a project file or of a run directory, and that run."""
    from advisor.project import load_project

    if is_run(source):
        run = RunDirectory.open(source)
        return load_project(run.require("project.yaml")), run
    project = load_project(source)
    if seed is not None and seed != project.seed:
        origin = project._origin
        project = project.model_copy(update={"seed": seed})
        project._origin = origin
    return project, None


def open_run(source: Path) -> RunDirectory:
    """A run by its path, or by its id below ``runs/``."""
    if not is_run(source) and len(source.parts) == 1 and is_run(RUNS_ROOT / source):
        return RunDirectory.open(RUNS_ROOT / source)
    return RunDirectory.open(source)


def _run_to_continue(shell: Shell, source: Path, options: RunOptions) -> Path | None:
    """The newest unfinished run of the same project: running a command again continues it."""
    if options.is_new or is_run(source):
        return None
    text = load(source, seed=options.seed)[0].to_yaml(moved=True)
    for summary in runs_of_project(RUNS_ROOT, text):
        if summary.state == "running":
            who = summary.writer.describe() if summary.writer is not None else "another process"
            raise RunBusy(
                f"run={summary.id!r} of this project is being written by {who}; wait for it, stop it with "
                f"merge-advisor stop {summary.path}, or start another one with --new"
            )
        if not summary.is_complete and summary.state != "damaged":
            shell.say(f"Going on with run {summary.path} ({summary.state}); --new starts another one.")
            return summary.path
    return None


def _existing(path: Path) -> Path | None:
    return path if is_run(path) else None


def _say_what_is_there(shell: Shell, run: RunDirectory) -> None:
    damaged = run.damaged()
    if damaged:
        shell.say(f"Damaged and made again: {', '.join(damaged)}; everything else is kept.")
    stages = summarise(run.path).stages
    if stages:
        shell.say(f"Already there in {run.path}: {', '.join(stages)}.")


def _take_back(run: RunDirectory, *, keep_folder: bool) -> None:
    shutil.rmtree(run.path, ignore_errors=True)
    if keep_folder:
        run.path.mkdir(exist_ok=True)
