"""Figures of what people try out: what they hold, in traces and in words."""

import pytest

from advisor.advice import Alternative
from advisor.calibration import Calibration
from advisor.figures.exploring import coverage_curve, front_around, predicted_measured_scatter, side_by_side
from tests.advisor.advice_samples import EVIL, NAMES, plan, predicted

CALIBRATION = Calibration(
    predicted=(0.5, 0.6), measured=(0.55, 0.9), levels=(0.5, 0.9), coverage=(0.5, 0.5), left_out=1
)


def test_front_shows_every_plan_and_the_setting() -> None:
    front = [Alternative(label=EVIL, plan=plan(), goal=predicted(g), cost=c) for c, g in ((10.0, 0.9), (100.0, 0.4))]
    figure, alt = front_around(front, (50.0, predicted(0.5)), initial_goal=1.0)
    assert list(figure.data[0].x) == [10.0, 100.0]
    assert list(figure.data[1].y) == [0.5]
    assert "0.900 at 10 to 0.400 at 100" in alt
    assert "<script" not in figure.to_json()


def test_front_may_be_empty() -> None:
    assert "this setting 0.500" in front_around([], (50.0, predicted(0.5)), initial_goal=1.0).alt


def test_settings_differ_in_marker_as_well_as_colour() -> None:
    tasks = {name: predicted(0.4) for name in NAMES}
    figure, alt = side_by_side({"one": (predicted(0.3), tasks), "two": (predicted(0.5), tasks)}, 1.0)
    assert figure.data[0].marker.symbol != figure.data[1].marker.symbol
    assert figure.data[0].marker.color != figure.data[1].marker.color
    assert "two: goal 0.500" in alt


def test_no_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        side_by_side({}, 1.0)


def test_coverage_and_scatter_hold_the_numbers() -> None:
    figure, alt = coverage_curve(CALIBRATION)
    assert list(figure.data[1].y) == [0.5, 0.5]
    assert "50% lie inside their 90 % interval" in alt
    figure, alt = predicted_measured_scatter(CALIBRATION)
    assert list(figure.data[1].y) == [0.55, 0.9]
    assert "2 merges" in alt
