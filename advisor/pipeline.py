"""The path on one screen: project -> constants -> probes -> risk model -> advice -> experts -> merge -> validation.

Each stage is done once and kept in the run directory; asked again, it returns what is stored.  A stage that fails or is
stopped leaves everything before it in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advisor.advice import Recommendation, Validation
from advisor.observations import ProbeData
from advisor.workspace import (
    CONSTANTS_NAME,
    RANGE_TEST_NAME,
    VALIDATION_NAME,
    Workspace,
    open_workspace,
)

if TYPE_CHECKING:
    from advisor.project import Project
    from estimators.constants import Constants

PROBE_DATA_NAME = "probe_data.json"
MODEL_NAME = "risk_model.json"
RECOMMENDATION_NAME = "recommendation.json"
MERGED_NAME = "merged/model.safetensors"
REPORT_NAME = "report.json"


def advise(source: Project | Path | str, out: Path | str | None = None, **options: object) -> Recommendation:
    """From a project to advice; options as in :func:`open_workspace`."""
    ws = open_workspace(source, out, **options)  # type: ignore[arg-type]
    with ws.session("advise"):
        return recommend(ws)


def run_all(ws: Workspace) -> Validation:
    """Advice, experts, merge, validation and report."""
    with ws.session("run"):
        recommend(ws)
        train(ws)
        merge(ws)
        validation = validate(ws)
        report(ws)
    return validation


def measure(ws: Workspace) -> Constants:
    """Constants of the bound at x_0, and the learning-rate range test."""
    from advisor.measuring import measure_project, range_test_project
    from estimators.constants import Constants

    with ws.session("measure"):
        if not ws.run.has(CONSTANTS_NAME):
            ws.run.write_json(CONSTANTS_NAME, measure_project(ws))
        if not ws.run.has(RANGE_TEST_NAME):
            ws.run.write_json(RANGE_TEST_NAME, range_test_project(ws))
    return Constants.from_json(ws.run.read_json(CONSTANTS_NAME)["constants"])


def probe(ws: Workspace) -> ProbeData:
    """Short fine-tunes of every task and their merges."""
    from advisor.measuring import probe_project

    with ws.session("probe"):
        if not ws.run.has(PROBE_DATA_NAME):
            ws.run.write_json(PROBE_DATA_NAME, probe_project(ws, measure(ws)).to_json())
    return ProbeData.from_json(ws.run.read_json(PROBE_DATA_NAME))


def recommend(ws: Workspace, *, refit: bool = False) -> Recommendation:
    """Fit the risk model and search it; ``refit`` adds the validation figures of merges that were measured."""
    from advisor.deciding import decide

    with ws.session("recommend"):
        probes = probe(ws)
        if refit or not ws.run.has(RECOMMENDATION_NAME):
            model, recommendation = decide(ws, probes, refit=refit)
            ws.run.write_json(MODEL_NAME, model.to_json())
            ws.run.write_json(RECOMMENDATION_NAME, recommendation.to_json())
    return Recommendation.from_json(ws.run.read_json(RECOMMENDATION_NAME))


def refit(ws: Workspace) -> Recommendation:
    """Advice again, sharpened by what was measured on validation data."""
    return recommend(ws, refit=True)


def train(ws: Workspace) -> dict[str, Path]:
    """The advised experts."""
    from advisor.experts import train_experts, weights_name

    with ws.session("train"):
        recommendation = recommend(ws)
        train_experts(ws, recommendation)
    return {name: ws.run.path_of(weights_name(name)) for name in recommendation.plan.names}


def merge(ws: Workspace) -> Path:
    """The merge of the advised experts."""
    from advisor.experts import merge_experts, train_experts

    with ws.session("merge"):
        recommendation = recommend(ws)
        merge_experts(ws, recommendation, train_experts(ws, recommendation))
    return ws.run.path_of(MERGED_NAME)


def validate(ws: Workspace) -> Validation:
    """Predicted against measured on test data, beside what a user would have done without advice."""
    from advisor.experts import merge_experts, train_experts
    from advisor.validating import validate_advice

    with ws.session("validate"):
        recommendation = recommend(ws)
        identity = {"plan": recommendation.plan.to_json()}
        if ws.run.has(VALIDATION_NAME) and ws.run.read_json(VALIDATION_NAME)["identity"] != identity:
            ws.run.discard(VALIDATION_NAME)  # it belongs to an earlier advice
        if not ws.run.has(VALIDATION_NAME):
            experts = train_experts(ws, recommendation)
            merged = merge_experts(ws, recommendation, experts)
            with ws.spending("validation") as spending:
                validation = validate_advice(ws, recommendation, merged, experts)
                spending.meter.add_units("validation", sum(validation.cost.values()))
            stored = {"validation": validation.to_json(), "identity": identity, "spent": spending.spent()}
            ws.run.write_json(VALIDATION_NAME, stored)
    return Validation.from_json(ws.run.read_json(VALIDATION_NAME)["validation"])


def report(ws: Workspace) -> Path:
    """report.json, report.md and report.html of what the run holds so far."""
    from advisor.reporting import write_workspace_report

    with ws.session("report"):
        return write_workspace_report(ws, probe(ws), recommend(ws))
