"""Training loops as other people write them: a module, a frozen head, ``torch.optim``, batches in a given order."""

import copy
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from advisor.workspace import Workspace
from estimators.recipe import Recipe
from estimators.recording import TraceRecorder
from estimators.sampling import batch_indices, stable_seed


class Classifier(nn.Module):
    """A backbone that trains and a head that does not."""

    def __init__(self, ws: Workspace, task: str) -> None:
        super().__init__()
        own = ws.prepared.backbone
        self.backbone = copy.deepcopy(own.module).eval()
        for name, value in self.backbone.named_parameters():
            value.requires_grad_(name in own.names)
        head = ws.tasks[task].fitted_head()
        self.head = nn.Linear(head.weight.shape[1], head.num_classes).requires_grad_(False)
        self.head.load_state_dict({"weight": head.weight, "bias": head.bias})
        self.preprocess = own.preprocess

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.backbone(self.preprocess(inputs)))


def optimizer_of(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The optimizer that a recipe names."""
    moving = [value for value in model.parameters() if value.requires_grad]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(moving, lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    return torch.optim.SGD(moving, lr=recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def batches(ws: Workspace, task: str, recipe: Recipe, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches that this package's own loop would see."""
    train = ws.tasks[task].train
    generator = np.random.default_rng(stable_seed(seed, task, "batches"))
    order = batch_indices(len(train), recipe.batch_size, recipe.steps, sampling=recipe.sampling, generator=generator)
    for index in torch.from_numpy(order):
        yield train.inputs[index], train.labels[index]


def record(
    ws: Workspace,
    task: str,
    recipe: Recipe,
    folder: Path,
    *,
    seed: int = 0,
    stop_after: int | None = None,
    spoil: Callable[[int, Tensor], Tensor] = lambda step, loss: loss,
    **options: object,
) -> Path:
    """Train one task in a plain loop with a recorder; returns the trace's folder."""
    model = Classifier(ws, task)
    optimizer = optimizer_of(model, recipe)
    given = {"prefix": "backbone.", "seed": seed} | options
    recorder = TraceRecorder(model, folder, task=task, recipe=recipe, **given)
    for step, (inputs, labels) in enumerate(batches(ws, task, recipe, seed), start=1):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(inputs), labels)
        loss.backward()
        optimizer.step()
        recorder.step(model, spoil(step, loss))
        if step == stop_after:
            break
    recorder.close()
    return folder
