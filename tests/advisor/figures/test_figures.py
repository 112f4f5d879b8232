"""What every figure has in common, asked of each of them."""

import json
import re
from collections.abc import Callable

import pytest

from advisor.figures import (
    Drawn,
    compared_models,
    constants_with_intervals,
    cost_by_purpose,
    gradient_cosines,
    measured_merges,
    predicted_and_measured,
    probe_traces,
    relative_sharpness,
    risk_against_cost,
    risk_contour,
    risk_curve,
    task_vector_cosines,
    term_shares,
)
from tests.advisor import advice_samples as samples


def known(drawn: Drawn | None) -> Drawn:
    assert drawn is not None
    return drawn


FIGURES: dict[str, Callable[[tuple[str, ...]], Drawn]] = {
    "predicted_and_measured": lambda names: predicted_and_measured(samples.validation(names)),
    "compared_models": lambda names: compared_models(samples.validation(names)),
    "compared_accuracies": lambda names: compared_models(samples.validation(names), "accuracy"),
    "constants": lambda names: constants_with_intervals(samples.constants(names)),
    "cost_by_purpose": lambda names: cost_by_purpose(dict.fromkeys(names, 5.0), 100.0),
    "gradient_cosines": lambda names: known(gradient_cosines(samples.constants(names))),
    "relative_sharpness": lambda names: known(relative_sharpness(samples.constants(names))),
    "task_vector_cosines": lambda names: task_vector_cosines(names, [[1.0] * len(names)] * len(names)),
    "measured_merges": lambda names: measured_merges(samples.merges(names)),
    "probe_traces": lambda names: probe_traces(samples.traces(names)),
    "risk_against_cost": lambda names: risk_against_cost(samples.recommendation(names)),
    "risk_contour": lambda names: risk_contour(samples.surface(), measured=[(0.01, 0.3, 0.4)], initial_goal=0.9),
    "risk_curve": lambda names: risk_curve(samples.curve(names=names), initial_goal=0.9, edge=samples.predicted(0.019)),
    "lambda_curve": lambda names: risk_curve(samples.curve("coefficient", names), initial_goal=0.9),
    "term_shares": lambda names: term_shares(samples.recommendation(names).terms),
}


@pytest.mark.parametrize("name", FIGURES)
def test_every_axis_is_labelled(name: str) -> None:
    content = FIGURES[name](samples.NAMES).figure.to_dict()
    keys = {trace.get(f"{side}axis", side).replace(side, f"{side}axis") for trace in content["data"] for side in "xy"}
    used = [content["layout"][key] for key in keys if content["layout"][key].get("type") != "category"]
    assert used or name in ("gradient_cosines", "relative_sharpness", "task_vector_cosines")
    for axis in used:
        assert axis["title"]["text"]


@pytest.mark.parametrize("name", FIGURES)
def test_the_text_beside_a_figure_names_numbers(name: str) -> None:
    drawn = FIGURES[name](samples.NAMES)
    figure, alt = drawn
    assert figure is drawn.figure
    assert re.search(r"\d", alt)
    assert alt.endswith(".")


@pytest.mark.parametrize("name", FIGURES)
def test_names_are_shown_as_text_and_never_read_as_html(name: str) -> None:
    text = FIGURES[name]((samples.EVIL, "b")).figure.to_json()
    assert "<b>" not in text
    assert "<script>" not in text


@pytest.mark.parametrize("name", FIGURES)
def test_series_never_differ_by_colour_alone(name: str) -> None:
    traces = FIGURES[name](samples.NAMES).figure.to_dict()["data"]
    looks = []
    for trace in traces:
        if trace["type"] not in ("scatter", "bar") or trace.get("showlegend") is False or "name" not in trace:
            continue
        marker, line = trace.get("marker", {}), trace.get("line", {})
        pattern = marker.get("pattern", {}).get("shape")
        shape = (marker.get("symbol"), line.get("dash"), pattern if isinstance(pattern, str) else None)
        looks.append((trace["type"], trace.get("mode"), trace.get("fill"), line.get("width"), shape))
    assert len(looks) == len({json.dumps(look) for look in looks})


def test_twenty_tasks_can_still_be_told_apart() -> None:
    names = tuple(f"task{k}" for k in range(20))
    traces = probe_traces(samples.traces(names)).figure.to_dict()["data"]
    looks = {(t["line"]["color"], t["marker"]["symbol"]) for t in traces if t.get("showlegend") and "line" in t}
    assert len(looks) == 20


@pytest.mark.parametrize("name", FIGURES)
def test_a_figure_is_small_and_valid_json(name: str) -> None:
    text = FIGURES[name](samples.NAMES).figure.to_json()
    assert len(text) < 100_000
    assert "NaN" not in json.dumps(json.loads(text), allow_nan=False)
