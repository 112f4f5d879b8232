"""A run's model is read back, and fitted again, alike, where the stored one is no use."""

import json

import pytest

from advisor.fitted_model import load_fitted, store_merges, stored_merges
from advisor.measured_on import MeasuredOn
from advisor.plan import Plan
from advisor.project import Project
from advisor.risk_model import RiskModel
from advisor.runs import ArtefactMissing, RunDirectory
from advisor.workspace import MERGES_NAME
from estimators.recipe import Recipe
from estimators.stored_tasks import write_records
from tests.advisor.quadratic_merges import QuadraticWorld

WORLD = QuadraticWorld.drawn(names=("low", "high"), size=20)
PROJECT = Project.from_mapping(
    {
        "backbone": {"name": "test_resnet"},
        "tasks": {"low": {"data": "builtin/digits-low"}, "high": {"data": "builtin/digits-high"}},
        "objective": {"weights": {"low": 3, "high": 1}},
        "seed": 5,
    }
)


@pytest.fixture(scope="module")
def model() -> RiskModel:
    return RiskModel(task_weights={"low": 0.75, "high": 0.25}, seed=5).fit(WORLD.probes())


@pytest.fixture
def run(tmp_path, model) -> RunDirectory:
    run = RunDirectory.create(tmp_path, "p")
    run.write_json("probe_data.json", WORLD.probes().to_json())
    run.write_json("recommendation.json", {})
    run.write_json("risk_model.json", model.to_json())
    return run


def test_a_stored_model_of_this_version_is_read(run, model):
    found = load_fitted(run, PROJECT)
    assert found.refitted == ""
    assert found.model.to_json() == model.to_json()


def test_a_missing_model_is_fitted_again_alike_and_nothing_is_written(run, model):
    run.discard("risk_model.json")
    found = load_fitted(run, PROJECT)
    assert found.refitted == "risk_model.json is absent"
    assert json.dumps(found.model.to_json()) == json.dumps(model.to_json())
    assert not run.has("risk_model.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content | {"version": 0},
        lambda content: {key: value for key, value in content.items() if key != "residuals"},
        lambda content: content | {"fits": []},
    ],
    ids=["version", "missing key", "other type"],
)
def test_a_model_of_another_shape_is_fitted_again_and_said(run, model, change):
    run.write_json("risk_model.json", change(model.to_json()))
    found = load_fitted(run, PROJECT)
    assert "was written by another version" in found.refitted
    assert found.model.to_json() == model.to_json()


def test_a_damaged_model_is_fitted_again_and_said(run, model):
    run.path_of("risk_model.json").write_text("{")
    found = load_fitted(run, PROJECT)
    assert found.refitted == "risk_model.json is damaged"
    assert found.model.to_json() == model.to_json()


def test_merges_that_a_refit_learned_from_are_learned_from_again(run, model):
    long = Plan.uniform(WORLD.names, Recipe(learning_rate=0.01, batch_size=8, steps=200), 0.5)
    merges = (WORLD.observe(long, seed=3),)
    store_merges(run, merges, {"refits": {"units": 5.0, "seconds": 1.0}})
    assert stored_merges(run) == merges
    run.discard("risk_model.json")
    expected = RiskModel(task_weights={"low": 0.75, "high": 0.25}, seed=5).fit(WORLD.probes().with_merges(merges))
    assert load_fitted(run, PROJECT).model.to_json() == expected.to_json() != model.to_json()
    store_merges(run, (), {})
    assert not run.has(MERGES_NAME)


def test_a_run_without_advice_names_the_command_that_makes_it(tmp_path):
    run = RunDirectory.create(tmp_path, "p")
    with pytest.raises(ArtefactMissing, match="has no whole risk_model.json yet; make it first: merge-advisor recomm"):
        load_fitted(run, PROJECT)


def test_intervals_are_those_of_figures_on_the_runs_test_samples(run):
    assert MeasuredOn.of_run(run) is None
    tasks = {
        name: {"pool": "p", "samples": {"test": samples}} for name, samples in {"low": "ab", "high": "bcde"}.items()
    }
    write_records(run.path, tasks, seed=5)
    run.discard("risk_model.json")
    found = load_fitted(run, PROJECT).model.measured_on
    assert found.sizes == {"low": 2, "high": 4}
    assert found.shared["low"]["high"] == pytest.approx(1 / 8**0.5)
