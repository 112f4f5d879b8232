"""How values look on every page: text that is never markup, tables, figures with their words, states, and failures."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime

import streamlit as st

from advisor.advice import Predicted
from advisor.figures import Drawn
from advisor.interrupts import RunInterrupted
from advisor.progress import describe_seconds
from advisor.report_sections import Section, Table
from advisor.run_listing import STAGES, State
from advisor.watching import Watched
from advisor.wording import count_text, risk_text

log = logging.getLogger(__name__)

MARKUP = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~$:&^=\"'/@%])")
STATE_WORDS: dict[State, tuple[str, str]] = {
    "new": ("○", "not started"),
    "running": ("▶", "running"),
    "interrupted": ("‖", "interrupted"),
    "failed": ("✗", "failed"),
    "finished": ("✓", "finished"),
    "damaged": ("✗", "damaged"),
}
STAGE_WORDS = {
    "probe": "Probes",
    "recommend": "Advice",
    "train": "Experts",
    "merge": "Merge",
    "validate": "Validation",
    "report": "Report",
}
# of a stage's progress, by the first word of its name
UNITS = {"probes": "per-sample gradients", "advice": "trials", "expert": "steps", "comparison": "contenders"}
CONFIG = {"displayModeBar": False, "responsive": True}


def md(text: object) -> str:
    r"""Text for a place that reads Markdown, shown as it is.

    >>> md("<b>*x*</b>")
    '\\<b\\>\\*x\\*\\<\\/b\\>'
    """
    return MARKUP.sub(r"\\\1", " ".join(str(text).split()))


def say(text: object) -> None:
    """A paragraph, as it is."""
    st.markdown(md(text))


def bullets(texts: Iterable[object]) -> None:
    """A list, as it is."""
    lines = [f"- {md(text)}" for text in texts]
    if lines:
        st.markdown("\n".join(lines))


def table(value: Table, *, title: bool = True) -> None:
    """A table of text; its title is its description too."""
    if not value.rows:
        return
    if title and value.title:
        st.markdown(f"**{md(value.title)}**")
    head = _distinct(value.head)
    rows = [{name: md(cell) for name, cell in zip(head, row, strict=True)} for row in value.rows]
    st.table(rows, border="horizontal", hide_index=True, alt=value.title or "table")


def figure(drawn: Drawn | None, key: str) -> None:
    """A figure with its words for those who cannot see it."""
    if drawn is not None:
        st.plotly_chart(drawn.figure, key=key, config=CONFIG, alt=drawn.alt)


def section(part: Section, *, heading: bool = True, tables: bool = True) -> None:
    """A section of the report."""
    if heading:
        st.subheader(md(part.title), anchor=False)
    for sentence in part.sentences:
        say(sentence)
    bullets(part.bullets)
    for one in part.tables if tables else ():
        table(one)


def columns_of(cells: Mapping[str, tuple[str, str]], *, beside: int = 4) -> None:
    """Numbers with what they are above and a note below, never cut off: label -> (value, note), ``beside`` a row."""
    width, items = min(beside, len(cells)), list(cells.items())
    for start in range(0, len(items), width):
        for column, (label, (value, note)) in zip(st.columns(width), items[start : start + width], strict=False):
            with column:
                st.caption(md(label))
                st.markdown(f"##### {md(value)}")
                st.caption(md(note))


def predicted_cell(cell: Predicted) -> tuple[str, str]:
    """Value and interval."""
    return f"{risk_text(cell.value)} nats", f"90 % interval {risk_text(cell.low)} to {risk_text(cell.high)}"


def state_text(state: State) -> str:
    """A sign and a word, never a colour alone."""
    sign, word = STATE_WORDS[state]
    return f"{sign} {word}"


def banner(watched: Watched) -> None:
    """What the run is doing, or how it ended, with the reason."""
    summary = watched.summary
    text = f"**{md(summary.label)}** · {state_text(summary.state)}"
    if summary.updated:
        text += f" · last sign {md(_clock(summary.updated))}"
    if summary.state in ("failed", "damaged"):
        st.error(text + (f"\n\n{md(summary.message)}" if summary.message else ""), icon=":material/error:")
    elif summary.state == "interrupted":
        st.warning(text + (f"\n\n{md(summary.message)}" if summary.message else ""), icon=":material/pause_circle:")
    elif summary.state == "running":
        st.info(text, icon=":material/play_circle:")
    else:
        st.success(text, icon=":material/check_circle:") if summary.stages else st.info(text)


def stages(watched: Watched) -> None:
    """The path, with what is done and what is being done."""
    done, now = watched.summary.stages, watched.next_stage if watched.is_running else None
    marks = [f"{'✓' if stage in done else '▶' if stage == now else '○'} {STAGE_WORDS[stage]}" for stage in STAGES]
    st.markdown(" → ".join(marks))


def progress(watched: Watched) -> None:
    """The stage that runs, how far it is, and how long it will take."""
    if not watched.stage:
        st.progress(0.0, text="Starting: reading data and fitting heads")
        return
    parts = [md(watched.stage)]
    if watched.total > 0:
        unit = " " + UNITS.get(watched.stage.split()[0], "")
        parts.append(
            f"{count_text(watched.done)} of {count_text(watched.total)}{unit.rstrip()} ({100 * watched.share:.0f} %)"
        )
    if watched.seconds_left is not None:
        parts.append(f"about {describe_seconds(watched.seconds_left)} left in this stage")
    st.progress(watched.share, text=" · ".join(parts))
    if watched.detail:
        st.caption(md(", ".join(f"{name} {_short(value)}" for name, value in watched.detail.items())))


def guarded(page: Callable[[], None]) -> Callable[[], None]:
    """A page or fragment whose failures are one paragraph, never a traceback."""

    @functools.wraps(page)
    def shown() -> None:
        try:
            page()
        except (ValueError, OSError, RuntimeError, RunInterrupted) as error:
            st.error(md(error) or "Something failed.", icon=":material/error:")
        except Exception as error:
            log.exception("a page failed")
            st.error(
                f"Unexpected {md(type(error).__name__)}. The server's log tells more; reload the page to go on.",
                icon=":material/error:",
            )

    return shown


def _distinct(head: Sequence[str]) -> list[str]:
    """Column titles as keys: escaped, empty ones made of blanks, so that no two are equal."""
    names: list[str] = []
    for title in head:
        name = md(title) or " "
        while name in names:
            name += " "
        names.append(name)
    return names


def _clock(text: str) -> str:
    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except ValueError:
        return text


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
