from pathlib import Path

import pytest

from advisor.planned_cost import plan_cost, seconds_per_unit
from advisor.project import Project, load_project
from advisor.runs import RunDirectory
from tests.advisor import advice_samples as samples
from tests.advisor.cli_fakes import NAMES, project

__all__ = ["project"]


@pytest.fixture
def loaded(project: Path) -> Project:
    return load_project(project)


def test_the_smallest_limit_holds(loaded: Project) -> None:
    assert plan_cost(loaded, "recommend").units == 1280
    assert plan_cost(loaded, "recommend", max_cost=500).units == 500


def test_what_is_done_costs_nothing_and_advice_replaces_the_worst_case(loaded: Project, tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path, "p")
    advice = samples.recommendation(NAMES)
    run.write_json("recommendation.json", advice.to_json())
    planned = plan_cost(loaded, "train", run=run, seconds_per_unit=0.01)
    assert [(stage.name, stage.is_done) for stage in planned.stages] == [("advice", True), ("experts", False)]
    assert planned.units == advice.training_cost
    assert planned.minutes == pytest.approx(advice.training_cost * 0.01 / 60)


def test_an_unknown_command_is_refused(loaded: Project) -> None:
    with pytest.raises(ValueError, match="command='fly' is not one of"):
        plan_cost(loaded, "fly")


def test_a_gradient_is_timed_on_the_projects_model(loaded: Project) -> None:
    assert 0 < seconds_per_unit(loaded, device="cpu") < 5
