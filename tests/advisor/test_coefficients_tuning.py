"""Whole tunings on problems with a known answer: linear features, where logits are affine in the coefficients."""

import json
from dataclasses import replace

import numpy as np
import optuna
import pytest
from scipy.optimize import minimize

from advisor.coefficients import Settings, tune_on_data
from advisor.coefficients_design import first_merges
from advisor.coefficients_layers import descend_layers
from advisor.coefficients_recombining import layer_groups
from advisor.coefficients_tuning import Tuning
from advisor.goal import Goal
from tests.advisor.logistic_merges import logistic_problem, true_risks

NAMES = ("a", "b", "c")


def best_possible(problem):
    return minimize(lambda row: true_risks(problem, row).mean(), np.full(3, 0.3), bounds=[(0, 2)] * 3)


@pytest.mark.parametrize("seed", [0, 1])
def test_validation_labels_find_the_best_merge_and_measure_it(seed):
    problem = logistic_problem(NAMES, seed=seed)
    tuned = tune_on_data(problem, Settings())
    row = np.array([tuned.coefficients[name] for name in NAMES])
    truth = true_risks(problem, row)
    assert truth.mean() <= best_possible(problem).fun + 1e-3
    assert tuned.source == "validation"
    for risk, (name, task) in zip(truth, tuned.tasks.items(), strict=True):
        assert task.measured == pytest.approx(risk, abs=1e-5)
        assert task.initial == pytest.approx(true_risks(problem, np.zeros(3))[NAMES.index(name)], abs=1e-5)
        assert task.expert == pytest.approx(
            true_risks(problem, np.eye(3)[NAMES.index(name)])[NAMES.index(name)], abs=1e-5
        )
        assert task.predicted.value >= task.measured
    for name, (low, high) in tuned.intervals.items():
        assert low <= tuned.coefficients[name] <= high


def test_who_hurts_whom_is_measured():
    problem = logistic_problem(NAMES, seed=0)
    tuned = tune_on_data(problem, Settings())
    row = np.array([tuned.coefficients[name] for name in NAMES])
    for i in range(3):
        less = np.where(np.arange(3) == i, 0.0, row)
        np.testing.assert_allclose(
            tuned.disturbance[:, i], true_risks(problem, row) - true_risks(problem, less), atol=1e-5
        )


def test_unlabelled_images_come_near_and_labels_are_not_looked_at():
    gaps, closed = 0.0, 0.0
    for seed in range(4):
        problem = logistic_problem(NAMES, seed=seed, samples=150)
        tuned = tune_on_data(problem, Settings(labels=0))
        row = np.array([tuned.coefficients[name] for name in NAMES])
        average = true_risks(problem, np.full(3, 1 / 3)).mean()
        gaps += average - best_possible(problem).fun
        closed += average - true_risks(problem, row).mean()
    assert tuned.source == "unlabelled"
    assert any("transductive" in note for note in tuned.notes)
    assert closed > 0.5 * gaps
    hidden = logistic_problem(NAMES, seed=3, samples=150)
    for split in hidden.samples.values():
        split.labels[:] = 0
    assert tune_on_data(hidden, Settings(labels=0)).coefficients == tuned.coefficients


def test_few_labels_use_so_many_a_class_and_all_labels_are_validation():
    problem = logistic_problem(NAMES, seed=1)
    criterion = Tuning(problem=problem, settings=Settings(labels=4)).criterion()
    for name, split in problem.samples.items():
        evidence = criterion.evidence[name]
        onehot = (evidence.targets > 0).sum(axis=1) == 1
        counts = np.bincount(split.labels.numpy()[onehot], minlength=3)
        assert evidence.kind == "few labels"
        np.testing.assert_array_equal(counts, np.minimum(np.bincount(split.labels.numpy(), minlength=3), 4))
    assert tune_on_data(problem, Settings(labels=4)).source == "few labels"
    every = Tuning(problem=problem, settings=Settings(labels=60)).criterion()
    everything = Tuning(problem=problem, settings=Settings()).criterion()
    np.testing.assert_allclose(every.evidence["a"].targets, everything.evidence["a"].targets)


def test_a_search_goes_on_with_what_the_verdicts_measure():
    problem = logistic_problem(NAMES, seed=0, goal=Goal(weights={"a": 1.0, "b": 0.0, "c": 0.0}))
    problem.merges.vectors[0] *= 0.2  # so that the best merge has a coefficient above 1
    tuning = Tuning(problem=problem, settings=Settings(max_merges=6))
    criterion = tuning.criterion()
    first = tuning.search("task_arithmetic", criterion, first_merges(problem.merges, tuning.settings))
    best = first.merges.rows[first.merges.best]
    alone = criterion.value(tuning.measure("task_arithmetic", np.eye(3)[0]))
    assert len(first.merges.rows) == 6
    assert first.merges.goals[first.merges.best] > alone
    settled = tuning.settle(first, criterion)
    assert settled.merges.goals[settled.merges.best] <= alone + 1e-6
    assert [row.tolist() for row in settled.merges.rows[6:9]] == np.eye(3).tolist()
    for name, row in tuning.without(best).items():
        assert row[NAMES.index(name)] == 0
        assert settled.merges.find(row) is not None


