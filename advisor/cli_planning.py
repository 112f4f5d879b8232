"""What would be done and what it would cost: ``--dry-run`` and ``check``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advisor.cli_running import RunOptions, load
from advisor.cli_shell import Shell
from advisor.report_sections import Section, Table
from advisor.wording import count_text

if TYPE_CHECKING:
    from advisor.planned_cost import PlannedCost
    from advisor.surveying import Survey


def show_planned_cost(shell: Shell, command: str, source: Path, wanted: RunOptions) -> None:
    """Print what a command would do; the project, its data and the device are checked, nothing is written."""
    from advisor.planned_cost import plan_cost, seconds_per_unit
    from advisor.surveying import survey

    project, run = load(source, seed=wanted.seed)
    if run is None and wanted.out is not None:
        run = load(wanted.out)[1] if (wanted.out / "run.json").is_file() else None
    survey(project, device=wanted.device)
    planned = plan_cost(
        project,
        command,
        run=run,
        max_cost=wanted.max_cost,
        seconds_per_unit=seconds_per_unit(project, device=wanted.device),
    )
    shell.result(planned.to_json(), [planned_section(planned)])


def show_planned_import(shell: Shell, folder: Path) -> None:
    """Print what an import would read; every trace is checked but not yet against a project, nothing is written."""
    from estimators.trace_files import find_traces, read_trace

    traces = [read_trace(place) for place in find_traces(folder)]
    recipes = [trace.header.recipe.as_recipe() for trace in traces]
    rows = [
        (
            trace.folder.relative_to(folder).as_posix(),
            trace.header.task,
            recipe.describe(),
            str(len(trace.steps)),
            ", ".join(map(str, trace.header.checkpoints)),
        )
        for trace, (recipe, _) in zip(traces, recipes, strict=True)
    ]
    head = ("folder", "task", "recipe", "recorded steps", "checkpoints")
    found = [dict(zip(head, row, strict=True)) for row in rows]
    sentence = f"{len(rows)} runs; their merges are evaluated here, which costs forward passes only."
    notes = tuple(dict.fromkeys(note for _, said in recipes for note in said))
    section = Section(
        title="What would be imported",
        sentences=(sentence,),
        bullets=notes,
        tables=(Table(head=head, rows=tuple(rows)),),
    )
    shell.result({"runs": found, "notes": list(notes)}, [section])


def planned_section(planned: PlannedCost) -> Section:
    """The plan of a command."""
    rows = [
        (
            stage.name,
            "done" if stage.is_done else count_text(stage.units),
            "" if stage.is_done else f"{stage.units / planned.full_fine_tune:.2f}",
            stage.note,
        )
        for stage in planned.stages
    ]
    text = f"In all at most {count_text(planned.units)} per-sample gradients"
    if planned.minutes is not None:
        text += f", about {minutes_text(planned.minutes)} of gradients on this machine"
    return Section(
        title=f"What {planned.command} would do",
        sentences=(text + ".",),
        tables=(Table(head=("stage", "per-sample gradients", "full fine-tunes", "how counted"), rows=tuple(rows)),),
    )


def minutes_text(minutes: float) -> str:
    """Estimated minutes.

    >>> minutes_text(0.01), minutes_text(12.34), minutes_text(600)
    ('0.1 minutes', '12.3 minutes', '10.0 hours')
    """
    return f"{minutes / 60:.1f} hours" if minutes >= 120 else f"{max(minutes, 0.1):.1f} minutes"


def survey_section(found: Survey) -> Section:
    """What a project's data, device and backbone look like."""
    rows = [
        (
            name,
            task.data,
            str(len(task.classes)),
            str(task.train),
            str(task.validation),
            str(task.test),
            ", ".join(task.given) or "cut here",
        )
        for name, task in found.tasks.items()
    ]
    return Section(
        title="The project can be run",
        sentences=(f"Device {found.device}, {found.inputs}.",),
        bullets=found.notes,
        tables=(Table(head=("task", "data", "classes", "train", "validation", "test", "splits"), rows=tuple(rows)),),
    )
