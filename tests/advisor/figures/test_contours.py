import pytest

from advisor.figures import risk_contour
from tests.advisor import advice_samples as samples


def test_colours_end_near_the_pretrained_risk_and_measured_runs_share_them() -> None:
    figure, alt = risk_contour(samples.surface(), measured=[(0.01, 0.3, 0.4), (0.05, 0.1, 7.0)], initial_goal=0.6)
    contour, runs, plan = figure.data
    assert contour.contours.end == pytest.approx(0.75)
    assert list(runs.marker.color) == [0.4, pytest.approx(0.75)]
    assert (plan.x[0], plan.y[0]) == (0.012, 0.35)
    assert (figure.layout.xaxis.type, figure.layout.yaxis.type) == ("log", None)
    assert "2 measured runs" in alt


def test_the_true_value_is_shown_where_colours_end() -> None:
    surface = samples.surface()
    contour = risk_contour(surface, initial_goal=0.6).figure.data[0]
    assert max(max(row) for row in contour.customdata) == pytest.approx(max(max(row) for row in surface.goal))