def test_distances_are_measured_in_what_experts_do():
    problem = logistic_problem(NAMES, seed=0)
    tuning = Tuning(problem=problem, settings=Settings())
    prior, *steps = first_merges(problem.merges, tuning.settings)[2:]
    gram, metric = problem.merges.gram(), tuning.metric()
    moved = [
        np.linalg.norm(tuning.measure("task_arithmetic", row) - tuning.measure("task_arithmetic", prior))
        for row in steps
    ]
    effect = np.array(moved) / np.array([row[i] - prior[i] for i, row in enumerate(steps)])
    ratio = np.sqrt(np.diag(metric)) / effect
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-6)  # equal steps in the metric are equal steps in the logits
    np.testing.assert_allclose(np.prod(np.diag(metric)), np.prod(np.diag(gram)), rtol=1e-6)
    for settings in (Settings(labels=0), Settings(simplex=True)):
        np.testing.assert_array_equal(Tuning(problem=problem, settings=settings).metric(), gram)


def test_the_same_seed_gives_the_same_answer():
    one = tune_on_data(logistic_problem(NAMES, seed=2), Settings(labels=3, seed=5))
    two = tune_on_data(logistic_problem(NAMES, seed=2), Settings(labels=3, seed=5))
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())


def test_on_the_simplex_coefficients_add_up_to_one():
    tuned = tune_on_data(logistic_problem(NAMES, seed=0), Settings(simplex=True))
    assert sum(tuned.coefficients.values()) == pytest.approx(1, abs=1e-6)


def test_a_limit_on_what_a_task_may_lose_is_kept():
    free = logistic_problem(NAMES, seed=1, goal=Goal(weights={"a": 10.0, "b": 1.0, "c": 1.0}))
    lost = {name: task.measured - task.initial for name, task in tune_on_data(free, Settings()).tasks.items()}
    assert max(lost.values()) > 0.02
    limited = logistic_problem(NAMES, seed=1, goal=Goal(weights={"a": 10.0, "b": 1.0, "c": 1.0}, max_drop=0.0))
    kept = {name: task.measured - task.initial for name, task in tune_on_data(limited, Settings()).tasks.items()}
    assert max(kept.values()) < 0.01


def test_several_operators_are_compared_and_one_is_chosen():
    tuned = tune_on_data(logistic_problem(NAMES, seed=0), Settings(method="auto"))
    assert set(tuned.methods) == {"task_arithmetic", "ties", "tsv_m"}
    assert tuned.methods[tuned.method] <= tuned.methods["task_arithmetic"]
    forced = tune_on_data(logistic_problem(NAMES, seed=0), Settings(method="ties"))
    assert forced.method == "ties"


def test_every_measured_merge_is_kept_in_an_optuna_study(tmp_path):
    path = tmp_path / "study.log"
    tuned = tune_on_data(logistic_problem(NAMES, seed=0), Settings(), study=path)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.load_study(study_name="task_arithmetic", storage=storage)
    assert len(study.trials) == len(tuned.goals)
    assert study.best_value == pytest.approx(tuned.goals.min())
    for k, name in enumerate(NAMES):
        assert study.best_params[f"coefficient_{name}"] == pytest.approx(tuned.coefficients[name], abs=1e-9), k


class Stopped(Exception):
    """Stands for a kill."""


def stopping_after(count):
    """Progress that stops the tuning at its ``count``-th measured merge."""

    def told(what, done, of, **info):
        if done == count:
            raise Stopped

    return told


@pytest.mark.parametrize("settings", [Settings(), Settings(labels=3), Settings(method="auto")])
def test_a_stopped_tuning_goes_on_and_measures_nothing_twice(tmp_path, settings):
    whole = tune_on_data(logistic_problem(NAMES, seed=0), settings)
    with pytest.raises(Stopped):
        tune_on_data(
            logistic_problem(NAMES, seed=0), settings, measured=tmp_path / "merges", progress=stopping_after(6)
        )
    kept = len(list((tmp_path / "merges").iterdir()))
    assert kept >= 6
    again = tune_on_data(logistic_problem(NAMES, seed=0), settings, measured=tmp_path / "merges")
    assert again.coefficients == whole.coefficients
    assert again.intervals == whole.intervals
    np.testing.assert_array_equal(again.rows, whole.rows)
    assert again.merges == whole.merges
    assert again.units == pytest.approx(whole.units - kept * 180 / 3)
    assert any(f"{kept} measurements were taken from an earlier tuning" in note for note in again.notes)
    third = tune_on_data(logistic_problem(NAMES, seed=0), settings, measured=tmp_path / "merges")
    assert third.units == 0
    assert third.coefficients == whole.coefficients


