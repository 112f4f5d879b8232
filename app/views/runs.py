"""Runs: list, open, compare, go on, rename, export, delete."""

from __future__ import annotations

import streamlit as st

from advisor.report_sections import Table
from advisor.run_listing import RunSummary, list_runs
from advisor.runs import RunDirectory
from advisor.wording import STATUS_WORDS, count_text, interval_text, risk_text
from app import jobs, session
from app.frame import anyway, failure_of_worker
from app.showing import STAGE_WORDS, md, state_text, table

SHOWN = 50
REPORT = "report.html"


def page() -> None:
    """The whole page."""
    st.title("Runs", anchor=False)
    st.caption("Everything that was started here or on the command line, newest first.")
    chosen = session.chosen()
    if chosen.problem:
        st.error(md(chosen.problem), icon=":material/error:")
    runs = [run for root in session.roots() for run in list_runs(root)]
    if not runs:
        st.info("There are no runs yet.", icon=":material/info:")
        st.page_link("views/set_up.py", label="Set up a project, or open the demo", icon=":material/arrow_forward:")
        return
    overview(runs[:SHOWN])
    if len(runs) > SHOWN:
        st.caption(f"{len(runs) - SHOWN} older runs are not listed.")
    by_id = {run.id: run for run in runs}
    one(picked(by_id, chosen.id))
    compare(by_id)


def picked(by_id: dict[str, RunSummary], chosen: str) -> RunSummary:
    """The run to do something with: the one picked here before, else the one in the address."""
    names = {run_id: f"{run.label} · {state_text(run.state)}" for run_id, run in by_id.items()}
    wanted = st.session_state.get("picked_run", chosen)
    index = list(names).index(wanted) if wanted in names else 0
    # the browser keeps the words of an option that is picked: another key once a name or state has changed
    key = f"picked:{hash(tuple(names.items()))}"
    found = str(st.selectbox("Run", list(names), index=index, format_func=names.__getitem__, key=key))
    st.session_state["picked_run"] = found
    return by_id[found]


def overview(runs: list[RunSummary]) -> None:
    """The list."""
    rows = tuple(
        (
            run.label,
            run.project,
            state_text(run.state),
            ", ".join(STAGE_WORDS[stage] for stage in run.stages) or "none",
            run.updated.replace("T", " ")[:19],
            run.message[:160],
        )
        for run in runs
    )
    table(Table(head=("run", "project", "state", "done", "last sign (UTC)", "why"), rows=rows))


def one(summary: RunSummary) -> None:
    """What can be done with one run."""
    if summary.state == "damaged":
        st.error(md(summary.message), icon=":material/error:")
        open_it(summary)
        return
    run = RunDirectory.open(summary.path)
    damaged = run.damaged()
    if damaged:
        st.warning(
            md(f"Damaged: {', '.join(damaged)}. Go on with the run: these pieces are made again, the rest is kept."),
            icon=":material/warning:",
        )
    busy = summary.state == "running" or jobs.is_alive(run.path.parent, run.id)
    wanted = False if busy or summary.is_complete else anyway(run)
    with st.container(horizontal=True):
        open_it(summary)
        if busy and st.button("Stop", key="runs_stop"):
            jobs.stop(run)
        done = wanted is None or (summary.is_complete and not damaged)
        if not busy and st.button("Go on", disabled=done, key="runs_go_on"):
            jobs.go_on(run, anyway=bool(wanted))
            st.rerun()
        report(run, summary, busy=busy)
        if st.button("Delete…", disabled=busy, key="delete"):
            st.session_state["deleting"] = run.id
    if busy and run.stop_requested():
        st.info("Asked to stop: it ends within one training step and keeps what is done.", icon=":material/info:")
    if st.session_state.get("deleting") == run.id:
        confirm_delete(run)
    with st.form("rename", border=False):
        label = st.text_input("Name", value=summary.label, max_chars=100)
        if st.form_submit_button("Rename"):
            run.rename(label)
            st.rerun()
    if summary.state == "failed":
        failure_of_worker(run)


def open_it(summary: RunSummary) -> None:
    """Look at the run on the other pages."""
    if st.button("Open", type="primary", key="open"):
        session.choose(summary.id)
        target = "recommend" if "recommend" in summary.stages else "probe"
        st.switch_page(f"views/{target}.py", query_params={"run": summary.id})


def report(run: RunDirectory, summary: RunSummary, *, busy: bool) -> None:
    """Download the HTML report, or have it written."""
    if run.has(REPORT):
        place = run.path_of(REPORT)
        st.download_button(
            "Download the report (HTML)", place.read_bytes, f"{run.id}-report.html", "text/html", on_click="ignore"
        )
    elif "recommend" in summary.stages and st.button("Write the report", disabled=busy, key="write_report"):
        jobs.write_report(run)
        st.rerun()


def confirm_delete(run: RunDirectory) -> None:
    """Ask before anything is lost."""
    with st.container(border=True):
        st.markdown(f"Delete **{md(run.label)}** with its probes, experts and merged weights? This cannot be undone.")
        sure = st.checkbox("Yes, delete it for good", key=f"sure:{run.id}")
        with st.container(horizontal=True):
            now = st.button("Delete it", type="primary", disabled=not sure, key="delete_now")
            keep = st.button("Keep it", key="keep")
        if now:
            run.remove()
            if session.chosen().id == run.id:
                session.choose(None)
        if now or keep:
            st.session_state.pop("deleting", None)
            st.rerun()


def compare(by_id: dict[str, RunSummary]) -> None:
    """Advice and outcome of several runs beside each other."""
    st.subheader("Compare", anchor=False)
    picked = st.multiselect(
        "Runs to compare", list(by_id), format_func=lambda i: by_id[i].label, max_selections=8, key="compared"
    )
    if picked:
        rows = tuple(row(by_id[run_id]) for run_id in picked)
        head = (
            "run",
            "state",
            "advice",
            "predicted goal (nats)",
            "90 % interval",
            "measured goal (nats)",
            "pretrained (nats)",
            "before advice (gradients)",
        )
        table(Table(title="Compared runs", head=head, rows=rows))


def row(summary: RunSummary) -> tuple[str, ...]:
    """One compared run; what is missing or damaged is said."""
    try:
        run = RunDirectory.open(summary.path)
        advice, validation = session.recommendation_of(run), session.validation_of(run)
    except ValueError as error:
        return (summary.label, state_text("damaged"), str(error)[:120], "–", "–", "–", "–", "–")
    if advice is None:
        return (summary.label, state_text(summary.state), "none yet", "–", "–", "–", "–", "–")
    return (
        summary.label,
        state_text(summary.state),
        STATUS_WORDS[advice.status],
        risk_text(advice.goal.value),
        interval_text(advice.goal),
        "–" if validation is None else risk_text(validation.models[0].goal),
        risk_text(advice.initial_goal),
        count_text(sum(advice.cost.values())),
    )


page()
