"""The frame: pages, the run that is looked at, and what a page that fails shows."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Streamlit puts this folder first; the packages lie beside it in a checkout.
if str(HERE.parent) not in sys.path:
    sys.path.insert(1, str(HERE.parent))

import streamlit as st  # noqa: E402

from app import jobs, session  # noqa: E402
from app.showing import guarded, md, state_text  # noqa: E402

# Two paths that become one; drawn here, because Streamlit fetches named icons for the tab from another host.
ICON = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke="#0072B2" stroke-width="4">'
    '<path d="M6 3c0 9 10 9 10 17v9"/><path d="M26 3c0 9-10 9-10 17" stroke="#D55E00"/></svg>'
)
PAGES = {
    "set_up": ("Set up", ":material/tune:"),
    "probe": ("Probe", ":material/science:"),
    "recommend": ("Recommend", ":material/recommend:"),
    "explore": ("Explore", ":material/explore:"),
    "merge": ("Merge", ":material/merge:"),
    "validate": ("Validate", ":material/fact_check:"),
    "runs": ("Runs", ":material/list:"),
}


def sidebar() -> None:
    """The run that all pages speak of."""
    from advisor.run_listing import summarise

    with st.sidebar:
        chosen = session.chosen()
        if chosen.run is not None:
            summary = summarise(chosen.run.path)
            st.caption("Run")
            st.markdown(f"**{md(summary.label)}**  \n{state_text(summary.state)}")
        elif chosen.id:
            st.caption("Run")
            word = "▶ starting" if jobs.is_alive(chosen.root, chosen.id) else "not there"
            st.markdown(f"**{md(chosen.id)}**  \n{word}")
        else:
            st.caption("No run chosen: set one up, or pick one under Runs.")


def main() -> None:
    """Show the page in the address."""
    st.set_page_config(page_title="Merge Advisor", page_icon=ICON, layout="wide")
    pages = [
        st.Page(HERE / "views" / f"{name}.py", title=title, icon=icon, url_path=name, default=name == "set_up")
        for name, (title, icon) in PAGES.items()
    ]
    page = st.navigation(pages)
    guarded(sidebar)()
    guarded(page.run)()


main()
