"""Building the claims' pool: real training at a tiny size, killed and gone on with, against the naive way."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from benchmarks import claim_building, claim_inputs
from benchmarks.claim_design import FULL, MAIN, NETWORKS, SMALL, TASKS, Network
from benchmarks.claim_inputs import edge_rate
from benchmarks.claim_merging import UnitMerger
from benchmarks.claim_predictions import fit_model, goal_of, is_probe, plan_of, predict_unit
from benchmarks.claim_tables import TABLES, UnitTable, read_tables
from benchmarks.claim_twins import settings
from estimators.builtin_tasks import BUILTIN_TASKS

TINY = dataclasses.replace(
    SMALL,
    name="tiny",
    seeds=(0,),
    checkpoints=(2, 4),
    middle=2,
    sgd_steps=2,
    fractions=(1 / 8, 4.0),
    twin_fractions=(1 / 16, 1 / 8),
    twin_pairs=2,
    twin_steps=3,
    subsets=1,
    claims=(1, 3, 5),
)


class Killed(Exception):  # noqa: N818 - stands for a killed process
    pass


def test_tasks_exist_and_the_pool_is_as_large_as_the_page_says():
    assert set(TASKS.values()) <= set(BUILTIN_TASKS)
    assert (FULL.networks, FULL.seeds, FULL.claims) == (("resnet", "vit"), (0, 1, 2), tuple(range(1, 11)))
    assert set(SMALL.claims) == {1, 3, 5}
    assert not set(SMALL.seeds) & set(FULL.seeds)
    with pytest.raises(ValueError, match="middle=7 is no checkpoint"):
        dataclasses.replace(FULL, middle=7)


def test_runs_vary_one_thing_at_a_time():
    runs = {run.name: run for run in FULL.runs(NETWORKS["resnet"], 1e-3, 320)}
    base = runs["base"].recipe
    assert runs["fast"].recipe.learning_rate == pytest.approx(3 * base.learning_rate)
    assert runs["n8"].recipe == base.replace(steps=FULL.middle, num_samples=40)
    assert runs["b2"].recipe == base.replace(steps=FULL.middle, batch_size=2)
    assert runs["tangent"].recipe.alignment == "tangent"
    assert runs["sgd-0.5"].recipe.learning_rate == pytest.approx(5e-4)
    assert all(run.checkpoints[-1] == run.recipe.steps for run in runs.values())


def test_twins_vary_the_rate_at_one_batch_size_and_the_batch_size_at_one_rate():
    found = settings(FULL, 1e-3)
    rates = [recipe for varied, recipe in found if varied == "rate"]
    batches = [recipe for varied, recipe in found if varied == "batch"]
    assert len({recipe.batch_size for recipe in rates}) == 1
    assert {recipe.learning_rate for recipe in batches} == {rates[1].learning_rate}
    assert {recipe.sampling for _, recipe in found} == {"with_replacement"}


@pytest.mark.slow
def test_a_killed_build_goes_on_and_measures_what_the_naive_merge_gives(tmp_path, monkeypatch):
    monkeypatch.setattr(claim_inputs, "CONSTANTS_UNITS", 900.0)
    network = Network(model="test_resnet", image_size=16, epochs=1, pretraining_rate=1e-3, rate=1e-4)
    monkeypatch.setitem(claim_building.NETWORKS, "resnet", network)
    said = []

    def dies(line):
        said.append(line)
        if "merges 3" in line:
            raise Killed

    with pytest.raises(Killed):
        claim_building.build(TINY, tmp_path / "work", tmp_path / "out", command="c", device="cpu", say=dies)
    assert not (tmp_path / "out" / "resnet-0.json").exists()
    trained = {path: path.stat().st_mtime_ns for path in (tmp_path / "work" / "resnet-0" / "experts").iterdir()}

    claim_building.build(TINY, tmp_path / "work", tmp_path / "out", command="c", device="cpu", say=said.append)
    assert all(path.stat().st_mtime_ns == moment for path, moment in trained.items())
    first = (tmp_path / "out" / "resnet-0.json").read_text()
    shutil.rmtree(tmp_path / "work" / "resnet-0" / "measured")
    claim_building.build(TINY, tmp_path / "work", tmp_path / "out", command="c", device="cpu", say=said.append)
    assert json.loads((tmp_path / "out" / "resnet-0.json").read_text()) == json.loads(first)

    (table,) = read_tables(tmp_path / "out")
    assert {row["kind"] for row in table.data["merges"]} >= {
        "linear",
        "alone",
        "single",
        "subset-average",
        "subset-fixed",
    }
    unit = claim_inputs.open_unit("resnet", network, 0, tmp_path / "work", device="cpu", say=said.append)
    merger = UnitMerger(unit, tmp_path / "work" / "resnet-0" / "experts")
    start = unit.inputs.backbone.initial
    merged = start + 0.5 * sum(merger.task_vector(task, ("base", 4)) for task in MAIN)
    row = table.one("linear", "base", 4, 0.5)
    for task in MAIN:
        test = unit.inputs.tests[task].head(unit.samples[task].sizes.test)
        with torch.no_grad():
            logits = unit.inputs.objectives[task].logits(merged, test.inputs)
        risk = torch.nn.functional.cross_entropy(logits, test.labels)
        assert row["figures"][task]["test"] == pytest.approx(float(risk), rel=1e-4)
    assert table.data["edge"] == edge_rate(unit.constants)


@pytest.fixture(scope="module")
def real():
    return read_tables(TABLES)[0]


def test_the_model_is_fitted_on_short_merges_alone(real):
    probes = [row for row in real.data["merges"] if is_probe(real, row)]
    steps = {max(step for _, step in row["members"].values()) for row in probes}
    assert max(steps) <= 40
    assert {plan_of(real, row).method for row in probes} == {"task_arithmetic", "ties", "dare"}
    assert len(probes) < len(real.data["merges"]) / 3


@pytest.mark.slow
def test_predictions_rest_on_no_long_merge_and_on_no_test_figure(real):
    def changed(row):
        figures = {
            task: values | {"test": 9.0, "train": 9.0} | ({} if is_probe(real, row) else {"validation": 9.0})
            for task, values in row["figures"].items()
        }
        return row | {"figures": figures}

    data = dict(real.data) | {"merges": [changed(row) for row in real.data["merges"]]}
    other = UnitTable(data=data, predictions={})
    plans = [plan_of(real, row) for row in real.rows("linear", "base", 160)]
    assert np.array_equal(goal_of(fit_model(real), plans), goal_of(fit_model(other), plans))
    predicted = predict_unit(real)
    assert len(predicted["rows"]) == len(real.data["merges"])
    assert set(predicted["curves"]) == {"task_arithmetic", "ties", "dare"}