def test_layer_groups_go_on_too(tmp_path):
    settings = Settings(granularity="group")
    first = tune_on_data(logistic_problem(NAMES, seed=0), settings, measured=tmp_path / "merges")
    again = tune_on_data(logistic_problem(NAMES, seed=0), settings, measured=tmp_path / "merges")
    assert again.groups == first.groups
    assert again.coefficients == first.coefficients
    assert again.units <= 180 / 3  # the chosen layered merge alone


def test_measured_merges_serve_other_labels_but_never_other_experts_heads_or_images(tmp_path):
    tune_on_data(logistic_problem(NAMES, seed=0), Settings(), measured=tmp_path)
    fewer = logistic_problem(NAMES, seed=0)
    tuned = tune_on_data(fewer, Settings(labels=3), measured=tmp_path)
    assert tuned.units < tune_on_data(logistic_problem(NAMES, seed=0), Settings(labels=3)).units
    assert any("taken from an earlier tuning" in note for note in tuned.notes)
    for change in ("experts", "images", "head"):
        other = logistic_problem(NAMES, seed=0)
        if change == "experts":
            other.merges.vectors[0] *= 1.0001
        elif change == "images":
            other.samples["a"].inputs[0] += 1e-3
        else:
            other.heads["a"].bias[0] += 1e-4
        changed = tune_on_data(other, Settings(), measured=tmp_path)
        assert not any("taken from an earlier tuning" in note for note in changed.notes), change


def test_damaged_measurements_are_made_again_and_named(tmp_path):
    whole = tune_on_data(logistic_problem(NAMES, seed=0), Settings(), measured=tmp_path)
    harmed = sorted(tmp_path.iterdir())[0]
    harmed.write_bytes(harmed.read_bytes()[:-3])
    again = tune_on_data(logistic_problem(NAMES, seed=0), Settings(), measured=tmp_path)
    assert again.coefficients == whole.coefficients
    assert again.units == pytest.approx(180 / 3)
    assert any(f"made again: {harmed.name}" in note for note in again.notes)


def test_progress_and_cost_are_told():
    told = []
    problem = logistic_problem(NAMES, seed=0)
    tuned = tune_on_data(problem, Settings(), progress=lambda *cell, **info: told.append(cell))
    assert told[-1][1] == told[-1][2]
    assert tuned.units == pytest.approx(tuned.merges * 180 / 3)


def layered(seed=0):
    problem = logistic_problem(NAMES, seed=seed)
    half = problem.merges.start.numel() // 2
    groups = {"first": (0, half), "second": (half, problem.merges.start.numel())}
    return problem, replace(problem, merges=problem.merges.grouped(groups))


def test_layer_groups_descend_below_the_task_wise_best():
    problem, grouped = layered()
    criterion = Tuning(problem=problem, settings=Settings()).criterion()
    start = best_possible(problem).x
    found = descend_layers(grouped, criterion, start, bounds=(0.0, 2.0), max_steps=15)
    begin = criterion.value(problem.logits(problem.merges.weights(start)))
    assert found.goal < begin
    assert found.goal == pytest.approx(criterion.value(grouped.logits(grouped.merges.weights(found.row))))
    assert found.kept == (begin - found.goal > 3 / 180)
    assert found.steps <= 18


def test_layer_groups_are_kept_or_said_to_gain_nothing():
    problem = logistic_problem(NAMES, seed=0)
    tuned = tune_on_data(problem, Settings(granularity="group"))
    groups = layer_groups(problem.merges.backbone)
    assert tuned.groups == {} or set(tuned.groups) == set(groups)
    if not tuned.groups:
        assert any("gained no more than chance" in note for note in tuned.notes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"labels": -1}, "labels=-1 must be 'all' or a whole number"),
        ({"granularity": "tensor"}, "must be 'task' or 'group'"),
        ({"bounds": (1.0, 0.5)}, "must rise from at least 0"),
        ({"method": "average"}, "does not scale task vectors"),
        ({"method": "fisher"}, "does not scale task vectors"),
        ({"method": "magic"}, "method='magic' is unknown"),
        ({"granularity": "group", "method": "ties"}, "goes with method='task_arithmetic' in a box"),
        ({"granularity": "group", "simplex": True}, "leave the other option out"),
    ],
)
def test_what_cannot_be_tuned_is_refused(changes, text):
    with pytest.raises(ValueError, match=text):
        Settings(**changes)
