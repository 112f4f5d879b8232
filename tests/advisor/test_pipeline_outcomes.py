"""Outcomes of the path that are advice, not errors: no fit, no plan within the limits, experts that diverge."""

import json
import shutil
from pathlib import Path

import pytest

from advisor import pipeline
from advisor.diverging import DIVERGED_PURPOSE, MOST_RETRIES, AdviceWithdrawn, diverged_experts
from advisor.experts import ExpertDiverged
from advisor.least_budget import require_budget
from advisor.probing import BudgetTooSmall
from advisor.project import load_project
from advisor.report import check_report
from advisor.workspace import Workspace, open_workspace
from tests.advisor.cli_fakes import Ran
from tests.advisor.tiny_path import PROJECT, write_project

HOT = "{sgd: [1.0e+4, 1.0e+5]}"  # every probe diverges


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("outcomes")
    # room below the advised rate for the advice that follows a divergence
    write_project(folder, PROJECT.replace("1.0e-5, 1.0e-2", "1.0e-7, 1.0e-2"))
    (folder / "hot.yaml").write_text(PROJECT.replace("{sgd: [1.0e-5, 1.0e-2]}", HOT))
    return folder


@pytest.fixture(scope="module")
def advised(folder) -> Path:
    ws = open_workspace(folder / "project.yaml", folder / "advised")
    pipeline.recommend(ws)
    return ws.run.path


@pytest.fixture
def ws(advised, tmp_path) -> Workspace:
    """A run with advice and no experts."""
    shutil.copytree(advised, tmp_path / "run")
    return open_workspace(tmp_path / "run")


def diverge(monkeypatch, times: int) -> list[float]:
    """Let the first so many trained experts diverge; returns the learning rates that were tried."""
    from advisor import experts

    real, rates = experts._train, []

    def train(ws, run, meter, kept):
        rates.append(run.recipe.learning_rate)
        if len(rates) <= times:
            meter.add_units("training", 100.0)
            raise ExpertDiverged(f"task={run.task!r}: the advised expert diverged (test)")
        return real(ws, run, meter, kept)

    monkeypatch.setattr(experts, "_train", train)
    # so small a project gains too little for its status to be the same in every version of the model
    monkeypatch.setattr("advisor.recommending.decide_status", lambda *args, **kwargs: "caution")
    return rates


def test_probes_that_all_diverge_end_in_refused_advice_with_a_report(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    ran = Ran(capsys, "run", "hot.yaml", "--out", "hot")
    assert ran.code == 3
    assert "Advice refused: don't merge" in ran.out
    ws = open_workspace(folder / "hot")
    advice = pipeline.recommend(ws)
    assert advice.status == "refuse"
    assert set(advice.plan.coefficients.values()) == {0.0}
    assert not ws.run.has("risk_model.json")
    report = json.loads(ws.run.path_of("report.json").read_text())
    check_report(report)
    assert report["recommendation"]["caveats"][0]["name"] == "nothing_fitted"
    ran = Ran(capsys, "predict", "hot")
    assert ran.code == 3
    assert "probe merges diverged" in ran.said


def test_a_cost_limit_that_no_plan_meets_ends_in_refused_advice_and_a_larger_one_in_another(ws):
    spent = sum(ws.costs().values())
    ws.run.discard("recommendation.json")
    ws.max_cost = spent + 10
    refused = pipeline.recommend(ws)
    assert (refused.status, refused.caveats[0].name) == ("refuse", "no_feasible_plan")
    assert pipeline.recommend(ws) == refused
    ws.max_cost = None
    assert pipeline.recommend(ws).training_cost > 10
    assert pipeline.recommend(ws).caveats[0].name != "no_feasible_plan"


def test_advice_is_kept_for_the_same_question_and_made_again_for_another(ws):
    first = pipeline.recommend(ws)
    ws.max_cost = 1e9
    assert pipeline.recommend(ws) == first
    search = ws.project.search.model_copy(update={"steps": (8, 16)})
    ws.project = ws.project.model_copy(update={"search": search})
    second = pipeline.recommend(ws)
    assert max(recipe.steps for recipe in second.plan.recipes.values()) <= 16
    assert pipeline.recommend(ws) == second


def test_a_model_of_another_version_is_fitted_again_and_the_advice_stays(ws):
    before, advice = ws.run.read_json("risk_model.json"), pipeline.recommend(ws)
    ws.run.write_json("risk_model.json", before | {"version": 0})
    assert pipeline.recommend(ws) == advice
    assert ws.run.read_json("risk_model.json") == before
    assert [e["kind"] for e in ws.run.events().records].count("model_refitted") == 1


def test_an_expert_that_diverges_is_learned_from_and_paid_for(ws, monkeypatch):
    rates = diverge(monkeypatch, 1)
    paths = pipeline.train(ws)
    assert all(path.is_file() for path in paths.values())
    advice = pipeline.recommend(ws)
    assert max(recipe.learning_rate for recipe in advice.plan.recipes.values()) <= rates[0] / 2
    assert "expert_diverged" in [caveat.name for caveat in advice.caveats]
    assert ws.costs()[DIVERGED_PURPOSE] == 100.0
    assert advice.cost[DIVERGED_PURPOSE] == 100.0
    ((task, plan),) = diverged_experts(ws.run)
    assert plan.recipes[task].learning_rate == rates[0]
    assert pipeline.train(open_workspace(ws.run.path)) == paths


def test_experts_that_diverge_again_and_again_end_the_path_by_name(ws, monkeypatch):
    rates = diverge(monkeypatch, 100)
    with pytest.raises((ExpertDiverged, AdviceWithdrawn), match="the advised expert diverged"):
        pipeline.merge(ws)
    assert 1 < len(rates) <= 1 + MOST_RETRIES
    assert rates == sorted(rates, reverse=True)
    assert not ws.run.has("merged/model.safetensors")


def test_a_budget_that_cannot_pay_for_anything_is_told_by_check_and_leaves_nothing(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "poor.yaml").write_text(PROJECT.replace("probe_share: 1.0, probes: 3", "probe_share: 0.02"))
    with pytest.raises(BudgetTooSmall, match="budget.probe_share=0.02 leaves 61 .* raise it to at least 0.42"):
        require_budget(load_project("poor.yaml"))
    with pytest.raises(BudgetTooSmall, match="--max-cost=50 leaves 50"):
        require_budget(load_project("project.yaml"), 50)
    assert Ran(capsys, "check", "poor.yaml", "--no-timing").code == 2
    ran = Ran(capsys, "recommend", "poor.yaml", "--out", "nothing")
    assert ran.code == 2
    assert "measuring the constants of 2 tasks needs 1,280" in ran.said
    assert "Traceback" not in ran.err
    assert not (folder / "nothing").exists()
