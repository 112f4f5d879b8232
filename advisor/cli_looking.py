"""Commands that look, start or stop, but do no stage themselves: init, check, demo, app, runs and stop."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from advisor import cli_options as options
from advisor.cli_planning import planned_section, survey_section
from advisor.cli_running import RUNS_ROOT, load, open_run
from advisor.cli_shell import Shell
from advisor.report_sections import Section, Table, validation_section
from advisor.run_listing import list_runs

DEMO_ROOT = Path(".demo")
APP_OPTIONS = {
    "server.address": "127.0.0.1",
    "server.headless": "true",
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
}


def init(
    folders: Annotated[
        list[str], typer.Argument(help="Folders of class folders, folders of such folders, or builtin/digits-low.")
    ],
    out: Annotated[Path, typer.Option(help="The project file to write.", metavar="FILE")] = Path("project.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Look at folders of images, or at texts, and write a project file for them."""
    from advisor import initialising

    shell = Shell(as_json=as_json, is_quiet=quiet)
    path = initialising.init(folders, out, overwrite=force)
    said = f"Wrote {path}; look it over, then: merge-advisor check {path}"
    shell.result({"project": str(path)}, [Section(title="Project", sentences=(said,))])


def check(
    source: options.Source,
    max_cost: options.MaxCost = None,
    device: options.Device = None,
    seed: options.Seed = None,
    timing: Annotated[
        bool, typer.Option("--timing/--no-timing", help="Whether to time a few training steps for the estimate.")
    ] = True,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Check project file, data, device and checkpoint, and say what a run would cost; nothing is written."""
    from advisor.least_budget import require_budget
    from advisor.planned_cost import plan_cost, seconds_per_unit
    from advisor.surveying import survey, survey_json

    shell = Shell(as_json=as_json, is_quiet=quiet)
    project, run = load(source, seed=seed)
    found = survey(project, device=device)
    require_budget(project, max_cost)
    planned = plan_cost(
        project,
        "run",
        run=run,
        max_cost=max_cost,
        seconds_per_unit=seconds_per_unit(project, device=device) if timing else None,
    )
    sections = [survey_section(found), planned_section(planned)]
    value: dict[str, Any] = {"survey": survey_json(found), "cost": planned.to_json()}
    if run is not None:
        value["damaged"] = list(run.damaged())
        text = (
            f"Damaged, made again by the next command: {', '.join(run.damaged())}." if run.damaged() else "All whole."
        )
        sections.append(Section(title=f"Run {run.id}", sentences=(text,)))
    shell.result(value, sections)


def demo(
    out: Annotated[Path, typer.Option(help="The demo's folder; a second demo goes on there.")] = DEMO_ROOT,
    seed: Annotated[int, typer.Option(help="Seed of splits, probes, search and experts.", min=0)] = 0,
    time_limit: options.TimeLimit = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Run the whole path on real data: digit tasks and a small ResNet pre-trained on other digits."""
    from advisor import cli_stages
    from advisor.cli_running import resume_hint
    from advisor.demo import run_demo
    from advisor.pipeline import recommend
    from advisor.progress import shown_progress

    shell = Shell(as_json=as_json, is_quiet=quiet)
    hint = f"merge-advisor demo --out {out} --seed {seed}"
    with resume_hint(hint), shown_progress(shell.err, quiet=quiet or as_json) as progress:
        ws, validation = run_demo(out, seed=seed, progress=progress, time_limit=time_limit)
    advice = recommend(ws)
    cli_stages.show_advice(shell, advice)
    value = {
        "run": str(ws.run.path),
        "recommendation": advice.to_json(),
        "validation": validation.to_json(),
        "report": str(ws.run.path / "report.html"),
    }
    shell.result(value, [validation_section(validation, with_notes=False), cli_stages.costs_of(ws, advice)])
    shell.say(f"Report: {ws.run.path / 'report.html'}")


def runs(
    root: Annotated[Path, typer.Argument(help="Folder of runs.")] = RUNS_ROOT,
    as_json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """List runs: what each is doing and how far it has come."""
    shell = Shell(as_json=as_json)
    found = list_runs(root)
    rows = tuple(
        (run.id, run.project, run.state, ", ".join(run.stages), run.updated[:19].replace("T", " "), run.message)
        for run in found
    )
    head = ("run", "project", "state", "stages done", "last sign, UTC", "why")
    value = [
        {
            "id": run.id,
            "path": str(run.path),
            "project": run.project,
            "state": run.state,
            "stages": list(run.stages),
            "updated": run.updated,
            "message": run.message,
        }
        for run in found
    ]
    text = () if found else (f"{root} holds no runs; begin with: merge-advisor run project.yaml",)
    shell.result(value, [Section(title="Runs", sentences=text, tables=(Table(head=head, rows=rows),))])


def stop(run_path: options.Run, quiet: options.Quiet = False, debug: options.Debug = False) -> None:
    """Ask the process that writes to a run to stop within one training step; everything is kept."""
    run = open_run(run_path)
    writer = run.writer()
    if writer is None:
        raise ValueError(f"run={run.id!r} is not being written by any living process; there is nothing to stop")
    run.request_stop("merge-advisor stop")
    Shell(is_quiet=quiet).say(f"Asked {writer.describe()} to stop; go on later with: merge-advisor run {run.path}")


def app(
    run_path: Annotated[
        Path | None, typer.Argument(help="A run directory, or the id of one below runs/.", metavar="[RUN]")
    ] = None,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", min=1, max=65535)] = 8501,
    debug: options.Debug = False,
) -> None:
    """Open the app in a browser: explore, decide, run.  It listens on 127.0.0.1 alone."""
    raise typer.Exit(subprocess.call(app_command(None if run_path is None else open_run(run_path).path, port=port)))


def app_command(run: Path | None, *, port: int) -> list[str]:
    """The command line that starts the app; safe settings are given here too, whatever the working directory holds."""
    found = find_spec("app")  # by name: this package imports no page
    places = [] if found is None else list(found.submodule_search_locations or [])
    entry = Path(*places[:1], "main.py")
    if not (places and entry.is_file()):
        raise ValueError(f"app={str(entry)!r} is not installed; install merge-advisor again")
    settings = [f"--{name}={value}" for name, value in {**APP_OPTIONS, "server.port": port}.items()]
    given = [] if run is None else ["--", str(run.resolve())]
    return [sys.executable, "-m", "streamlit", "run", str(entry), *settings, *given]
