"""What all pages begin and end with: the title, the run or why there is none, and the way on."""

from __future__ import annotations

import streamlit as st

from advisor.runs import NotARun, RunDirectory
from advisor.watching import Watched, watch
from app import jobs, session
from app.showing import banner, guarded, md, progress, stages

POLL = "2s"
IDLE_POLL = "5s"  # somebody may go on with the run from another tab or the command line


def opened(title: str, about: str) -> RunDirectory | None:
    """The chosen run under the page's title; ``None`` after saying why there is none."""
    st.title(title, anchor=False)
    st.caption(about)
    chosen = session.chosen()
    if chosen.run is not None:
        return chosen.run
    if chosen.problem:
        st.error(md(chosen.problem), icon=":material/error:")
    elif chosen.id:
        _wait_for(chosen)
    else:
        st.info("No run is chosen yet.", icon=":material/info:")
    if not chosen.id or chosen.problem:
        way("set_up", "Set up a project, or open the demo")
        way("runs", "Pick a run")
    return None


def way(page: str, label: str, *, icon: str = ":material/arrow_forward:") -> None:
    """A link to another page that keeps the run."""
    run = session.chosen().id
    st.page_link(f"views/{page}.py", label=label, icon=icon, query_params={"run": run} if run else None)


def live(run: RunDirectory, *, with_progress: bool = True) -> Watched:
    """State, path and progress, kept up to date; the whole page is shown anew when the run starts, ends or gets on."""
    watched = watch(run.path, with_probes=False)
    busy = watched.is_running or jobs.is_alive(run.path.parent, run.id)

    def show() -> None:
        now = watch(run.path, with_probes=False)
        alive = jobs.is_alive(run.path.parent, run.id)
        banner(now)
        stages(now)
        if now.is_running and (why := run.stop_requested()):
            st.info(f"Asked to stop ({md(why)}): it ends within one training step and keeps what is done.")
        if with_progress and now.is_running:
            progress(now)
        elif alive:
            st.progress(0.0, text="A worker is starting")
        if (now.is_running or alive, now.summary.stages) != (busy, watched.summary.stages):
            st.rerun()  # everything on the page may have changed

    st.fragment(guarded(show), run_every=POLL if busy else IDLE_POLL)()
    return watched


def anyway(run: RunDirectory) -> bool | None:
    """Whether to train although the advice is refused; ``None`` while it is refused and nobody has said so."""
    advice = session.recommendation_of(run) if run.has("recommendation.json") else None
    if advice is None or advice.status != "refuse":
        return False
    sure = st.checkbox("The advice is refused: train the best plan found anyway", key=f"{run.id}:anyway")
    return True if sure else None


def failure_of_worker(run: RunDirectory) -> None:
    """What a worker that a page started said last, if it ended badly before it could write to the run."""
    words = jobs.last_words(run.path.parent, run.id)
    if words and not jobs.is_alive(run.path.parent, run.id):
        with st.expander("What the worker said"):
            st.code(words, language=None, wrap_lines=True)


def _wait_for(chosen: session.Chosen) -> None:
    alive = jobs.is_alive(chosen.root, chosen.id)

    def show() -> None:
        try:
            RunDirectory.find(chosen.root, chosen.id)
        except NotARun:
            pass
        else:
            st.rerun()
        if jobs.is_alive(chosen.root, chosen.id):
            st.info(f"**{md(chosen.id)}** · ▶ starting", icon=":material/hourglass_top:")
            st.progress(0.0, text="Loading libraries, checking the project; a demo also pre-trains its small network")
            st.caption("This page goes on by itself.")
            return
        if alive:
            st.rerun()
        words = jobs.last_words(chosen.root, chosen.id)
        if words:
            st.error("The worker ended before it made a run. It said:", icon=":material/error:")
            st.code(words, language=None, wrap_lines=True)
        else:
            st.warning(f"There is no run {md(chosen.id)} here; it may have been deleted.", icon=":material/search_off:")

    st.fragment(guarded(show), run_every=POLL if alive else None)()
    if not alive:
        way("set_up", "Set up a project, or open the demo")
        way("runs", "Pick a run")
