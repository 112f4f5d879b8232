"""Observations check themselves and survive JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest

from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.plan import Plan
from estimators.recipe import Recipe
from tests.advisor.quadratic_merges import QuadraticWorld

RECIPE = Recipe(learning_rate=0.01, batch_size=8, steps=20)


def observation(**changes: Any) -> MergeObservation:
    values: dict[str, Any] = {
        "plan": Plan.uniform(("a", "b"), RECIPE, 0.5),
        "risks": {"a": 0.5},
        "initial_risks": {"a": 0.6},
        "num_samples": 100,
        "noise": {"a": 0.01},
        "squared_displacements": {"a": 0.1, "b": 0.2},
        "displacement_gram": ((0.1, 0.0), (0.0, 0.2)),
        "seed": 3,
    }
    return MergeObservation(**(values | changes))


def trace(**changes: Any) -> DisplacementTrace:
    values: dict[str, Any] = {
        "task": "a",
        "recipe": RECIPE,
        "seed": 0,
        "steps": np.array([1, 5, 20]),
        "squared_displacements": np.array([0.1, 0.2, math.inf]),
        "losses": np.array([0.6, 0.5, math.inf]),
    }
    return DisplacementTrace(**(values | changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"risks": {}, "initial_risks": {}, "noise": {}}, "risks={} must hold at least one task"),
        ({"noise": {"b": 0.1}}, r"noise names \['b'\], risks name \['a'\]"),
        ({"risks": {"a": math.nan}}, "store a run that diverged as infinity, not NaN"),
        ({"risks": {"a": -0.1}}, "risk of a=-0.1 must be at least 0"),
        ({"initial_risks": {"a": math.inf}}, "initial risk of a=inf must be positive and finite"),
        ({"noise": {"a": -1.0}}, "noise of a=-1.0 must be at least 0"),
        ({"num_samples": 0}, "num_samples=0 must be at least 1"),
        ({"squared_displacements": {"z": 1.0}}, r"squared_displacements name \['z'\]"),
        ({"squared_displacements": {"a": -1.0}}, "squared displacement of a=-1.0"),
        ({"displacement_gram": ((1.0,),)}, "displacement_gram must be 2 x 2"),
    ],
)
def test_a_broken_observation_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        observation(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"steps": np.array([]), "losses": np.array([]), "squared_displacements": np.array([])}, "non-empty list"),
        ({"losses": np.array([1.0])}, r"losses has shape \(1,\), steps \(3,\)"),
        ({"steps": np.array([1, 1, 2])}, "must increase from 1"),
        ({"steps": np.array([0, 1, 2])}, "must increase from 1"),
        ({"squared_displacements": np.array([0.1, math.nan, 0.3])}, "store divergence as infinity"),
    ],
)
def test_a_broken_trace_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(**changes)


def test_an_infinite_risk_is_a_divergence() -> None:
    assert observation(risks={"a": math.inf}).diverged
    assert not observation().diverged


def test_probe_data_survive_json_with_diverged_runs() -> None:
    constants = QuadraticWorld.drawn().constants()
    probes = ProbeData(
        constants=constants, merges=(observation(), observation(risks={"a": math.inf})), traces=(trace(),)
    )
    text = json.dumps(probes.to_json(), allow_nan=False)
    copy = ProbeData.from_json(json.loads(text))
    assert copy.merges == probes.merges
    assert copy.constants == constants
    assert copy.traces[0].recipe == RECIPE
    np.testing.assert_array_equal(copy.traces[0].squared_displacements, probes.traces[0].squared_displacements)


def test_probe_data_of_another_version_are_refused() -> None:
    data = ProbeData(constants=QuadraticWorld.drawn().constants(), merges=()).to_json() | {"version": 0}
    with pytest.raises(ValueError, match="version=0 of the probe data is not 1; probe again"):
        ProbeData.from_json(data)


def test_merges_and_traces_of_unknown_tasks_are_refused() -> None:
    constants = QuadraticWorld.drawn(("x", "y")).constants()
    with pytest.raises(ValueError, match=r"a merge names tasks \['a', 'b'\] without constants"):
        ProbeData(constants=constants, merges=(observation(),))
    with pytest.raises(ValueError, match="a trace names task 'a' without constants"):
        ProbeData(constants=constants, merges=(), traces=(trace(),))


def test_more_merges_are_added_behind() -> None:
    probes = ProbeData(constants=QuadraticWorld.drawn().constants(), merges=(observation(),))
    later = dataclasses.replace(observation(), seed=9)
    more = probes.with_merges([later], [trace()])
    assert [merge.seed for merge in more.merges] == [3, 9]
    assert len(more.traces) == 1
