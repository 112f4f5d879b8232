"""Merged risks against a merge written out by hand."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from advisor.merged_risks import MergedRisks, displacement_trace, paired_error
from advisor.plan import Plan
from advisor.training import OutOfMemory, train_runs
from estimators.backbone import TorchBackbone
from estimators.cost import CostMeter
from estimators.fine_tuning import Run, fine_tune
from estimators.objectives import ClassificationObjective, evaluate
from estimators.recipe import Recipe
from estimators.tasks import LinearHead, Split

RECIPE = Recipe(learning_rate=0.1, batch_size=4, steps=6)


def world(*, trained_head: bool = False):
    torch.manual_seed(0)
    backbone = TorchBackbone(nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 4)))
    objectives, splits = {}, {}
    for name in ("a", "b"):
        head = LinearHead(weight=torch.randn(3, 4), bias=torch.randn(3))
        objectives[name] = ClassificationObjective(backbone, head, trained_head=trained_head)
        splits[name] = Split(inputs=torch.randn(20, 1, 2, 3), labels=torch.arange(20) % 3)
    experts = {
        name: fine_tune(objectives[name], splits[name], Run(task=name, recipe=RECIPE, seed=1)).weights
        for name in objectives
    }
    return objectives, splits, experts


def test_a_linear_merge_is_the_sum_of_task_vectors():
    objectives, splits, experts = world()
    meter = CostMeter()
    risks = MergedRisks(objectives=objectives, splits=splits, meter=meter)
    plan = Plan(recipes=dict.fromkeys("ab", RECIPE), coefficients={"a": 0.3, "b": 0.8})
    seen = risks.measure(plan, experts, seed=5)
    start = objectives["a"].initial
    merged = start + 0.3 * (experts["a"] - start) + 0.8 * (experts["b"] - start)
    for name in "ab":
        after, before = (
            evaluate(objectives[name], merged, splits[name]),
            evaluate(objectives[name], start, splits[name]),
        )
        assert seen.risks[name] == pytest.approx(after.risk, rel=1e-6)
        assert seen.initial_risks[name] == pytest.approx(before.risk, rel=1e-6)
        difference = (after.losses - before.losses).numpy()
        assert seen.noise[name] == pytest.approx(difference.std(ddof=1) / math.sqrt(20), rel=1e-5)
        tau = (experts[name] - start).double()
        assert seen.squared_displacements[name] == pytest.approx(float(tau @ tau), rel=1e-6)
    assert seen.displacement_gram is not None
    cross = float((experts["a"] - start).double() @ (experts["b"] - start).double())
    assert seen.displacement_gram[0][1] == pytest.approx(cross, rel=1e-6)
    assert meter.units == pytest.approx(2 * 2 * 20 / 3)


def test_other_methods_go_through_the_merge_engine():
    objectives, splits, experts = world()
    risks = MergedRisks(objectives=objectives, splits=splits)
    start = objectives["a"].initial
    plan = Plan.uniform("ab", RECIPE, 0.5)
    ties = risks.merge(Plan.uniform("ab", RECIPE, 0.5, "ties"), start, experts)
    assert not torch.allclose(ties, risks.merge(plan, start, experts))
    nothing = risks.merge(Plan.uniform("ab", RECIPE, 0.0, "ties"), start, experts)
    assert torch.equal(nothing, start)


def test_an_expert_that_diverged_makes_every_risk_infinite_unless_it_is_left_out():
    objectives, splits, experts = world()
    risks = MergedRisks(objectives=objectives, splits=splits)
    lost = risks.measure(Plan.uniform("ab", RECIPE, 0.5), {"a": experts["a"], "b": None}, seed=0)
    assert all(math.isinf(value) for value in lost.risks.values())
    assert math.isinf(lost.squared_displacements["b"])
    plan = Plan(recipes=dict.fromkeys("ab", RECIPE), coefficients={"a": 0.5, "b": 0.0})
    kept = risks.measure(plan, {"a": experts["a"], "b": None}, seed=0)
    assert all(math.isfinite(value) for value in kept.risks.values())


def test_trained_heads_stay_with_their_own_task():
    objectives, splits, experts = world(trained_head=True)
    risks = MergedRisks(objectives=objectives, splits=splits)
    plan = Plan(recipes=dict.fromkeys("ab", RECIPE), coefficients={"a": 1.0, "b": 0.0})
    seen = risks.measure(plan, experts, seed=0)
    own = evaluate(objectives["a"], experts["a"], splits["a"]).risk
    assert seen.risks["a"] == pytest.approx(own, rel=1e-6)


def test_the_paired_error_is_far_below_the_error_of_either_risk():
    generator = torch.Generator().manual_seed(0)
    before = torch.rand(200, generator=generator).double() * 3
    after = before + 0.01 * torch.randn(200, generator=generator).double()
    assert paired_error(after, before) < 0.02 * float(before.std()) / math.sqrt(200) * 1.5
    assert paired_error(before[:1], after[:1]) == 0.0


def test_a_trace_keeps_log_spaced_steps_and_the_last():
    objectives, splits, _ = world()
    run = Run(task="a", recipe=RECIPE.replace(steps=60), seed=0)
    done = fine_tune(objectives["a"], splits["a"], run)
    trace = displacement_trace(done)
    assert trace is not None
    assert trace.steps[0] == 1
    assert trace.steps[-1] == 60
    assert len(trace.steps) <= 24
    np.testing.assert_allclose(trace.squared_displacements[-1], done.squared_displacements[-1])


def test_runs_of_equal_shape_are_stacked_and_give_what_single_runs_give():
    objectives, splits, experts = world()
    runs = [Run(task=name, recipe=RECIPE, seed=1) for name in objectives]
    for limit in (1, 8):
        groups = list(train_runs(objectives, splits, runs, stack_limit=limit))
        assert [len(group) for group in groups] == ([1, 1] if limit == 1 else [2])
        for result in (r for group in groups for r in group):
            torch.testing.assert_close(result.weights, experts[result.run.task], rtol=1e-5, atol=1e-6)


def test_out_of_memory_halves_stack_and_batch_and_then_stops_clearly(monkeypatch):
    objectives, splits, experts = world()
    runs = [Run(task=name, recipe=RECIPE, seed=1) for name in objectives]
    largest: list[int] = []

    def scarce(limit):
        from estimators import fine_tuning

        def train(objs, trains, group, *, micro_batch=None, **options):
            size = len(group) * min(micro_batch or 4, 4)
            if size > limit:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            largest.append(size)
            return fine_tuning.fine_tune_stack(objs, trains, group, micro_batch=micro_batch, **options)

        return train

    monkeypatch.setattr("advisor.training.fine_tune_stack", scarce(2))
    done = [r for group in train_runs(objectives, splits, runs, stack_limit=8) for r in group]
    assert largest == [2, 2]
    for result in done:
        torch.testing.assert_close(result.weights, experts[result.run.task], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr("advisor.training.fine_tune_stack", scarce(0))
    with pytest.raises(OutOfMemory, match="task='a': the gradient of a single sample does not fit"):
        list(train_runs(objectives, splits, runs, stack_limit=8))
