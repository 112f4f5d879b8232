import numpy as np
import pytest
import torch
from sklearn.base import clone

from estimators.constants import Estimate
from estimators.cost import CostMeter
from estimators.initial_gradient import InitialGradientNorm, InitialRisk, ProgressRate
from estimators.objectives import ClassificationObjective, evaluate
from estimators.outcomes import LossNotFinite
from estimators.tasks import LinearHead, Split
from tests.known_problems import random_quadratic_problem
from tests.quadratic_objectives import rows_of
from tests.small_networks import small_objective, small_split


def test_risk_and_accuracy_are_those_of_an_evaluation():
    objective, split, meter = small_objective("cnn"), small_split(60), CostMeter()
    found, truth = InitialRisk().fit(objective, split, meter=meter), evaluate(objective, objective.initial, split)
    assert found.estimate_.value == pytest.approx(truth.risk, rel=1e-6)
    assert found.accuracy_.value == truth.accuracy
    assert found.estimate_.low < truth.risk < found.estimate_.high
    assert meter.units == pytest.approx(20)
    assert found.gap_.value == found.estimate_.value


def test_the_gap_counts_from_the_floor():
    objective, split = small_objective("cnn"), small_split(30)
    risk = InitialRisk().fit(objective, split).estimate_.value
    assert InitialRisk(floor=risk / 2).fit(objective, split).gap_.value == pytest.approx(risk / 2)
    assert InitialRisk(floor=2 * risk).fit(objective, split).gap_.value == 0
    with pytest.raises(ValueError, match="floor=-1 must be at least 0"):
        InitialRisk(floor=-1).fit(objective, split)


def test_a_head_that_fits_perfectly_leaves_no_gap():
    objective = small_objective("cnn")
    head = LinearHead(weight=torch.zeros_like(objective.head.weight), bias=torch.tensor([200.0, 0.0, 0.0]))
    split = small_split(12)
    found = InitialRisk().fit(
        ClassificationObjective(objective.backbone, head),
        Split(inputs=split.inputs, labels=torch.zeros_like(split.labels)),
    )
    assert found.gap_.value == 0
    assert "no gap left" in found.gap_.note


def test_one_validation_sample_gives_no_interval():
    found = InitialRisk().fit(small_objective("cnn"), small_split(1)).estimate_
    assert not found.identifiable
    assert "add validation samples" in found.note


def test_further_losses_are_pooled_and_cost_nothing():
    objective, split, meter = small_objective("cnn"), small_split(60), CostMeter()
    alone = InitialRisk().fit(objective, split)
    further = alone.losses_.repeat(3)
    found = InitialRisk().fit(objective, split, further=further, meter=meter)
    assert found.pooled_
    assert found.estimate_.value == pytest.approx(alone.estimate_.value, rel=1e-6)
    assert found.estimate_.num_samples == 240
    assert found.estimate_.high - found.estimate_.low < 0.6 * (alone.estimate_.high - alone.estimate_.low)
    assert meter.units == found.estimate_.cost == pytest.approx(20)
    assert found.accuracy_ == alone.accuracy_


def test_heavy_tails_that_few_validation_samples_miss_are_found_in_further_losses():
    """Losses exp(3 z): their mean rests on a few samples; over 60 draws pooling errs far less."""

    class Drawn:
        initial = torch.zeros(1)

        def __init__(self, losses):
            self.losses = losses

        def logits(self, weights, inputs):  # two classes whose loss is the wanted one
            wanted = self.losses[inputs.long().ravel()]
            return torch.stack([torch.zeros_like(wanted), torch.log(torch.expm1(wanted))], dim=1)

    errors, truth = [], 0.05 * np.exp(2.0) + 1e-3
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        losses = 0.05 * torch.exp(2 * torch.randn(96 + 1000, generator=generator)) + 1e-3
        split = Split(inputs=torch.arange(96).float()[:, None], labels=torch.zeros(96, dtype=torch.int64))
        few = InitialRisk().fit(Drawn(losses[:96].clamp(max=80)), split).estimate_.value
        many = InitialRisk().fit(Drawn(losses[:96].clamp(max=80)), split, further=losses[96:]).estimate_.value
        errors.append([np.log(few / truth), np.log(many / truth)])
    few, many = np.sqrt(np.mean(np.square(errors), axis=0))
    assert many < 0.6 * few


def test_further_losses_of_another_distribution_are_left_out():
    objective, split = small_objective("cnn"), small_split(60)
    alone = InitialRisk().fit(objective, split)
    found = InitialRisk().fit(objective, split, further=alone.losses_.repeat(3) / 10)
    assert not found.pooled_
    assert found.estimate_.value == alone.estimate_.value
    assert "180 cross-validated samples differ: left out" in found.estimate_.note


def test_a_loss_that_is_not_finite_is_named():
    split = small_split(4)
    with pytest.raises(LossNotFinite, match="4 of 4"):
        InitialRisk().fit(small_objective("cnn"), Split(inputs=split.inputs * float("nan"), labels=split.labels))


def test_gradient_norm_converges_to_the_truth():
    rng = np.random.default_rng(0)
    problem = random_quadratic_problem(rng, num_parameters=6)
    task = problem.tasks[0]
    truth = float(np.linalg.norm(task.gradient(problem.start)))
    errors = []
    for count in (100, 2_000):
        found = InitialGradientNorm().fit(rows_of(task.gradients(problem.start, task.sample(count, rng))))
        errors.append(abs(found.estimate_.value - truth) / truth)
        assert found.estimate_.value**2 == pytest.approx(found.squared_.value)
    assert errors[1] < 0.1


def test_progress_rate_is_the_first_fall_of_the_risk():
    """mu_j * gap_j equals the derivative of risk j along the merged negative gradients (finite difference)."""
    rng = np.random.default_rng(1)
    problem = random_quadratic_problem(rng, num_parameters=5)
    rows = {
        name: rows_of(np.tile(task.gradient(problem.start), (4, 1)))
        for name, task in zip(problem.names, problem.tasks, strict=True)
    }
    shares = dict(zip(problem.names, problem.task_weights.tolist(), strict=True))
    gaps = {name: Estimate(value=2.0, low=1.0, high=3.0) for name in rows}
    found = ProgressRate(shares=shares).fit(rows, gaps).estimates_
    step = 1e-5 * -(problem.task_weights @ problem.task_gradients(problem.start))
    for name, task in zip(problem.names, problem.tasks, strict=True):
        fall = -(task.risk(problem.start + step) - task.risk(problem.start - step)) / 2e-5
        assert found[name].value * 2.0 == pytest.approx(fall, rel=1e-4)


def test_without_a_gap_nothing_can_be_gained():
    rows = {"a": rows_of(np.eye(3))}
    found = ProgressRate().fit(rows, {"a": Estimate(value=0.0, low=0.0, high=0.0)}).estimates_["a"]
    assert (found.value, found.identifiable) == (0.0, False)
    assert "nothing can be gained" in found.note


def test_parameters_are_cloned_in_scikit_learns_way():
    assert clone(InitialRisk(num_samples=3)).get_params()["num_samples"] == 3
    assert clone(ProgressRate(shares={"a": 1.0})).get_params() == {"shares": {"a": 1.0}}
