import dataclasses
import math

import pytest

from advisor.figures import compared_models, predicted_and_measured
from advisor.report_sections import validation_section
from tests.advisor import advice_samples as samples


def test_predictions_carry_their_intervals_and_stand_beside_what_was_measured() -> None:
    validation = samples.validation()
    figure, alt = predicted_and_measured(validation)
    predicted, measured, initial = figure.data
    assert list(predicted.x) == list(measured.x) == list(initial.x) == ["goal", *samples.NAMES]
    first = validation.predicted["low"]
    assert predicted.y[1] + predicted.error_y.array[1] == pytest.approx(first.high)
    assert predicted.y[1] - predicted.error_y.arrayminus[1] == pytest.approx(first.low)
    assert measured.y[1] == validation.models[0].risks["low"]
    # goal 0.39 in [0.338, 0.431]; low 0.36 above its [0.27, 0.345]
    assert "measured 0.390" in alt
    assert "4 of 5: goal, high, turned, mirrored" in alt


def test_models_stand_best_first_from_the_top() -> None:
    figure, alt = compared_models(samples.validation())
    names = [bar.y[0] for bar in figure.data]
    assert names == ["pretrained", "average: FusionBench", "advised merge", "joint training"]
    assert alt.index("joint training") < alt.index("advised merge") < alt.index("pretrained")
    figure, _ = compared_models(samples.validation(), "accuracy")
    values = [bar.x[0] for bar in figure.data]
    assert values == sorted(values)
    with pytest.raises(ValueError, match="measure='loss' must be risk or accuracy"):
        compared_models(samples.validation(), "loss")  # type: ignore[arg-type]


def test_models_that_diverged_are_named_so_and_leave_a_gap() -> None:
    whole = samples.validation()
    advised, start, *others = whole.models
    lost = dataclasses.replace(others[-1], risks=dict.fromkeys(samples.NAMES, math.inf), goal=math.inf)
    dead = dataclasses.replace(advised, risks=dict(advised.risks) | {"low": math.inf}, goal=math.inf)
    validation = dataclasses.replace(whole, models=(dead, start, *others[:-1], lost))
    figure, alt = compared_models(validation)
    bars = {bar.y[0]: bar for bar in figure.data}
    assert bars[lost.name].text == ("diverged",)
    assert bars[lost.name].x[0] is None
    assert f"{lost.name} diverged" in alt
    assert "measured diverged" in predicted_and_measured(validation)[1]
    part = validation_section(validation)
    assert part.tables[0].rows[0][3] == "diverged"
    assert part.tables[0].rows[0][5] == "–"
    assert "diverged" in next(row for row in part.tables[1].rows if row[0] == lost.name)
