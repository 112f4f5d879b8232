import math
from dataclasses import fields

import pytest

from advisor.figures import constants_with_intervals
from advisor.figures.constants import LABELS
from estimators.constants import Constants, Estimate, TaskConstants
from tests.advisor import advice_samples as samples


def test_marks_of_what_is_not_identified_are_open() -> None:
    figure, alt = constants_with_intervals(samples.constants(), ["heterogeneity", "top_curvature"])
    symbols = [trace.marker.symbol for trace in figure.data]
    assert all(symbol.endswith("-open") for symbol in symbols[:4])
    assert not any(symbol.endswith("-open") for symbol in symbols[4:])
    assert "(not identified)" in alt


def test_wide_ranges_get_a_logarithmic_axis() -> None:
    figure, _ = constants_with_intervals(samples.constants(), ["gradient_variance", "top_curvature"])
    assert (figure.layout.yaxis.type, figure.layout.yaxis2.type) == ("log", None)


def test_an_infinite_end_leaves_no_bar() -> None:
    wide = Estimate(value=1.0, low=0.5, high=math.inf)
    constants = Constants(
        tasks={"a": TaskConstants(initial_risk=wide)},
        num_samples={"a": 1},
        num_classes={"a": 2},
        num_parameters=1,
    )
    figure, _ = constants_with_intervals(constants)
    assert list(figure.data[0].error_y.array) == [None]
    assert list(figure.data[0].error_y.arrayminus) == [0.5]


def test_nothing_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="hold nothing that was measured"):
        constants_with_intervals(samples.constants(), ["critical_sharpness"])


def test_every_constant_has_a_label_with_its_unit() -> None:
    assert set(LABELS) == {field.name for field in fields(TaskConstants)} - {"failures"}
    assert all(unit for _, unit in LABELS.values())
