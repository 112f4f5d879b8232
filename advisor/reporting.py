"""The report stage of a workspace: gather what the run holds and write report.json, report.md and report.html."""

from __future__ import annotations

from pathlib import Path

from advisor.advice import Recommendation, Validation
from advisor.curves import draw_curve
from advisor.observations import ProbeData
from advisor.report import Report, write_report
from advisor.risk_model import RiskModel
from advisor.run_ids import program_version
from advisor.what_if import WhatIf
from advisor.workspace import VALIDATION_NAME, Workspace

MODEL_NAME = "risk_model.json"


def write_workspace_report(ws: Workspace, probes: ProbeData, recommendation: Recommendation) -> Path:
    """Write the report of everything that is there; returns the page's path."""
    model = RiskModel.from_json(ws.run.read_json(MODEL_NAME))
    ask = WhatIf(model=model, goal=ws.goal)
    validation = (
        Validation.from_json(ws.run.read_json(VALIDATION_NAME)["validation"]) if ws.run.has(VALIDATION_NAME) else None
    )
    return write_report(
        ws.run,
        Report(
            title=ws.run.label,
            run_id=ws.run.id,
            recommendation=recommendation,
            constants=probes.constants,
            validation=validation,
            cost=ws.costs(),
            seconds=ws.seconds(),
            curves=(
                draw_curve(ask, recommendation.plan, "learning_rate"),
                draw_curve(ask, recommendation.plan, "coefficient"),
                draw_curve(ask, recommendation.plan, "steps"),
            ),
            probes=probes,
            made_by=f"merge-advisor {program_version()}",
        ),
    )
