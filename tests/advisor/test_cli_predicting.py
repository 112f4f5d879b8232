import csv
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advisor import cli_predicting
from advisor.advice import Predicted
from advisor.runs import RunDirectory
from tests.advisor import advice_samples as samples
from tests.advisor.cli_fakes import NAMES, PROJECT, Ran, project

__all__ = ["project"]


class Ask:
    """A fitted model that predicts ten times the learning rate for each task."""

    class model:  # noqa: N801
        constants_ = samples.constants(NAMES)

        @staticmethod
        def elasticities(plan: Any) -> dict[str, tuple[float, float, float]]:
            return {"steps": (-0.5, -0.6, -0.4)}

    def predict(self, plans: Any) -> Any:
        risk = np.array([[10 * plan.recipes[name].learning_rate for name in NAMES] for plan in plans])
        fields = {"names": NAMES, "task_risk": risk, "task_low": risk / 2, "task_high": risk * 2}
        return type("Prediction", (), {**fields, "extrapolation": np.log(np.full(len(plans), 3.0))})

    def goals(self, plans: Any) -> list[Predicted]:
        return [Predicted(value=r.mean(), low=r.mean() / 2, high=2 * r.mean()) for r in self.predict(plans).task_risk]


@pytest.fixture
def run(project: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    monkeypatch.setattr(cli_predicting, "fitted", lambda run, shell: Ask())
    made = RunDirectory.create("runs", "p", path="mine")
    made.write_json("recommendation.json", samples.recommendation(NAMES).to_json())
    Path("plans.csv").write_text("label,learning_rate,batch_size,steps,learning_rate_high\nmine,0.01,8,20,0.03\n")
    return made


def test_plans_of_a_file_are_predicted_for_each_task_and_the_goal(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "predict", run.path, "plans.csv", "--json")
    (plan,) = json.loads(ran.out)["plans"]
    assert ran.code == 0
    assert plan["tasks"]["high"] == {"value": 0.3, "low": 0.15, "high": 0.6}
    assert plan["goal"]["value"] == pytest.approx(0.2)
    assert plan["extrapolation"] == pytest.approx(3.0)
    assert plan["label"] == "mine"
    text = Ran(capsys, "predict", run.path, "plans.csv").out
    assert "0.100 to 0.400" in text
    assert "3.0x" in text


def test_predictions_come_back_as_csv(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, "predict", run.path, "plans.csv", "--csv")
    (row,) = list(csv.DictReader(io.StringIO(ran.out)))
    assert math.isclose(float(row["high_high"]), 0.6)
    assert (row["label"], float(row["goal_low"])) == ("mine", 0.1)


def test_without_a_file_the_advised_plan_is_predicted_with_its_elasticities(
    run: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "predict", run.path, "--elasticities")
    assert ran.code == 0
    assert "Small changes around advised plan" in ran.out
    assert "10 % more steps: -4.7 %" in ran.out


def test_a_bad_cell_is_named_by_line_and_column(run: RunDirectory, capsys: pytest.CaptureFixture[str]) -> None:
    Path("plans.csv").write_text("learning_rate,batch_size,steps\n0.01,8,many\n")
    ran = Ran(capsys, "predict", run.path, "plans.csv")
    assert ran.code == 2
    assert "plans.csv line 2, column 'steps': value 'many' must be a whole number" in ran.said


def test_a_run_without_a_fitted_model_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunDirectory.create("runs", "p", path="mine")
    run.write_text("project.yaml", PROJECT)
    ran = Ran(capsys, "predict", run.path)
    assert ran.code == 2
    assert "has no whole risk_model.json yet" in ran.said
