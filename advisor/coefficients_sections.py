"""Tuned coefficients as sections of a report: the choice, the risks, who disturbs whom, what to mind."""

from __future__ import annotations

from advisor.coefficients_result import MINIMISED, TunedCoefficients
from advisor.report_sections import Section, Table

SOURCE_WORDS = {
    "weights": "from weights alone",
    "unlabelled": "on unlabelled samples",
    "few labels": "on a few labels a class",
    "validation": "on validation labels",
}


def tuned_sections(tuned: TunedCoefficients) -> list[Section]:
    """What was chosen, what it rests on, and what follows."""
    how = SOURCE_WORDS[tuned.source]
    title = f"Coefficients chosen {how}"
    if tuned.merges:
        title += f", {tuned.merges} merges measured, {tuned.units:.0f} per-sample gradients"
    sections = [Section(title=title, sentences=tuned.verdicts, tables=(_coefficients(tuned), *_groups(tuned)))]
    if tuned.tasks:
        what = MINIMISED[tuned.source].capitalize()
        sections.append(Section(title=f"{what} of each task, in nats", tables=(_risks(tuned),)))
    sections.append(Section(title=_disturbance_title(tuned), tables=(_disturbance(tuned),)))
    if len(tuned.methods) > 1:
        rows = tuple((name.replace("_", " "), f"{goal:.4f}") for name, goal in tuned.methods.items())
        sections.append(
            Section(title="Operators", tables=(Table(title="", head=("method", "lowest goal"), rows=rows),))
        )
    if tuned.notes:
        sections.append(Section(title="To mind", bullets=tuned.notes))
    return sections


def _coefficients(tuned: TunedCoefficients) -> Table:
    rows = tuple(
        (
            name,
            f"{value:.3g}",
            f"{tuned.intervals[name][0]:.3g} to {tuned.intervals[name][1]:.3g}",
            "may stay out" if name in tuned.leave_out else "",
        )
        for name, value in tuned.coefficients.items()
    )
    return Table(
        title=f"method {tuned.method.replace('_', ' ')}", head=("expert", "coefficient", "90 % interval", ""), rows=rows
    )


def _groups(tuned: TunedCoefficients) -> tuple[Table, ...]:
    if not tuned.groups:
        return ()
    names = tuple(tuned.coefficients)
    rows = tuple((group, *(f"{cells[name]:.3g}" for name in names)) for group, cells in tuned.groups.items())
    return (Table(title="for each layer group", head=("layers", *names), rows=rows),)


def _risks(tuned: TunedCoefficients) -> Table:
    rows = tuple(
        (
            name,
            f"{task.initial:.3f}",
            f"{task.expert:.3f}",
            f"{task.measured:.3f}",
            f"{task.predicted.value:.3f} [{task.predicted.low:.3f}, {task.predicted.high:.3f}]",
            task.best_single,
        )
        for name, task in tuned.tasks.items()
    )
    head = ("task", "x₀", "own expert", "merge, measured", "merge, predicted on new samples", "best single expert")
    return Table(title="", head=head, rows=rows)


def _disturbance_title(tuned: TunedCoefficients) -> str:
    if tuned.source == "weights":
        return "Who moves whose weights: share of the movement that is not the task's own"
    return "Who hurts whom: nats that a task gains when an expert is left out (negative: it helps)"


def _disturbance(tuned: TunedCoefficients) -> Table:
    experts = tuple(tuned.coefficients)
    tasks = tuple(tuned.tasks) or experts
    rows = tuple(
        (task, *(f"{value:+.3f}" for value in cells))
        for task, cells in zip(tasks, tuned.disturbance.tolist(), strict=True)
    )
    return Table(title="", head=("task", *experts), rows=rows)
