import pytest

from advisor.figures import compared_models, predicted_and_measured
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
