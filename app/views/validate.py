"""Validate: predicted against measured on test data, every contender, and whether the intervals are honest."""

from __future__ import annotations

import streamlit as st

from advisor import figures
from advisor.advice import Validation
from advisor.calibration import Calibration, calibrate
from advisor.figures.exploring import coverage_curve, predicted_measured_scatter
from advisor.report_sections import Table, validation_section
from advisor.runs import RunDirectory
from advisor.wording import VERDICT_SIGNS
from app import jobs, session
from app.frame import anyway, live, opened, way
from app.showing import figure, md, say, table

VERDICT_WORDS = {
    "interval": "Does the interval hold what was measured?",
    "gain": "Is the merge better than the pretrained model?",
    "baselines": "Is it better than defaults at equal cost?",
    "tasks": "Do the tasks' intervals hold?",
}


def page() -> None:
    """The whole page."""
    run = opened("Validate", "Predicted against measured on test data, which the advice never saw.")
    if run is None:
        return
    validation = session.validation_of(run)
    if validation is None:
        watched = live(run)
        st.info("Nothing is measured on test data yet.", icon=":material/info:")
        busy = watched.is_running or jobs.is_alive(run.path.parent, run.id)
        if "recommend" in watched.summary.stages and not busy:
            wanted = anyway(run)
            if st.button("Train, merge and validate", type="primary", disabled=wanted is None, key="validate"):
                jobs.go_on(run, anyway=bool(wanted))
                st.rerun()
        elif not busy:
            way("probe", "Go on with the probes")
    else:
        compared(validation)
    honest(run)
    if validation is not None:
        way("explore", "Try other settings")
        way("runs", "Export the report, compare runs")


def compared(validation: Validation) -> None:
    """Trust, figures and tables."""
    st.subheader("Can it be trusted?", anchor=False)
    for name, verdict, text in validation.verdicts:
        kind = {"pass": st.success, "warn": st.warning, "fail": st.error}[verdict]
        kind(f"**{VERDICT_SIGNS[verdict]} {verdict}** · {md(VERDICT_WORDS.get(name, name))}  \n{md(text)}")
    st.subheader("Predicted against measured", anchor=False)
    figure(figures.predicted_and_measured(validation), "predicted")
    part = validation_section(validation, with_notes=False)
    table(part.tables[0])
    figure(figures.compared_models(validation), "models")
    figure(figures.compared_models(validation, "accuracy"), "accuracies")
    table(part.tables[1])
    with st.expander("How each model was made"):
        rows = tuple((model.name, model.note) for model in validation.models)
        table(Table(head=("model", "how it was made"), rows=rows))


def honest(run: RunDirectory) -> None:
    """Coverage of intervals over every merge that was measured."""
    explorer, merges = session.explorer_of(run), session.merges_of(run)
    if explorer is None or not merges:
        return
    st.subheader("Calibration", anchor=False)
    found = _calibration(str(run.path), *session.stamp(run, "risk_model.json"), *session.stamp(run, "probe_data.json"))
    if found is None:
        st.caption("No merge was measured on every task.")
        return
    say(
        f"{100 * found.at_90:.0f} % of {len(found.measured)} measured merges of probes lie inside their 90 % interval. "
        "The model was fitted to these, so this can show intervals that are too narrow, not prove them wide enough; the"
        " test above can."
    )
    left, right = st.columns(2)
    with left:
        figure(coverage_curve(found), "coverage")
    with right:
        figure(predicted_measured_scatter(found), "scatter")


@st.cache_resource(max_entries=4, show_spinner="Comparing predictions with measurements")
def _calibration(path: str, written: int, size: int, probes_written: int, probes_size: int) -> Calibration | None:
    run = RunDirectory.open(path)
    explorer, merges = session.explorer_of(run), session.merges_of(run)
    assert explorer is not None
    return calibrate(explorer.ask_goal(), merges)


page()
