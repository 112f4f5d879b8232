"""The report stage of a workspace: gather what the run holds and write report.json, report.md and report.html."""

from __future__ import annotations

from pathlib import Path

from advisor.advice import Recommendation, Validation
from advisor.curves import Knob, draw_curve
from advisor.fitted_model import load_fitted
from advisor.observations import ProbeData
from advisor.probe_checks import ProbesDiverged, TooFewProbes
from advisor.report import Report, write_report
from advisor.run_ids import program_version
from advisor.run_reading import read_value
from advisor.what_if import WhatIf
from advisor.workspace import VALIDATION_NAME, Workspace

KNOBS: tuple[Knob, ...] = ("learning_rate", "coefficient", "steps")
SAME = 1e-6  # relative difference of predictions that is rounding
MOST_NAMED = 6  # tasks named in a title; more are counted


def write_workspace_report(ws: Workspace, probes: ProbeData, recommendation: Recommendation) -> Path:
    """Write the report of everything that is there; returns the page's path."""
    ask = _fitted(ws)
    validation = (
        read_value(ws.run, VALIDATION_NAME, lambda stored: Validation.from_json(stored["validation"]))
        if ws.run.has(VALIDATION_NAME)
        else None
    )
    return write_report(
        ws.run,
        Report(
            title=title_of(ws),
            run_id=ws.run.id,
            recommendation=recommendation,
            constants=probes.constants,
            validation=validation,
            cost=ws.costs(),
            seconds=ws.seconds(),
            curves=() if ask is None else tuple(draw_curve(ask, recommendation.plan, knob) for knob in KNOBS),
            probes=probes,
            made_by=f"merge-advisor {program_version()}",
            remark="" if ask is None else other_model(ask, recommendation),
        ),
    )


def _fitted(ws: Workspace) -> WhatIf | None:
    """The run's model; ``None`` where its probes allow none, and the advice is refused."""
    try:
        return WhatIf(model=load_fitted(ws.run, ws.project).model, goal=ws.goal)
    except (ProbesDiverged, TooFewProbes):
        return None


def other_model(ask: WhatIf, recommendation: Recommendation) -> str:
    """A remark where the run's model is not the one that the advice was given by; empty where it is."""
    now = ask.goals([recommendation.plan])[0].value
    if abs(now - recommendation.goal.value) <= SAME * recommendation.goal.value:
        return ""
    return (
        f"Curves are of a risk model that was fitted again since: it predicts {now:.3f} for the advised plan, where "
        f"the advice says {recommendation.goal.value:.3f}."
    )


def title_of(ws: Workspace) -> str:
    """What the report is about: the name people gave the run, else tasks and backbone."""
    if ws.run.label != ws.run.id:
        return ws.run.label
    names = list(ws.project.tasks)
    tasks = ", ".join(names) if len(names) <= MOST_NAMED else f"{len(names)} tasks"
    return f"Merging {tasks} on {ws.project.backbone.name}"
