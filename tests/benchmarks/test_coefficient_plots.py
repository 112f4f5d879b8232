"""The drawn numbers are the stored ones, and both figures are written."""

import json

import pytest

from benchmarks.coefficient_plots import COEFFICIENTS, MERGEABILITY, costs, main, signals
from benchmarks.coefficients import BEST, OURS


def test_costs_are_the_stored_merges_and_shares():
    document = json.loads(COEFFICIENTS.read_text())
    found = costs(document)
    assert found[BEST] == (500, 1.0)
    assert found[OURS["weights"]][0] == 0
    ours = document["summary"]["evaluations"][OURS["validation"]]["median_with_verdicts"]
    assert found[OURS["validation"]] == (
        ours,
        document["summary"]["gap_closed"]["accuracy"]["closed"][OURS["validation"]],
    )


def test_signals_are_ordered_behind_the_ceilings():
    document = json.loads(MERGEABILITY.read_text())
    found = signals(document)
    assert list(found)[:3] == ["ceiling", "validation", "ours"]
    rest = [sum(values) for values in list(found.values())[3:]]
    assert rest == sorted(rest, reverse=True)
    assert {len(values) for values in found.values()} == {len(document["problems"])}


def test_both_figures_are_written(tmp_path):
    pytest.importorskip("matplotlib")
    main(["--out", str(tmp_path)])
    for name in ("coefficients.png", "mergeability.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
