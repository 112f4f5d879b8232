"""``predict``: risk of plans that nobody has trained, from the risk model of a run."""

from __future__ import annotations

import csv
import io
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advisor import cli_options as options
from advisor.cli_running import load, open_run
from advisor.cli_shell import Shell
from advisor.plans_csv import PlanRow, read_plans
from advisor.report_sections import Section, Table
from advisor.run_reading import read_value
from advisor.wording import elasticity_text, interval_text, risk_text

if TYPE_CHECKING:
    from advisor.advice import Predicted
    from advisor.runs import RunDirectory
    from advisor.what_if import WhatIf


def predict(
    run_path: options.Run,
    plans: Annotated[
        Path | None,
        typer.Argument(
            help="CSV: learning_rate, batch_size, steps, optimizer, momentum, schedule, num_samples, coefficient, each "
            "also as <field>_<task>; method; label.  Without it: the advised plan.",
            metavar="[PLANS.CSV]",
        ),
    ] = None,
    elasticities: Annotated[
        bool, typer.Option("--elasticities", help="What ten per cent more of each knob would do to each plan.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="The result as CSV on standard output.")] = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Predict the risk of plans for each task and the goal, with intervals; nothing is trained."""
    shell = Shell(as_json=as_json, is_quiet=quiet)
    run = open_run(run_path)
    ask = fitted(run, shell)
    rows = _rows(run, plans, ask)
    found = predictions(ask, rows, elasticities=elasticities)
    if as_csv and not as_json:
        sys.stdout.write(as_table(found))
        return
    shell.result({"run": str(run.path), "plans": found}, [_section(found), *_elasticity_sections(found)])


def fitted(run: RunDirectory, shell: Shell) -> WhatIf:
    """The fitted risk model of a run under its project's goal; fitted again, and said, where the stored one is no use.

    Raises:
        ArtefactMissing: if the run has no advice yet.
    """
    from advisor.fitted_model import load_fitted
    from advisor.goal import Goal
    from advisor.what_if import WhatIf

    project, _ = load(run.path)
    objective = project.objective
    goal = Goal(weights=project.task_weights(), kind=objective.goal, max_drop=objective.max_drop)
    found = load_fitted(run, project)
    if found.refitted:
        shell.say(f"{found.refitted}: the model was fitted again from the run's probes.")
    return WhatIf(model=found.model, goal=goal)


def _rows(run: RunDirectory, plans: Path | None, ask: WhatIf) -> tuple[PlanRow, ...]:
    if plans is not None:
        return read_plans(plans, ask.model.constants_.num_samples)
    from advisor.advice import Recommendation

    advice = read_value(run, "recommendation.json", Recommendation.from_json)
    return (PlanRow(line=0, label="advised plan", plan=advice.plan),)


def predictions(ask: WhatIf, rows: tuple[PlanRow, ...], *, elasticities: bool) -> list[dict[str, Any]]:
    """One plain value a plan."""
    from advisor.advice import Predicted

    plans = [row.plan for row in rows]
    prediction = ask.predict(plans)
    found: list[dict[str, Any]] = []
    for m, (row, goal) in enumerate(zip(rows, ask.goals(plans), strict=True)):
        tasks = {
            name: {
                "value": float(prediction.task_risk[m, j]),
                "low": float(prediction.task_low[m, j]),
                "high": float(prediction.task_high[m, j]),
            }
            for j, name in enumerate(prediction.names)
        }
        value: dict[str, Any] = {
            "label": row.label,
            "line": row.line,
            "goal": {"value": goal.value, "low": goal.low, "high": goal.high},
            "tasks": tasks,
            "extrapolation": math.exp(float(prediction.extrapolation[m])),
            "plan": row.plan.to_json(),
        }
        if elasticities:
            value["elasticities"] = {
                knob: vars_of(Predicted(value=v, low=low, high=high))
                for knob, (v, low, high) in ask.model.elasticities(row.plan).items()
            }
        found.append(value)
    return found


def vars_of(cell: Predicted) -> dict[str, float]:
    """A prediction as plain values."""
    return {"value": cell.value, "low": cell.low, "high": cell.high}


def as_table(found: list[dict[str, Any]]) -> str:
    """Predictions as CSV: label, goal, goal_low, goal_high, then the same for each task, extrapolation."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    tasks = list(found[0]["tasks"])
    ends = ("", "_low", "_high")
    writer.writerow(["label", *(f"{name}{end}" for name in ("goal", *tasks) for end in ends), "extrapolation"])
    for plan in found:
        cells = [plan["goal"], *(plan["tasks"][task] for task in tasks)]
        numbers = [cell[key] for cell in cells for key in ("value", "low", "high")]
        writer.writerow([plan["label"], *(f"{number:.6g}" for number in numbers), f"{plan['extrapolation']:.4g}"])
    return stream.getvalue()


def _section(found: list[dict[str, Any]]) -> Section:
    from advisor.advice import Predicted

    tasks = list(found[0]["tasks"])
    rows = tuple(
        (
            plan["label"],
            risk_text(plan["goal"]["value"]),
            interval_text(Predicted(**plan["goal"])),
            *(risk_text(plan["tasks"][task]["value"]) for task in tasks),
            f"{plan['extrapolation']:.1f}x",
        )
        for plan in found
    )
    return Section(
        title="Predicted risk",
        sentences=(
            "Cross-entropy in nats, 90 % predictive interval of the goal; the last column says how far beyond the "
            "probes a plan lies (1x: inside).",
        ),
        tables=(Table(head=("plan", "goal", "90 % interval", *tasks, "beyond"), rows=rows),),
    )


def _elasticity_sections(found: list[dict[str, Any]]) -> list[Section]:
    from advisor.advice import Predicted

    return [
        Section(
            title=f"Small changes around {plan['label']}",
            bullets=tuple(elasticity_text(knob, Predicted(**cell)) for knob, cell in plan["elasticities"].items()),
        )
        for plan in found
        if "elasticities" in plan
    ]
