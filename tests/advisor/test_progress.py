import io
from pathlib import Path

import pytest
from rich.console import Console

from advisor.progress import both, event_progress, plain_progress, shown_progress
from advisor.run_lock import Heartbeat
from advisor.runs import RunDirectory


def test_plain_lines_come_at_start_and_end_and_every_ten_seconds() -> None:
    now = [0.0]
    stream = io.StringIO()
    progress = plain_progress(stream, clock=lambda: now[0])
    for step in range(0, 31):
        now[0] = float(step)
        progress("probe", step, 30, loss=0.5)
    progress("merge", 0, 0)
    progress("advice", 1234.5, 5000)  # taken up in the middle: no pace is known yet
    now[0] = 45.0
    progress("advice", 2345.6, 5000)
    assert stream.getvalue().splitlines() == [
        "probe: 0 of 30 (0 %), loss 0.5",
        "probe: 10 of 30 (33 %), about 20 s left, loss 0.5",
        "probe: 20 of 30 (67 %), about 10 s left, loss 0.5",
        "probe: 30 of 30 (100 %), loss 0.5",
        "merge",
        "advice: 1,234 of 5,000 (25 %)",
        "advice: 2,346 of 5,000 (47 %), about 36 s left",
    ]


def test_the_end_is_told_once() -> None:
    stream = io.StringIO()
    progress = plain_progress(stream)
    for _ in range(3):
        progress("merge", 2, 2)
    assert stream.getvalue() == "merge: 2 of 2 (100 %)\n"


def test_events_are_few_and_the_heartbeat_knows_the_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunDirectory.create(tmp_path, "p")
    told: list[object] = []
    monkeypatch.setattr(Heartbeat, "tell", lambda self, status: told.append(status))
    now = [0.0]
    progress = both(event_progress(run, clock=lambda: now[0]))
    for step in range(11):
        now[0] = step * 0.25
        progress("probe", step, 10, loss=float("nan"), task="a", path=Path("x"))
    assert [event["done"] for event in run.events().records] == [0, 4, 8, 10]
    last = run.events().records[-1]
    assert {**last, "time": ""} == {
        "time": "",
        "kind": "progress",
        "stage": "probe",
        "done": 10,
        "total": 10,
        "loss": "nan",
        "task": "a",
        "path": "x",
    }
    assert told[-1] == {"stage": "probe", "done": 10, "total": 10}


def test_a_terminal_gets_bars_a_file_gets_lines_and_quiet_gets_nothing() -> None:
    def shown(*, terminal: bool, quiet: bool) -> str:
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=terminal, width=120)
        with shown_progress(console, quiet=quiet) as progress:
            progress("probe [bold]", 1, 2, loss=0.25)
            progress("probe [bold]", 2, 2)
            progress("merge", 1, 0)
        return stream.getvalue()

    assert shown(terminal=True, quiet=True) == shown(terminal=False, quiet=True) == ""
    assert "probe [bold]: 1 of 2 (50 %)" in shown(terminal=False, quiet=False)
    bars = shown(terminal=True, quiet=False)
    assert "probe [bold]" in bars
    assert "100%" in bars
