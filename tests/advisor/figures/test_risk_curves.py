import math

import pytest

from advisor.figures import risk_curve
from tests.advisor import advice_samples as samples


def test_the_edge_is_drawn_with_its_interval_and_the_band_holds_the_curve() -> None:
    edge = samples.predicted(0.019, 0.2)
    figure, alt = risk_curve(samples.curve(), initial_goal=0.95, edge=edge)
    band = [shape for shape in figure.layout.shapes if shape.type == "rect"]
    assert [(shape.x0, shape.x1) for shape in band] == [(edge.low, edge.high)]
    texts = {note.text: note.x for note in figure.layout.annotations}
    assert texts["stability edge 0.019"] == pytest.approx(math.log10(0.019))  # on a log axis
    assert "the stability edge lies at 0.019" in alt
    half = len(figure.data[0].x) // 2
    goal = next(trace for trace in figure.data if trace.name == "goal, predicted")
    assert all(h >= v for h, v in zip(figure.data[0].y[:half], goal.y, strict=True))


def test_coefficients_stand_on_a_linear_axis_and_the_exploding_part_is_cut_off() -> None:
    figure, _ = risk_curve(samples.curve("coefficient"), initial_goal=0.95, show_tasks=False)
    assert figure.layout.xaxis.type is None
    assert {note.x for note in figure.layout.annotations if "advised" in note.text} == {0.35}
    assert len(figure.data) == 2
    figure, _ = risk_curve(samples.curve(), initial_goal=0.5)
    assert figure.layout.yaxis.range[1] == pytest.approx(1.05 * 2.5 * 0.5)


def test_a_turning_point_is_marked() -> None:
    curve = samples.curve()
    figure, _ = risk_curve(curve, turning_point=0.05)
    assert any(note.text.startswith("turning point 0.05") for note in figure.layout.annotations)
