"""The frame: pages, the run that is looked at, and what a page that fails shows."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# Streamlit puts this folder first; the packages lie beside it in a checkout.
if str(HERE.parent) not in sys.path:
    sys.path.insert(1, str(HERE.parent))

import streamlit as st  # noqa: E402

from app import session  # noqa: E402
from app.showing import guarded, md, state_text  # noqa: E402

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
            st.markdown(f"**{md(chosen.id)}**  \nnot there")
        else:
            st.caption("No run chosen: set one up, or pick one under Runs.")


def main() -> None:
    """Show the page in the address."""
    st.set_page_config(page_title="Merge Advisor", page_icon=":material/merge:", layout="wide")
    pages = [
        st.Page(HERE / "views" / f"{name}.py", title=title, icon=icon, url_path=name, default=name == "set_up")
        for name, (title, icon) in PAGES.items()
    ]
    page = st.navigation(pages)
    guarded(sidebar)()
    guarded(page.run)()


main()
