"""The whole path on a tiny project of real digits, and what is promised of it: resumed, repeated, refused."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from advisor import pipeline
from advisor.fitted_model import stored_merges
from advisor.interrupts import RunInterrupted
from advisor.keeping import MEASURED_SCALES
from advisor.report import check_report
from advisor.runs import RunDirectory
from advisor.workspace import CostLimitReached, Workspace, open_workspace
from tests.advisor.tiny_path import PROJECT, write_project
from tests.reliability.tiny_project import numbers


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_project(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def finished(folder) -> Workspace:
    ws = open_workspace(folder / "project.yaml", folder / "run")
    pipeline.run_all(ws)
    return ws


def test_everything_a_run_promises_is_there(finished):
    run = finished.run
    names = ["project.yaml", "constants.json", "probe_data.json", "risk_model.json", "recommendation.json"]
    names += ["experts/low.safetensors", "experts/high.safetensors", "merged/model.safetensors", "merged/README.md"]
    names += ["validation.json", "report.json", "report.md", "report.html"]
    assert [name for name in names if not run.has(name)] == []
    report = json.loads(run.path_of("report.json").read_text())
    check_report(report)
    assert set(report) == {"schema", "recommendation", "constants", "validation", "cost"}
    assert (run.path / "study.journal").exists()
    assert run.writer() is None
    assert run.damaged() == ()


def test_a_small_backbone_runs_on_one_thread_and_the_callers_number_comes_back(finished):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        with finished.session("look"):
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_merged_model_is_x0_plus_the_advised_task_vectors(finished):
    advice = pipeline.recommend(finished)
    load = {
        n: safetensors.torch.load_file(finished.run.path_of(p))
        for n, p in {
            "low": "experts/low.safetensors",
            "high": "experts/high.safetensors",
            "merged": "merged/model.safetensors",
        }.items()
    }
    start = finished.prepared.backbone.state_dict(finished.prepared.backbone.initial)
    if advice.plan.method != "task_arithmetic":
        pytest.skip("the advised method is not linear")
    for name in finished.prepared.backbone.names:
        expected = start[name] + sum(
            value * (load[task][name] - start[name]) for task, value in advice.plan.coefficients.items()
        )
        assert (load["merged"][name] - expected).abs().max() < 1e-5


def test_validation_compares_with_all_that_was_promised(finished):
    validation = pipeline.validate(finished)
    names = {model.name for model in validation.models}
    assert {"advised merge", "pretrained", "expert: low", "expert: high"} <= names
    assert any(name.startswith("average: ") for name in names)
    assert set(validation.validation_risks) == {"low", "high"}
    opened = (finished.run.path / "test_openings.jsonl").read_text().splitlines()
    assert len(opened) == 2
    assert all('"validation"' in line for line in opened)


def test_costs_add_up_and_stay_within_the_budget(finished):
    costs = finished.costs()
    assert set(costs) == {"heads", "constants", "range test", "probes", "experts", "validation"}
    before = sum(costs[name] for name in ("heads", "constants", "range test", "probes"))
    assert before <= finished.advice_budget
    assert costs["experts"] == pipeline.recommend(finished).training_cost


def test_a_second_run_repeats_nothing(finished, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("trained again")

    monkeypatch.setattr("estimators.training_loop.TrainingLoop.step", fail)
    again = open_workspace(finished.run.path)
    assert pipeline.run_all(again).to_json() == pipeline.validate(finished).to_json()


def test_a_run_that_was_stopped_ends_with_the_same_advice(folder, finished):
    out = folder / "stopped"
    stops = 0
    for at in (1, 2, 6, 40):
        ws = open_workspace(folder / "project.yaml", out)
        count = 0

        def listen(stage, done, total, *, ws=ws, at=at, **info):
            nonlocal count
            count += 1
            if count == at:
                ws.run.request_stop("test")

        ws.progress = listen
        try:
            pipeline.recommend(ws)
        except RunInterrupted:
            stops += 1
    assert stops >= 2
    resumed = open_workspace(out)
    advice, whole = pipeline.recommend(resumed), pipeline.recommend(finished)
    assert numbers(advice.to_json()) == numbers(whole.to_json())
    for name in ("constants.json", "range_test.json", "probe_data.json", "risk_model.json"):
        assert numbers(resumed.run.read_json(name)) == numbers(finished.run.read_json(name)), name


def test_a_refit_uses_validation_figures_and_changes_the_model(finished, folder):
    before = finished.run.read_json("risk_model.json")
    advice = finished.run.read_bytes("recommendation.json")
    try:
        again = pipeline.refit(finished)
        assert again.goal.value > 0
        assert finished.run.read_json("risk_model.json") != before
        merges, advised = stored_merges(finished.run), json.loads(advice)["plan"]
        ratios = sorted(merge.plan.coefficients["low"] / advised["coefficients"]["low"] for merge in merges)
        assert ratios == pytest.approx(MEASURED_SCALES)
        assert all(merge.plan.to_json()["recipes"] == advised["recipes"] for merge in merges)
        samples = sum(len(task.validation) for task in finished.tasks.values())
        assert finished.costs()["refits"] == pytest.approx((1 + len(MEASURED_SCALES)) * samples / 3)  # x_0, five merges
        pipeline.refit(finished)
        assert stored_merges(finished.run) == merges
        assert finished.costs()["refits"] == pytest.approx((3 + len(MEASURED_SCALES)) * samples / 3)  # x_0, the advised
        opened = (finished.run.path / "test_openings.jsonl").read_text().splitlines()
        assert len(opened) == 2  # a refit never opens test data
    finally:
        finished.run.write_bytes("recommendation.json", advice)


def test_a_run_of_another_project_is_refused(folder, finished):
    other = folder / "other.yaml"
    other.write_text(PROJECT.replace("limit: 80", "limit: 60"))
    with pytest.raises(ValueError, match="holds a run of another project"):
        open_workspace(other, finished.run.path)


def test_training_beyond_max_cost_is_refused_and_advice_kept(folder, finished):
    ws = open_workspace(finished.run.path, max_cost=1.0)
    ws.run.discard("experts/low.safetensors")
    try:
        with pytest.raises(CostLimitReached, match="max_cost=1 leaves 0 per-sample gradients"):
            pipeline.train(ws)
        assert ws.run.has("recommendation.json")
    finally:
        pipeline.train(finished)


def test_another_seed_for_an_existing_run_is_refused(finished):
    with pytest.raises(ValueError, match="seed=7 differs from the run's seed 0"):
        open_workspace(finished.run.path, seed=7)


def test_runs_are_found_as_directories(finished):
    assert RunDirectory.open(finished.run.path).id == finished.run.path.name
