"""Probe: what the run is doing now, its probes as they come in, stop and go on."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from advisor import figures
from advisor.live_probe import LiveProbe
from advisor.report_sections import Table
from advisor.runs import RunDirectory
from advisor.watching import WatchedProbe, watch
from advisor.wording import count_text, risk_text
from app import jobs
from app.frame import POLL, anyway, failure_of_worker, live, opened, way
from app.showing import bullets, figure, guarded, say, table


def page() -> None:
    """The whole page."""
    run = opened("Probe", "Short fine-tunes of every task and their merges: what the advice rests on.")
    if run is None:
        return
    watched = live(run)
    busy = watched.is_running or jobs.is_alive(run.path.parent, run.id)
    st.fragment(guarded(lambda: controls(run)), run_every=POLL if busy else None)()
    st.fragment(guarded(lambda: probes(run)), run_every=POLL if busy else None)()
    failed = watched.summary.state in ("failed", "interrupted", "new")
    if failed and not busy:
        failure_of_worker(run)
    if "recommend" in watched.summary.stages:
        way("recommend", "② Read the advice")


def controls(run: RunDirectory) -> None:
    """Stop a run, or go on with it."""
    summary = watch(run.path, with_probes=False).summary
    if summary.state == "running":
        if not run.stop_requested() and st.button("Stop", key="stop"):
            jobs.stop(run)
            st.rerun()
        if jobs.stop_is_overdue(run) and st.button("Stop at once", key="stop_at_once"):
            jobs.stop_at_once(run)
        return
    if jobs.is_alive(run.path.parent, run.id) or summary.is_complete:
        return
    choices = {"probe": "the probes", "recommend": "the advice", "run": "the end"}
    left = {command: end for command, end in choices.items() if command not in summary.stages}
    command = "run"
    if len(left) > 1:
        index, known = len(left) - 1, left.__getitem__
        command = str(st.radio("Up to", list(left), index=index, format_func=known, horizontal=True, key="command"))
    wanted = anyway(run) if command == "run" else False
    if st.button("Go on", type="primary", key="go_on", disabled=wanted is None):
        jobs.go_on(run, command=command, anyway=bool(wanted))
        st.rerun()


def probes(run: RunDirectory) -> None:
    """The probe that runs, then curves and table of those that are done."""
    watched = watch(run.path)
    if watched.live is not None:
        growing(watched.live)
    if not watched.probes:
        if watched.live is None:
            st.caption("No probe is finished yet: heads, constants and a learning-rate range test come first.")
        return
    if watched.hidden_probes:
        st.caption(f"The last {len(watched.probes)} probes; {watched.hidden_probes} earlier ones are not drawn.")
    if watched.damaged_lines:
        st.warning(
            f"{watched.damaged_lines} lines of the probe log are damaged; they are done again when the run goes on.",
            icon=":material/warning:",
        )
    first = watched.hidden_probes + 1
    finished(watched.probes, first)
    merges = [merge for probe in watched.probes for merge in probe.merges if min(merge.plan.coefficients.values()) > 0]
    if any(not merge.diverged for merge in merges):
        figure(figures.measured_merges(merges), "measured_merges")
    rows = tuple(row(first + k, probe) for k, probe in enumerate(watched.probes))
    head = ("probe", "recipe", "outcome", "merges", "best mean risk (nats)", "at mean λ", "per-sample gradients")
    table(Table(title="Probes", head=head, rows=rows))


def growing(live: LiveProbe) -> None:
    """Curves of the probe that runs, as far as they have come."""
    title = f"Probe {live.number + 1}, running now"
    steps = live.recipe.steps
    lost = [trace.task in live.diverged for trace in live.traces]
    figure(figures.probe_traces(live.traces, lost, title=title, longest=steps), "live")
    parts = [f"{trace.task} {int(trace.steps[-1])} of {steps}" for trace in live.traces]
    say(f"{live.recipe.describe()}. Steps done: {', '.join(parts)}.")
    bullets(f"✗ {task} diverged: {cause}" for task, cause in live.diverged.items())


def finished(shown: Sequence[WatchedProbe], first: int) -> None:
    """Curves of one finished probe, or of all that are shown."""
    numbered = {first + k: probe for k, probe in enumerate(shown)}
    names: dict[object, str] = {"last": "the last one", "all": f"all {len(shown)} listed below"}
    names |= {number: f"probe {number}: {probe.recipe.describe()}" for number, probe in numbered.items()}
    chosen = st.selectbox("Curves of", list(names), format_func=names.__getitem__, key="curves")
    number = chosen if isinstance(chosen, int) else max(numbered)
    wanted = list(shown) if chosen == "all" else [numbered[number]]
    pairs = [(trace, trace.task in probe.diverged) for probe in wanted for trace in probe.traces]
    if not pairs:
        st.caption(f"Probe {number} diverged at its first step: there are no curves.")
        return
    title = "Probes, step by step" if chosen == "all" else f"Probe {number}, step by step"
    figure(figures.probe_traces([t for t, _ in pairs], [lost for _, lost in pairs], title=title), "probe_traces")
    if chosen != "all":
        say(numbered[number].recipe.describe())


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
