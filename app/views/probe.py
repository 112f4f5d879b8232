"""Probe: what the run is doing now, its probes as they come in, stop and go on."""

from __future__ import annotations

import streamlit as st

from advisor import figures
from advisor.report_sections import Table
from advisor.runs import RunDirectory
from advisor.watching import WatchedProbe, watch
from advisor.wording import count_text, risk_text
from app import jobs
from app.frame import POLL, failure_of_worker, live, opened, way
from app.showing import figure, guarded, table


def page() -> None:
    """The whole page."""
    run = opened("Probe", "Short fine-tunes of every task and their merges: what the advice rests on.")
    if run is None:
        return
    watched = live(run)
    controls(run, running=watched.is_running)
    busy = watched.is_running or jobs.is_alive(run.path.parent, run.id)
    st.fragment(guarded(lambda: probes(run)), run_every=POLL if busy else None)()
    failed = watched.summary.state in ("failed", "interrupted", "new")
    if failed and not busy:
        failure_of_worker(run)
    if "recommend" in watched.summary.stages:
        way("recommend", "② Read the advice")


def controls(run: RunDirectory, *, running: bool) -> None:
    """Stop a run, or go on with it."""
    if running:
        if st.button("Stop", key="stop"):
            jobs.stop(run)
        if run.stop_requested():
            st.info("Asked to stop: it ends within one training step and keeps what is done.")
        if jobs.stop_is_overdue(run) and st.button("Stop at once", key="stop_at_once"):
            jobs.stop_at_once(run)
        return
    if jobs.is_alive(run.path.parent, run.id):
        return
    summary = watch(run.path, with_probes=False).summary
    if summary.is_complete:
        return
    left, right = st.columns([2, 1], vertical_alignment="bottom")
    with left:
        choices = {"run": "the whole path", "probe": "probes only", "recommend": "up to the advice"}
        command = st.radio("Go on with", list(choices), format_func=choices.__getitem__, horizontal=True, key="command")
    with right:
        if st.button("Go on", type="primary", key="go_on"):
            jobs.go_on(run, command=str(command))
            st.rerun()


def probes(run: RunDirectory) -> None:
    """Curves and table of the probes so far."""
    watched = watch(run.path)
    if not watched.probes:
        st.caption("No probe is finished yet: heads, constants and a learning-rate range test come first.")
        return
    if watched.hidden_probes:
        st.caption(f"The last {len(watched.probes)} probes; {watched.hidden_probes} earlier ones are not drawn.")
    if watched.damaged_lines:
        st.warning(
            f"{watched.damaged_lines} lines of the probe log are damaged; they are done again when the run goes on.",
            icon=":material/warning:",
        )
    traces = [trace for probe in watched.probes for trace in probe.traces]
    if traces:
        figure(figures.probe_traces(traces), "probe_traces")
    merges = [merge for probe in watched.probes for merge in probe.merges if min(merge.plan.coefficients.values()) > 0]
    if any(not merge.diverged for merge in merges):
        figure(figures.measured_merges(merges), "measured_merges")
    first = watched.hidden_probes + 1
    rows = tuple(row(first + k, probe) for k, probe in enumerate(watched.probes))
    head = ("probe", "recipe", "outcome", "merges", "best mean risk (nats)", "at mean λ", "per-sample gradients")
    table(Table(title="Probes", head=head, rows=rows))


def row(number: int, probe: WatchedProbe) -> tuple[str, ...]:
    """One probe as text."""
    best = probe.best
    outcome = f"✗ diverged: {', '.join(probe.diverged)}" if probe.diverged else "✓ finished"
    risk = "–" if best is None else risk_text(sum(best.risks.values()) / len(best.risks))
    coefficient = "–" if best is None else f"{sum(best.plan.coefficients.values()) / len(best.plan.coefficients):.3g}"
    return (
        str(number),
        probe.recipe.describe(),
        outcome,
        str(len(probe.merges)),
        risk,
        coefficient,
        count_text(probe.cost),
    )


page()
