"""The path on one screen: project -> constants -> probes -> risk model -> advice -> experts -> merge -> validation.

Each stage is done once and kept in the run directory; asked again, it returns what is stored.  A stage that fails or is
stopped leaves everything before it in place.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from advisor.advice import Recommendation, Validation
from advisor.observations import MergeObservation, ProbeData
from advisor.run_reading import read_value
from advisor.workspace import (
    CONSTANTS_NAME,
    PROBES_NAME,
    RANGE_TEST_NAME,
    VALIDATION_NAME,
    Workspace,
    open_workspace,
)

if TYPE_CHECKING:
    from torch import Tensor

    from advisor.project import Project
    from estimators.constants import Constants

PROBE_DATA_NAME = "probe_data.json"
RECOMMENDATION_NAME = "recommendation.json"
MERGED_NAME = "merged/model.safetensors"
REPORT_NAME = "report.json"
REFIT_PURPOSE = "refits"  # measuring merges of trained experts on validation data


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
    from advisor.least_budget import require_budget
    from advisor.measuring import measure_project, range_test_project
    from advisor.unfinished import clear_unfinished
    from estimators.constants import Constants

    with ws.session("measure"):
        if not ws.run.has(CONSTANTS_NAME):
            require_budget(ws.project, ws.max_cost)
            measure_project(ws)
        if not ws.run.has(RANGE_TEST_NAME):
            range_test_project(ws)
        for kind in ("constants", "range test"):
            clear_unfinished(ws, kind)
    return read_value(ws.run, CONSTANTS_NAME, lambda stored: Constants.from_json(stored["constants"]))


def probe(ws: Workspace) -> ProbeData:
    """Short fine-tunes of every task and their merges."""
    from advisor.measuring import probe_project

    with ws.session("probe"):
        constants = measure(ws)
        if not ws.run.has(PROBE_DATA_NAME) or ws.run.condition(PROBES_NAME) in ("damaged", "absent"):
            data = probe_project(ws, constants)
            ws.run.record(PROBES_NAME)
            ws.run.write_json(PROBE_DATA_NAME, data.to_json())
    return read_value(ws.run, PROBE_DATA_NAME, ProbeData.from_json)


def import_traces(ws: Workspace, folder: Path | str) -> ProbeData:
    """Runs that were trained elsewhere as probes, beside those that are there; advice on fewer probes is dropped."""
    from advisor.fitted_model import MODEL_NAME
    from advisor.importing import import_probes

    with ws.session("probe"):
        data, is_new = import_probes(ws, Path(folder), measure(ws))
        if is_new or not ws.run.has(PROBE_DATA_NAME):
            ws.run.record(PROBES_NAME)
            ws.run.write_json(PROBE_DATA_NAME, data.to_json())
            for name in (RECOMMENDATION_NAME, MODEL_NAME):
                ws.run.discard(name)
    return read_value(ws.run, PROBE_DATA_NAME, ProbeData.from_json)


def recommend(ws: Workspace, *, refit: bool = False) -> Recommendation:
    """Fit the risk model and search it; ``refit`` adds what was measured on full merges since.

    The advice is made anew where the project's objective, search or merge changed.  A stored model that is missing or
    of another version is fitted again from the stored probes; the advice stays.
    """
    from advisor.deciding import asked, decide, is_outdated, measured_merges
    from advisor.fitted_model import MODEL_NAME, store_merges, stored_merges

    with ws.session("recommend"):
        probes = probe(ws)
        stored = ws.run.read_json(RECOMMENDATION_NAME) if ws.run.has(RECOMMENDATION_NAME) else None
        if refit or stored is None or is_outdated(stored, asked(ws)):
            merges = stored_merges(ws.run)
            spent = {"units": ws.costs().get(REFIT_PURPOSE, 0.0), "seconds": ws.seconds().get(REFIT_PURPOSE, 0.0)}
            if refit:
                with ws.spending(REFIT_PURPOSE) as spending:
                    merges = _joined(merges, measured_merges(ws, probes, merges, spending.meter))
                spent = {key: spent[key] + value for key, value in spending.spent()[REFIT_PURPOSE].items()}
            model, recommendation = decide(ws, probes, merges)
            store_merges(ws.run, merges, {REFIT_PURPOSE: spent})
            if model is None:
                ws.run.discard(MODEL_NAME)
            else:
                ws.run.write_json(MODEL_NAME, model.to_json())
            ws.run.write_json(RECOMMENDATION_NAME, recommendation.to_json() | {"asked": asked(ws)})
        else:
            _mend_model(ws)
    return read_value(ws.run, RECOMMENDATION_NAME, Recommendation.from_json)


def _joined(known: tuple[MergeObservation, ...], new: tuple[MergeObservation, ...]) -> tuple[MergeObservation, ...]:
    plans = [merge.plan for merge in known]
    return known + tuple(merge for merge in new if merge.plan not in plans)


def _mend_model(ws: Workspace) -> None:
    """Write the risk model again where it is missing or of another version and the probes allow one."""
    from advisor.fitted_model import MODEL_NAME, load_fitted
    from advisor.probe_checks import ProbesDiverged, TooFewProbes

    try:
        fitted = load_fitted(ws.run, ws.project)
    except (ProbesDiverged, TooFewProbes):  # that is why the advice is refused
        return
    if fitted.refitted:
        ws.run.write_json(MODEL_NAME, fitted.model.to_json())
        ws.run.event("model_refitted", why=fitted.refitted)


def refit(ws: Workspace) -> Recommendation:
    """Advice again, sharpened by what was measured on validation data and by experts that diverged."""
    return recommend(ws, refit=True)


def train(ws: Workspace) -> dict[str, Path]:
    """The advised experts."""
    from advisor.experts import weights_name

    with ws.session("train"):
        recommendation, _ = _trained(ws)
    return {name: ws.run.path_of(weights_name(name)) for name in recommendation.plan.names}


def _trained(ws: Workspace) -> tuple[Recommendation, dict[str, Tensor]]:
    """Advice and its experts; an expert that diverges is learned from, and the advice made again.

    Raises:
        AdviceWithdrawn: if nothing can be advised any more.
        ExpertDiverged: if advice after advice diverges.
    """
    from advisor.diverging import MOST_RETRIES, AdviceWithdrawn, note_divergence
    from advisor.experts import ExpertDiverged, train_experts

    recommendation = recommend(ws)
    for attempt in range(1 + MOST_RETRIES):
        try:
            return recommendation, train_experts(ws, recommendation)
        except ExpertDiverged as error:
            note_divergence(ws, recommendation.plan)
            if attempt == MOST_RETRIES:
                raise
            was_refused = recommendation.status == "refuse"
            recommendation = recommend(ws, refit=True)
            if recommendation.status == "refuse" and not was_refused:
                raise AdviceWithdrawn(f"{error}.  With that known the advice is: {recommendation.sentence}") from error
    raise AssertionError("unreachable")


def merge(ws: Workspace) -> Path:
    """The merge of the advised experts."""
    from advisor.experts import merge_experts

    with ws.session("merge"):
        recommendation, experts = _trained(ws)
        merge_experts(ws, recommendation, experts)
    return ws.run.path_of(MERGED_NAME)


def validate(ws: Workspace) -> Validation:
    """Predicted against measured on test data, beside what a user would have done without advice."""
    from advisor.experts import merge_experts
    from advisor.unfinished import clear_unfinished, unfinished
    from advisor.validating import validate_advice

    with ws.session("validate"):
        recommendation, experts = _trained(ws)
        identity = {"plan": recommendation.plan.to_json()}
        if ws.run.has(VALIDATION_NAME) and ws.run.read_json(VALIDATION_NAME)["identity"] != identity:
            ws.run.discard(VALIDATION_NAME)  # it belongs to an earlier advice
        if not ws.run.has(VALIDATION_NAME):
            merged = merge_experts(ws, recommendation, experts)
            with ws.spending("validation") as spending, unfinished(ws, "validation", spending) as kept:
                validation = validate_advice(ws, recommendation, merged, experts, kept)
                spending.meter.add_units("validation", sum(validation.cost.values()))
                stored = {"validation": validation.to_json(), "identity": identity, "spent": spending.spent()}
                ws.run.write_json(VALIDATION_NAME, stored)
        clear_unfinished(ws, "validation")
    return read_value(ws.run, VALIDATION_NAME, lambda stored: Validation.from_json(stored["validation"]))


def report(ws: Workspace) -> Path:
    """report.json, report.md and report.html of what the run holds so far."""
    from advisor.reporting import write_workspace_report

    with ws.session("report"):
        return write_workspace_report(ws, probe(ws), recommend(ws))
