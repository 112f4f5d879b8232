"""Titles and remarks of reports; the report of a whole run is tested with the pipeline."""

import dataclasses

from advisor.goal import Goal
from advisor.project import Project
from advisor.reporting import other_model, title_of
from advisor.risk_model import RiskModel
from advisor.runs import RunDirectory
from advisor.what_if import WhatIf
from advisor.workspace import Workspace
from tests.advisor import advice_samples as samples
from tests.advisor.quadratic_merges import QuadraticWorld


def workspace(folder, tasks) -> Workspace:
    data = {name: {"data": "builtin/digits-low"} for name in tasks}
    project = Project.from_mapping({"backbone": {"name": "test_resnet"}, "tasks": data})
    return Workspace(project=project, run=RunDirectory.create(folder, "p"))


def test_a_report_is_called_after_its_tasks_and_backbone_or_as_people_call_the_run(tmp_path):
    few, many = workspace(tmp_path / "a", ("low", "high")), workspace(tmp_path / "b", [f"t{k}" for k in range(9)])
    assert title_of(few) == "Merging low, high on test_resnet"
    assert title_of(many) == "Merging 9 tasks on test_resnet"
    few.run.rename("First try")
    assert title_of(few) == "First try"


def test_curves_of_another_model_than_the_advices_are_told():
    world = QuadraticWorld.drawn(size=20)
    ask = WhatIf(model=RiskModel(seed=0).fit(world.probes()), goal=Goal(weights=dict.fromkeys(world.names, 1.0)))
    plan = samples.plan(world.names, rate=0.01, steps=40)
    advice = samples.recommendation(world.names, plan=plan, goal=ask.goals([plan])[0])
    assert other_model(ask, advice) == ""
    old = dataclasses.replace(advice, goal=samples.predicted(2 * advice.goal.value))
    assert f"it predicts {advice.goal.value:.3f} for the advised plan" in other_model(ask, old)
    assert f"the advice says {old.goal.value:.3f}" in other_model(ask, old)
