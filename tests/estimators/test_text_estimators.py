"""Every estimator's product on a text encoder, against a loop over samples that knows no vmap."""

import pytest
import torch

from estimators.backbone_kinds import build_backbone
from estimators.cost import CostMeter
from estimators.curvature import hessian_product
from estimators.encoder_files import find_encoder
from estimators.encoder_loading import EncoderSource
from estimators.fine_tuning import Run, fine_tune, fine_tune_stack
from estimators.lanczos import random_direction, top_eigenvalue
from estimators.objectives import ClassificationObjective
from estimators.per_sample_gradients import measure_gradients
from estimators.recipe import Recipe
from estimators.tasks import LinearHead, Split
from estimators.tokenising import PADDING
from tests.small_encoders import CONFIG, write_encoder

pytest.importorskip("transformers", reason="needs the extra 'text'")


@pytest.fixture(scope="module")
def objective(tmp_path_factory: pytest.TempPathFactory) -> ClassificationObjective:
    folder = write_encoder(tmp_path_factory.mktemp("encoder") / "m", CONFIG | {"num_hidden_layers": 1})
    source = EncoderSource(files=find_encoder("m", folder), max_length=6, frozen=("embeddings",))
    backbone, _ = build_backbone(source)
    generator = torch.Generator().manual_seed(0)
    return ClassificationObjective(
        backbone, LinearHead(weight=torch.randn(3, 16, generator=generator) / 2, bias=torch.zeros(3))
    )


@pytest.fixture(scope="module")
def samples() -> Split:
    generator = torch.Generator().manual_seed(1)
    rows = torch.randint(4, 20, (16, 6), generator=generator, dtype=torch.int32)
    for position, length in enumerate(torch.randint(2, 7, (16,), generator=generator)):
        rows[position, int(length) :] = PADDING
    return Split(inputs=rows, labels=torch.randint(0, 3, (16,), generator=generator))


def gradients(objective: ClassificationObjective, samples: Split) -> torch.Tensor:
    """One ordinary backward pass a sample, its padding cut off [n, P]."""
    found = []
    for row, label in zip(samples.inputs, samples.labels, strict=True):
        point = objective.initial.clone().requires_grad_()
        loss = objective.losses(point, row[row != PADDING][None], label[None])[0]
        found.append(torch.autograd.grad(loss, point)[0])
    return torch.stack(found)


def test_per_sample_gradients_are_those_of_a_loop(objective: ClassificationObjective, samples: Split) -> None:
    found = measure_gradients(objective, objective.initial, samples, population=1000, meter=CostMeter())
    rows = gradients(objective, samples)
    assert found.note == ""
    assert found.single is not None
    torch.testing.assert_close(found.single.mean, rows.mean(dim=0), atol=1e-6, rtol=1e-4)
    expected = (rows.double() ** 2).sum(dim=1)
    torch.testing.assert_close(torch.as_tensor(found.single.squared_norms), expected, atol=1e-8, rtol=1e-4)


def test_hessian_products_are_those_of_finite_differences(objective: ClassificationObjective, samples: Split) -> None:
    start, generator = objective.initial, torch.Generator().manual_seed(2)
    vector = torch.randn(start.shape, generator=generator)
    found = hessian_product(objective, start, samples, vector)
    step = 1e-3 / vector.norm()

    def slope(point: torch.Tensor) -> torch.Tensor:
        point = point.clone().requires_grad_()
        return torch.autograd.grad(objective.losses(point, samples.inputs, samples.labels).mean(), point)[0]

    difference = (slope(start + step * vector) - slope(start - step * vector)) / (2 * step)
    assert float((found - difference).norm() / found.norm()) < 0.05


def test_lanczos_finds_the_top_eigenvalue_of_the_whole_hessian(
    objective: ClassificationObjective, samples: Split
) -> None:
    few, start = samples.head(4), objective.initial
    directions = torch.randn(40, start.numel(), generator=torch.Generator().manual_seed(3))

    def product(vector: torch.Tensor) -> torch.Tensor:
        return hessian_product(objective, start, few, vector)

    found = top_eigenvalue(product, random_direction(start, 0), max_products=60, tolerance=1e-4)
    quotients = [float(v @ product(v) / (v @ v)) for v in directions]
    assert found.value > max(quotients)
    image = product(found.vector)
    assert float((image - found.value * found.vector).norm()) < 1e-2 * found.value
    torch.testing.assert_close(float(found.vector @ image), found.value, rtol=1e-3, atol=1e-4)


def test_runs_trained_together_are_those_trained_alone(objective: ClassificationObjective, samples: Split) -> None:
    recipe = Recipe(learning_rate=0.05, batch_size=4, steps=5)
    runs = [Run(task="a", recipe=recipe, seed=seed) for seed in (1, 2)]
    stacked = fine_tune_stack([objective] * 2, [samples] * 2, runs)
    for run, together in zip(runs, stacked, strict=True):
        alone = fine_tune(objective, samples, run)
        torch.testing.assert_close(together.weights, alone.weights, atol=1e-5, rtol=1e-4)
        assert float((alone.weights - objective.initial).norm()) > 1e-3
