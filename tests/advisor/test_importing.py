"""Runs trained elsewhere become probes: equal to own probes where they are the same, refused where they do not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from advisor import cli, pipeline
from advisor.importing import imported_notes
from advisor.interrupts import RunInterrupted
from advisor.probe_session import stored_probes
from advisor.workspace import Workspace, open_workspace
from estimators.checkpoints import fingerprint
from estimators.recipe import Recipe
from estimators.trace_files import BadTrace
from estimators.trained_recipe import TrainedRecipe
from tests.advisor.foreign_loops import record
from tests.advisor.tiny_path import write_project

RECIPE = Recipe(learning_rate=2e-4, batch_size=8, steps=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_project(tmp_path_factory.mktemp("imports"))


@pytest.fixture(scope="module")
def own(folder) -> Workspace:
    ws = open_workspace(folder / "project.yaml", folder / "own")
    pipeline.recommend(ws)
    return ws


@pytest.fixture(scope="module")
def measured(folder) -> Path:
    """A run whose constants are measured and that holds no probe yet."""
    pipeline.measure(open_workspace(folder / "project.yaml", folder / "measured"))
    return folder / "measured"


@pytest.fixture
def ws(measured, tmp_path) -> Workspace:
    shutil.copytree(measured, tmp_path / "run")
    return open_workspace(tmp_path / "run")


@pytest.fixture(scope="module")
def pair(own, tmp_path_factory) -> Path:
    """One good probe of both tasks."""
    folder = tmp_path_factory.mktemp("pair")
    for task in own.tasks:
        record(own, task, RECIPE, folder / task, seed=5)
    return folder


@pytest.fixture
def traces(pair, tmp_path) -> Path:
    """A copy of it that a test may spoil."""
    shutil.copytree(pair, tmp_path / "traces")
    return tmp_path / "traces"


def change(trace: Path, **fields: object) -> None:
    header = json.loads((trace / "trace.json").read_text())
    (trace / "trace.json").write_text(json.dumps(header | fields))


def test_a_probe_recorded_in_a_plain_loop_is_the_probe_of_our_own_loop(own, measured, tmp_path):
    probes = stored_probes(own)
    for number, probe in enumerate(probes):
        for task in own.tasks:
            record(own, task, probe.recipe, tmp_path / "traces" / f"{number}-{task}", seed=probe.traces[0].seed)
    shutil.copytree(measured, tmp_path / "run")
    ws = open_workspace(tmp_path / "run")
    imported = pipeline.import_traces(ws, tmp_path / "traces")
    known = pipeline.probe(own)
    assert len(imported.merges) == len(known.merges) >= 8
    for theirs, ours in zip(imported.traces, known.traces, strict=True):
        assert (theirs.task, theirs.recipe, theirs.seed) == (ours.task, ours.recipe, ours.seed)
        assert theirs.steps.tolist() == ours.steps.tolist()
        np.testing.assert_allclose(theirs.losses, ours.losses, rtol=1e-5)
        np.testing.assert_allclose(theirs.squared_displacements, ours.squared_displacements, rtol=1e-4)
    for merged, measured_here in zip(imported.merges, known.merges, strict=True):
        assert merged.plan == measured_here.plan
        assert merged.risks == pytest.approx(measured_here.risks, rel=1e-5)
        assert merged.noise == pytest.approx(measured_here.noise, rel=1e-3)
    theirs, ours = pipeline.recommend(ws), pipeline.recommend(own)
    assert theirs.status == ours.status
    assert theirs.plan.method == ours.plan.method
    for name, recipe in ours.plan.recipes.items():
        assert theirs.plan.recipes[name].optimizer == recipe.optimizer
        assert theirs.plan.recipes[name].learning_rate == pytest.approx(recipe.learning_rate, rel=0.02)
        assert theirs.plan.coefficients[name] == pytest.approx(ours.plan.coefficients[name], abs=0.02)
    assert theirs.goal.value == pytest.approx(ours.goal.value, rel=1e-3)
    assert any("trained elsewhere" in caveat.text for caveat in theirs.caveats)


def test_importing_twice_adds_nothing_and_keeps_the_advice(ws, pair):
    first = pipeline.import_traces(ws, pair)
    ws.run.write_json("recommendation.json", {"made": "from these"})
    again = pipeline.import_traces(open_workspace(ws.run.path), pair)
    assert again.to_json() == first.to_json()
    assert ws.run.has("recommendation.json")


def test_only_evaluations_are_counted_and_training_elsewhere_is_told(ws, pair):
    data = pipeline.import_traces(ws, pair)
    samples = data.merges[0].num_samples
    assert ws.costs()["probes"] == pytest.approx((1 + len(data.merges)) * 2 * samples / 3)
    (note,) = [note for note in imported_notes(ws.run) if "trained elsewhere" in note]
    assert f"{2 * RECIPE.cost():.3g} per-sample gradients, not counted" in note


def test_an_import_that_was_stopped_goes_on_where_it_was(ws, pair, own, tmp_path):
    shutil.copytree(pair, tmp_path / "two" / "first")
    for task in own.tasks:
        record(own, task, RECIPE.replace(learning_rate=3e-3), tmp_path / "two" / "second" / task, seed=6)

    def stop(stage, done, total, **info):
        if stage == "import" and done == 1:
            ws.run.request_stop("test")

    ws.progress = stop
    with pytest.raises(RunInterrupted, match="everything done so far is kept"):
        pipeline.import_traces(ws, tmp_path / "two")
    assert len(stored_probes(ws)) == 1
    resumed = pipeline.import_traces(open_workspace(ws.run.path), tmp_path / "two")
    assert len(stored_probes(ws)) == 2
    assert {merge.seed for merge in resumed.merges} == {5, 6}


def test_imported_runs_are_added_to_own_probes_and_advice_is_made_again(own, traces, tmp_path):
    shutil.copytree(own.run.path, tmp_path / "run")
    ws = open_workspace(tmp_path / "run")
    before = pipeline.probe(ws)
    after = pipeline.import_traces(ws, traces)
    assert not ws.run.has("recommendation.json")
    assert after.merges[: len(before.merges)] == before.merges
    assert len(after.merges) > len(before.merges)


def test_checkpoints_alone_with_a_hand_written_recipe_are_enough(ws, traces):
    recorded = pipeline.import_traces(open_workspace(ws.run.path), traces)
    for trace in traces.iterdir():
        recipe = TrainedRecipe.of(RECIPE).to_json()
        least = {"schema": "merge-advisor/trace/1", "task": trace.name, "recipe": recipe, "seed": 7}
        files = {"4": "checkpoint-4.safetensors", "12": "checkpoint-12.safetensors"}
        (trace / "trace.json").write_text(json.dumps(least | {"checkpoints": files}))
        (trace / "steps.jsonl").unlink()
    data = pipeline.import_traces(open_workspace(ws.run.path), traces)
    recorded_risks = {str(merge.plan.to_json()): merge.risks for merge in recorded.merges}
    again = [merge for merge in data.merges if merge.seed == 7 and str(merge.plan.to_json()) in recorded_risks]
    assert len(again) >= 4
    assert all(merge.risks == recorded_risks[str(merge.plan.to_json())] for merge in again)
    for trace in data.traces[2:]:
        assert trace.steps.tolist() == [4, 12]
        (same,) = [t for t in recorded.traces if t.task == trace.task]
        assert trace.squared_displacements[-1] == pytest.approx(same.squared_displacements[-1], rel=1e-4)
    assert any("the project's were assumed" in note for note in imported_notes(ws.run))


def test_a_run_that_diverged_makes_every_merge_of_it_infinite(ws, own, traces):
    shutil.rmtree(traces / "low")
    record(own, "low", RECIPE, traces / "low", seed=5, spoil=lambda k, loss: loss * float("nan") if k > 8 else loss)
    data = pipeline.import_traces(ws, traces)
    together = [merge for merge in data.merges if min(merge.plan.coefficients.values()) > 0]
    assert together
    assert all(merge.diverged for merge in together)
    assert {p.outcomes["low"] for p in stored_probes(ws)} == {"diverged"}


def test_runs_of_different_recipes_form_one_probe_under_one_label(ws, own, tmp_path):
    record(own, "low", RECIPE, tmp_path / "t" / "low", probe="a")
    record(own, "high", RECIPE.replace(learning_rate=2e-3), tmp_path / "t" / "high", probe="a")
    data = pipeline.import_traces(ws, tmp_path / "t")
    assert {merge.plan.recipes["high"].learning_rate for merge in data.merges} == {2e-3}
    assert {merge.plan.recipes["low"].learning_rate for merge in data.merges} == {RECIPE.learning_rate}
    assert [len(probe.merges) > 0 for probe in stored_probes(ws)] == [True, False]


def test_runs_that_do_not_belong_together_are_told(ws, own, tmp_path):
    record(own, "low", RECIPE, tmp_path / "t" / "low")
    record(own, "high", RECIPE.replace(learning_rate=2e-3), tmp_path / "t" / "high")
    data = pipeline.import_traces(ws, tmp_path / "t")
    assert all(len(merge.plan.names) == 1 for merge in data.merges)
    assert any("hold runs of some tasks only" in note for note in imported_notes(ws.run))


def test_a_run_that_ended_early_is_read_as_a_shorter_one(ws, own, tmp_path):
    for task in own.tasks:
        record(own, task, RECIPE, tmp_path / "t" / task, checkpoints=(3, 8), stop_after=8)
    data = pipeline.import_traces(ws, tmp_path / "t")
    assert {max(r.steps for r in merge.plan.recipes.values()) for merge in data.merges} == {8, 3}
    assert any("ended after step 8 of 12" in note for note in imported_notes(ws.run))


def test_half_precision_weights_are_measured_from_x0_rounded_to_it(ws, traces):
    backbone = ws.prepared.backbone
    start = {name: value.bfloat16() for name, value in backbone.unflatten(backbone.initial).items()}
    expected, naive = {}, {}
    for trace in traces.iterdir():
        half = {}
        for name in ("checkpoint-4.safetensors", "checkpoint-12.safetensors"):
            full = safetensors.torch.load_file(trace / name)
            half = {
                k: (start[k].float() + v - backbone.unflatten(backbone.initial)[k]).bfloat16() for k, v in full.items()
            }
            (trace / name).write_bytes(safetensors.torch.save(half))
        expected[trace.name] = float(sum((v.double() - start[k].double()).square().sum() for k, v in half.items()))
        x0 = backbone.unflatten(backbone.initial)
        naive[trace.name] = float(sum((v.double() - x0[k].double()).square().sum() for k, v in half.items()))
        change(trace, parameters=dict.fromkeys(half, "bfloat16"), base=fingerprint(start), rows=None)
        (trace / "steps.jsonl").unlink()
    data = pipeline.import_traces(ws, traces)
    last = data.merges[0].squared_displacements
    assert last == pytest.approx(expected, rel=1e-4)
    assert all(abs(naive[task] - expected[task]) > 1e-3 * expected[task] for task in expected)


BAD = {
    "another base": (
        lambda t: change(t / "low", base="0" * 64),
        "started from other weights than the project's backbone",
    ),
    "missing field": (
        lambda t: change(t / "low", recipe={"learning_rate": 0.1, "steps": 12, "batch_size": 8}),
        "recipe lacks optimizer, schedule, weight_decay",
    ),
    "unknown optimizer": (
        lambda t: change(t / "low", recipe=TrainedRecipe.of(RECIPE).to_json() | {"optimizer": "lion"}),
        r"recipe.optimizer='lion' is not one of sgd, momentum, adamw, adam",
    ),
    "unknown task": (
        lambda t: change(t / "low", task="cats"),
        r"task='cats' is not one of the project's \(low, high\)",
    ),
    "newer format": (
        lambda t: change(t / "low", schema="merge-advisor/trace/9"),
        "schema='merge-advisor/trace/9' must",
    ),
    "lost checkpoint": (
        lambda t: (t / "low" / "checkpoint-12.safetensors").unlink(),
        "checkpoint 'checkpoint-12.safetensors' of step 12 is not there",
    ),
    "path out of it": (
        lambda t: change(t / "low", checkpoints={"12": "../high/checkpoint-12.safetensors"}),
        "leads out of the trace's folder",
    ),
    "cut checkpoint": (
        lambda t: (t / "low" / "checkpoint-12.safetensors").write_bytes(
            (t / "low" / "checkpoint-12.safetensors").read_bytes()[:2000]
        ),
        "is damaged or no safetensors file",
    ),
    "cut steps": (
        lambda t: (t / "low" / "steps.jsonl").write_bytes((t / "low" / "steps.jsonl").read_bytes()[:-9]),
        "steps.jsonl is cut off in its last line",
    ),
    "lost lines": (
        lambda t: (t / "low" / "steps.jsonl").write_bytes(
            b"".join((t / "low" / "steps.jsonl").read_bytes().splitlines(keepends=True)[:-2])
        ),
        "steps.jsonl has 10 lines, trace.json says 12",
    ),
    "no JSON": (lambda t: (t / "low" / "trace.json").write_text("{"), "trace.json cannot be read"),
    "wrong step": (lambda t: change(t / "low", checkpoints={"13": "checkpoint-12.safetensors"}), "outside of 1..12"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_trace_is_refused_by_name_and_nothing_is_imported(name, ws, traces):
    spoil, text = BAD[name]
    spoil(traces)
    with pytest.raises(BadTrace, match=text):
        pipeline.import_traces(ws, traces)
    assert not ws.run.path_of("probes.jsonl").exists()


def _rewrite(trace: Path, make) -> None:
    path = trace / "checkpoint-12.safetensors"
    tensors = safetensors.torch.load_file(path)
    path.write_bytes(safetensors.torch.save(make(tensors)))


def test_weights_that_do_not_fit_are_refused(ws, traces):
    first = next(iter(ws.prepared.backbone.names))
    whole = (traces / "low" / "checkpoint-12.safetensors").read_bytes()
    for make, text in (
        (lambda t: t | {first: t[first].flatten()}, "has shape .* the backbone's is"),
        (lambda t: {k: v for k, v in t.items() if k != first}, f"lacks {first}"),
        (lambda t: t | {first: torch.full_like(t[first], float("nan"))}, "holds NaN or infinity"),
        (lambda t: {k: 2 * v for k, v in t.items()}, "its checkpoint lies .* from x_0"),
    ):
        (traces / "low" / "checkpoint-12.safetensors").write_bytes(whole)
        _rewrite(traces / "low", make)
        with pytest.raises(BadTrace, match=text):
            pipeline.import_traces(ws, traces)


def test_a_folder_without_traces_is_refused(ws, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no trace.json; record runs"):
        pipeline.import_traces(ws, tmp_path / "empty")
    with pytest.raises(ValueError, match="is not a folder"):
        pipeline.import_traces(ws, tmp_path / "nowhere")


def test_a_dry_run_says_what_would_be_imported_and_writes_nothing(ws, pair, capsys):
    assert cli.main(["probe", str(ws.run.path), "--from", str(pair), "--dry-run", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [run["task"] for run in found["runs"]] == ["high", "low"]
    assert {run["checkpoints"] for run in found["runs"]} == {"4, 12"}
    assert not ws.run.path_of("probes.jsonl").exists()


def test_the_command_imports_and_recommend_works_on_it(ws, pair, capsys):
    assert cli.main(["probe", str(ws.run.path), "--from", str(pair), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runs"] == 2
    assert found["merges"] >= 4
    assert cli.main(["recommend", str(ws.run.path), "--json"]) in (0, 3)
    advice = json.loads(capsys.readouterr().out)["recommendation"]
    assert any("trained elsewhere" in caveat["text"] for caveat in advice["caveats"])
    assert cli.main(["probe", str(ws.run.path), "--from", str(pair / "nothing")]) == 2
