r"""What all commands share: where they print, how they fail, and their exit codes.

    0    done                      2    bad input: one paragraph that names value, rule and next step
    1    unexpected                3    no advice: refused by the rule of ``docs/status.md``, or the probes allow none
                                   130  interrupted; the message says how to go on

Importing this module loads neither torch nor Optuna.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable
from rich.text import Text

from advisor.interrupts import RunInterrupted
from advisor.report_sections import Section, Table
from advisor.run_lock import RunBusy

DONE, UNEXPECTED, BAD_INPUT, NO_ADVICE, INTERRUPTED = 0, 1, 2, 3, 130

# Outcomes by name, so that knowing them does not import torch.
OUTCOMES = {
    "ProbesDiverged": NO_ADVICE,
    "TooFewProbes": NO_ADVICE,
    "ContradictoryProbes": NO_ADVICE,
    "NoFeasiblePlanError": NO_ADVICE,
    "AdviceWithdrawn": NO_ADVICE,
    "CostLimitReached": BAD_INPUT,
    "OutOfMemory": BAD_INPUT,
    "MeasurementFailed": BAD_INPUT,
    "ExpertDiverged": BAD_INPUT,
    "MergeDiverged": BAD_INPUT,
}
MIN_WIDTH = 80
LONGEST_MESSAGE = 2000  # values that users gave are quoted, however long they are
UNFOLDED = 30  # names up to this length stay on one line


@dataclass(slots=True, kw_only=True)
class Shell:
    """How one command talks.

    Attributes:
        as_json: results as JSON on standard output.
        is_quiet: no progress and no remarks.
        wants_traces: tracebacks of errors.
    """

    as_json: bool = False
    is_quiet: bool = False
    wants_traces: bool = False
    out: Console = field(default_factory=lambda: _console(sys.stdout))
    err: Console = field(default_factory=lambda: _console(sys.stderr))

    def say(self, text: str) -> None:
        """A remark, on standard error."""
        if not self.is_quiet:
            self.err.print(Text(text))

    def show(self, sections: Sequence[Section]) -> None:
        """Sections of a result, on standard output."""
        for section in sections:
            print_section(self.out, section)

    def result(self, value: Any, sections: Sequence[Section]) -> None:
        """The result of a command: JSON if asked for, else sections."""
        if self.as_json:
            sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
            sys.stdout.flush()
        else:
            self.show(sections)


def _console(stream: Any) -> Console:
    console = Console(file=stream, highlight=False, emoji=False, markup=False)
    if not console.is_terminal and console.width < MIN_WIDTH + 20:
        console = Console(file=stream, highlight=False, emoji=False, markup=False, width=MIN_WIDTH + 20)
    return console


def print_section(console: Console, section: Section) -> None:
    """A section as text; names are never read as markup."""
    if not (section.sentences or section.bullets or any(table.rows for table in section.tables)):
        return
    console.print(Text(section.title, style="bold"))
    for sentence in section.sentences:
        console.print(Text(sentence))
    for bullet in section.bullets:
        grid = RichTable.grid(padding=(0, 1))
        grid.add_row(Text("-"), Text(bullet, overflow="fold"))
        console.print(grid)
    for table in section.tables:
        if table.rows:
            console.print()
            console.print(rich_table(table))
    console.print()


def rich_table(table: Table) -> RichTable:
    """A table that folds long cells instead of cutting them."""
    drawn = RichTable(
        title=Text(table.title, style="italic") if table.title else None,
        title_justify="left",
        box=None,
        pad_edge=False,
        padding=(0, 2, 0, 0),
    )
    is_short = max((len(row[0]) for row in table.rows), default=0) <= UNFOLDED
    for number, title in enumerate(table.head):
        drawn.add_column(Text(title, style="bold"), overflow="fold", no_wrap=number == 0 and is_short)
    for row in table.rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and one paragraph for an error.

    >>> explain(ValueError("steps=0 must be   at least 1; give more"))
    (2, 'steps=0 must be at least 1; give more')
    """
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "interrupted; everything that was finished is kept: run the command again to go on"
    if isinstance(error, RunInterrupted):
        return INTERRUPTED, _paragraph(error)
    for kind in type(error).__mro__:
        if kind.__name__ in OUTCOMES:
            return OUTCOMES[kind.__name__], _paragraph(error)
    if isinstance(error, RunBusy | ValueError | TypeError):
        return BAD_INPUT, _paragraph(error)
    if isinstance(error, OSError):
        return BAD_INPUT, _os_error(error)
    return UNEXPECTED, (
        f"unexpected {type(error).__name__}: {_paragraph(error)}; run the command again with --debug and report "
        "the traceback"
    )


def _paragraph(error: BaseException) -> str:
    return _cut(" ".join(str(error).split()) or type(error).__name__)


def _cut(text: str) -> str:
    if len(text) <= LONGEST_MESSAGE:
        return text
    return f"{text[: LONGEST_MESSAGE * 2 // 3]} … {text[-LONGEST_MESSAGE // 3 :]}"  # the next step stands at the end


def _os_error(error: OSError) -> str:
    text = error.args[-1] if len(error.args) > 1 and isinstance(error.args[-1], str) else str(error)
    if error.filename is not None:
        text = f"path={str(error.filename)!r}: {error.strerror}; check that it exists and that you may use it"
    return _cut(" ".join(text.split()))  # a path may be as long as its writer likes
