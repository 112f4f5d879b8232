import math
from dataclasses import replace

import pytest

from advisor.figures import measured_merges, probe_traces
from tests.advisor import advice_samples as samples


def test_a_run_that_diverged_is_marked_and_long_traces_are_thinned_with_both_ends() -> None:
    figure, alt = probe_traces(samples.traces())
    marks = [trace for trace in figure.data if trace.mode == "markers+text"]
    assert [mark.text for mark in marks] == [("diverged",)]
    assert "1 diverged" in alt
    line = figure.data[0]
    assert len(line.x) <= 120
    assert (line.x[0], line.x[-1]) == (1, 300)
    assert figure.data[1].y[-1] == pytest.approx(math.sqrt(0.004 * 300))


def test_a_run_that_counts_as_diverged_with_finite_losses_is_marked_too() -> None:
    runs = samples.traces()[2:4]
    figure, alt = probe_traces(runs, [False, True], title="Probe <7>")
    (mark,) = [trace for trace in figure.data if trace.mode == "markers+text"]
    assert (mark.x, mark.y) == ((300,), (pytest.approx(runs[1].losses[-1]),))
    assert "1 diverged" in alt
    assert "<7>" not in figure.layout.title.text
    dashes = {trace.name: trace.line.dash for trace in figure.data if trace.x == (None,)}
    assert len(set(dashes.values())) == len({run.recipe for run in runs}) == 2


def test_merges_that_diverged_are_counted_not_drawn() -> None:
    merges = samples.merges()
    bad = replace(merges[0], risks=dict.fromkeys(samples.NAMES, math.inf))
    figure, alt = measured_merges([*merges, bad])
    assert sum(len(trace.x) for trace in figure.data) == 6
    assert "6 probe merges against the coefficient, 1 more diverged; lowest 0.500 at coefficient 1" in alt
    with pytest.raises(ValueError, match="all 1 merges diverged"):
        measured_merges([bad])


def test_no_traces_are_refused() -> None:
    with pytest.raises(ValueError, match="probe first"):
        probe_traces([])
