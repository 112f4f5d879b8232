"""Values of advice and validation survive JSON, infinities too."""

import dataclasses
import json
import math

import pytest

from advisor.advice import Measured, Predicted, Recommendation, Validation
from tests.advisor import advice_samples as samples

INF = math.inf


def there_and_back(value):
    text = json.dumps(value.to_json(), allow_nan=False)
    return type(value).from_json(json.loads(text))


@pytest.mark.parametrize(
    "cell",
    [
        Predicted(value=0.5, low=0.4, high=0.6),
        Predicted(value=0.5, low=0.4, high=INF),
        Predicted(value=INF, low=0.4, high=INF),
        Predicted(value=INF, low=INF, high=INF),
        Predicted(value=-0.5, low=-INF, high=INF),
    ],
)
def test_a_prediction_survives_json(cell):
    assert there_and_back(cell) == cell


@pytest.mark.parametrize("value", [math.nan, -INF])
def test_a_prediction_must_be_a_number(value):
    with pytest.raises(ValueError, match="must lie in"):
        Predicted(value=value, low=-INF, high=INF)


def test_a_model_that_diverged_survives_json_and_an_expert_still_has_no_goal():
    model = Measured(
        name="m", kind="baseline", risks={"a": INF, "b": 0.5}, accuracies={"a": 0.1, "b": 0.9}, goal=INF, cost=1.0
    )
    expert = Measured(name="e", kind="expert", risks={"a": INF}, accuracies={"a": 0.1}, goal=None, cost=0.0)
    assert there_and_back(model) == model
    assert there_and_back(expert) == expert
    assert model.diverged
    assert expert.diverged
    assert not dataclasses.replace(model, risks={"a": 1.0}, goal=1.0).diverged


def test_a_measurement_that_is_no_risk_is_refused():
    with pytest.raises(ValueError, match="risk of 'm' on a=nan must be at least 0"):
        Measured(name="m", kind="joint", risks={"a": math.nan}, accuracies={"a": 0.1}, goal=1.0, cost=0.0)
    with pytest.raises(ValueError, match="only an expert has none"):
        Measured(name="m", kind="joint", risks={"a": 1.0}, accuracies={"a": 0.1}, goal=None, cost=0.0)


def test_a_validation_with_models_that_diverged_survives_json():
    whole = samples.validation()
    first, *others = whole.models
    dead = dataclasses.replace(first, risks=first.risks | {"low": INF}, goal=INF)
    value = dataclasses.replace(
        whole, models=(dead, *others), validation_risks=dict(whole.validation_risks) | {"low": INF}
    )
    assert there_and_back(value) == value
    assert there_and_back(whole) == whole


def test_advice_with_infinite_parts_survives_json():
    advice = samples.recommendation(
        edges={"sgd": Predicted(value=0.02, low=0.01, high=INF)},
        displacement=dict.fromkeys(samples.NAMES, INF),
        goal=Predicted(value=0.4, low=0.3, high=INF),
        extrapolation=INF,
    )
    assert there_and_back(advice) == advice
    assert isinstance(there_and_back(advice), Recommendation)
    assert isinstance(there_and_back(samples.validation()), Validation)
