import numpy as np
import pytest
import torch
from torch import nn

from estimators import per_sample_gradients
from estimators.backbone import TorchBackbone
from estimators.cost import CostMeter
from estimators.gradient_rows import SKETCH_SIZE
from estimators.gradient_variance import row_variance
from estimators.objectives import ClassificationObjective
from estimators.outcomes import LossNotFinite, NotEnoughMemory
from estimators.per_sample_gradients import BATCH, measure_gradients
from estimators.tasks import LinearHead, Split
from tests.small_networks import NETWORKS, NUM_CLASSES, small_objective, small_split


def brute_force_gradients(objective, weights, samples):
    """Naive twin: one ordinary backward pass a sample."""
    rows = []
    for i in range(len(samples)):
        point = weights.clone().requires_grad_()
        objective.losses(point, samples.inputs[i : i + 1], samples.labels[i : i + 1])[0].backward()
        rows.append(point.grad.double())
    return torch.stack(rows)


@pytest.mark.parametrize("name", NETWORKS)
def test_rows_give_the_mean_norms_and_variance_of_a_brute_force_loop(name):
    objective, samples = small_objective(name), small_split(24)
    rows = brute_force_gradients(objective, objective.initial, samples)
    variance = float((rows - rows.mean(0)).square().sum() / (len(rows) - 1))

    measured = measure_gradients(objective, objective.initial, samples, population=1000)

    assert measured.note == ""
    assert torch.linalg.vector_norm(measured.single.mean - rows.mean(0)) < 1e-5 * torch.linalg.vector_norm(rows.mean(0))
    assert measured.single.squared_norms == pytest.approx(rows.square().sum(1).numpy(), rel=1e-4)
    assert row_variance(measured.single) == pytest.approx(variance, rel=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_batches_are_the_means_of_eight_consecutive_samples_however_they_were_taken(name):
    objective, samples = small_objective(name), small_split(24)
    rows = brute_force_gradients(objective, objective.initial, samples).reshape(3, BATCH, -1).mean(1)

    mixed = measure_gradients(objective, objective.initial, samples, population=1000, num_single=BATCH)

    assert mixed.single.num_rows == BATCH
    assert mixed.batched.squared_norms == pytest.approx(rows.square().sum(1).numpy(), rel=1e-3)
    assert mixed.further.num_samples == 2 * BATCH
    assert torch.linalg.vector_norm(mixed.best.mean - rows.mean(0)) < 1e-5 * torch.linalg.vector_norm(rows.mean(0))


def test_noise_draws_are_signed_sums_free_of_the_mean():
    objective, samples = small_objective("cnn"), small_split(16)
    rows = brute_force_gradients(objective, objective.initial, samples)
    signs = torch.tensor([1.0, -1.0] * 4, dtype=torch.float64) / 8**0.5
    seen = []
    measure_gradients(objective, objective.initial, samples, population=100, on_batch=seen.append)
    assert torch.allclose(torch.stack(seen).double(), torch.stack([signs @ rows[:8], signs @ rows[8:]]), atol=1e-5)


def test_sketches_keep_squared_lengths_to_a_few_percent():
    objective, samples = small_objective("test_vit"), small_split(16)
    rows = measure_gradients(objective, objective.initial, samples, population=100).single
    assert objective.num_shared > SKETCH_SIZE
    sketched = rows.sketches.double().square().sum(1).numpy()
    assert np.abs(sketched / rows.squared_norms - 1).mean() < 0.05


def test_every_gradient_is_booked_as_one_unit():
    meter = CostMeter()
    objective = small_objective("cnn")
    measure_gradients(objective, objective.initial, small_split(24), population=100, num_single=8, meter=meter)
    assert meter.units == 24


def test_results_do_not_depend_on_the_memory_budget():
    objective, samples = small_objective("cnn"), small_split(16)
    wide = measure_gradients(objective, objective.initial, samples, population=100, memory_budget=1e9)
    narrow = measure_gradients(objective, objective.initial, samples, population=100, memory_budget=1.0)
    assert narrow.single.squared_norms == pytest.approx(wide.single.squared_norms, rel=1e-5)


def batch_norm_objective(*, train: bool, statistics: bool = True) -> ClassificationObjective:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        nn.BatchNorm2d(4, track_running_stats=statistics),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    backbone = TorchBackbone(module)
    module.train(train)
    return ClassificationObjective(backbone, LinearHead(weight=torch.randn(NUM_CLASSES, 4), bias=torch.zeros(3)))


def test_batch_norm_in_train_mode_falls_back_to_the_two_batch_estimate_and_says_so():
    objective, samples = batch_norm_objective(train=True), small_split(64)
    measured = measure_gradients(objective, objective.initial, samples, population=1000)
    assert measured.single is None
    assert "two-batch estimate" in measured.note
    means = torch.stack(
        [
            brute_batch(objective, Split(inputs=samples.inputs[i : i + 8], labels=samples.labels[i : i + 8]))
            for i in range(0, 64, 8)
        ]
    )
    truth = BATCH * float((means - means.mean(0)).square().sum() / 7)
    assert row_variance(measured.batched) == pytest.approx(truth, rel=1e-4)


def brute_batch(objective, batch):
    point = objective.initial.clone().requires_grad_()
    objective.losses(point, batch.inputs, batch.labels).mean().backward()
    return point.grad.double()


def test_batch_norm_in_eval_mode_keeps_per_sample_gradients():
    objective, samples = batch_norm_objective(train=False), small_split(8)
    measured = measure_gradients(objective, objective.initial, samples, population=1000)
    assert measured.single is not None
    assert measured.note == ""


class DataDependentBranch(nn.Module):
    """Control flow on a value, which vmap cannot take."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3 * 256, 4)

    def forward(self, x):
        out = self.layer(x.flatten(1))
        return torch.tanh(out) if float(out.detach().sum()) > 0 else out


def test_layers_that_vmap_cannot_take_are_looped_over_exactly():
    torch.manual_seed(0)
    backbone = TorchBackbone(DataDependentBranch())
    objective = ClassificationObjective(backbone, LinearHead(weight=torch.randn(3, 4), bias=torch.zeros(3)))
    # A batch takes one branch for all of its samples, so the pair that is checked for interaction must agree.
    samples = small_split(64)
    alone = objective.backbone.module.layer(samples.inputs.flatten(1)).sum(1)
    chosen = torch.nonzero(alone > 0).flatten()[:12]
    samples = Split(inputs=samples.inputs[chosen], labels=samples.labels[chosen])

    measured = measure_gradients(objective, objective.initial, samples, population=100)

    assert "one by one" in measured.note
    truth = brute_force_gradients(objective, objective.initial, samples).square().sum(1).numpy()
    assert measured.single.squared_norms == pytest.approx(truth, rel=1e-4)


def test_a_chunk_that_does_not_fit_is_halved_until_it_does(monkeypatch):
    objective, samples = small_objective("cnn"), small_split(16)
    whole = per_sample_gradients._vmapped

    def tight(objective, weights, inputs, labels):
        if len(inputs) > 2:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")
        return whole(objective, weights, inputs, labels)

    monkeypatch.setattr(per_sample_gradients, "_vmapped", tight)
    measured = measure_gradients(objective, objective.initial, samples, population=100, memory_budget=1e9)
    assert measured.single.num_rows == 16


def test_no_room_for_a_single_sample_is_a_named_outcome(monkeypatch):
    objective = small_objective("cnn")

    def never(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(per_sample_gradients, "_vmapped", never)
    with pytest.raises(NotEnoughMemory, match="freeze more of the backbone"):
        measure_gradients(objective, objective.initial, small_split(4), population=100)


def test_a_loss_that_is_not_finite_is_a_named_outcome():
    objective = small_objective("cnn")
    samples = small_split(4)
    broken = Split(inputs=samples.inputs * float("nan"), labels=samples.labels)
    with pytest.raises(LossNotFinite, match="4 of 4 are NaN or infinite"):
        measure_gradients(objective, objective.initial, broken, population=100)
