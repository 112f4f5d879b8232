"""Merging problems whose answers are known: linear features, so logits are exactly affine in the coefficients.

x(lambda) = x_0 + sum_i lambda_i tau_i enters the logits linearly, the goal is convex in lambda, and a general-purpose
minimiser on the true function is the outside truth.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from advisor.coefficients_problem import TuningProblem
from advisor.coefficients_recombining import cache_task_vectors
from advisor.goal import Goal
from estimators.backbone import TorchBackbone
from estimators.tasks import LinearHead, Split

CLASSES, WIDTH, INPUTS = 3, 4, 6


def logistic_problem(
    names: tuple[str, ...] = ("a", "b", "c"),
    *,
    samples: int = 60,
    seed: int = 0,
    strength: float = 2.0,
    goal: Goal | None = None,
) -> TuningProblem:
    """Tasks with labels drawn from a softmax of their own linear map; experts point there, with noise, too far."""
    generator = torch.Generator().manual_seed(seed)
    backbone = TorchBackbone(nn.Sequential(nn.Flatten(), nn.Linear(INPUTS, WIDTH)))
    torch.manual_seed(seed)
    with torch.no_grad():
        start = 0.1 * torch.randn(backbone.num_parameters, generator=generator)
        backbone._initial.copy_(start)
    base = backbone.state_dict(start)
    backbone.module.load_state_dict(base)
    heads, split, experts = {}, {}, {}
    for name in names:
        head = LinearHead(weight=torch.randn(CLASSES, WIDTH, generator=generator), bias=torch.zeros(CLASSES))
        truth = start + strength * torch.randn(start.shape, generator=generator) / INPUTS**0.5
        inputs = torch.randn(samples, 1, 2, 3, generator=generator)
        scores = torch.nn.functional.linear(backbone.features(truth, inputs), head.weight, head.bias)
        labels = torch.multinomial(torch.softmax(scores, 1), 1, generator=generator).squeeze(1)
        noise = 0.5 * torch.randn(start.shape, generator=generator)
        heads[name], split[name] = head, Split(inputs=inputs, labels=labels)
        experts[name] = backbone.state_dict(start + 1.5 * (truth - start) + noise)
    return TuningProblem(
        merges=cache_task_vectors(backbone, base, experts),
        heads=heads,
        samples=split,
        goal=goal or Goal(weights=dict.fromkeys(names, 1.0)),
    )


def true_risks(problem: TuningProblem, row: np.ndarray) -> np.ndarray:
    """Validation risk of every task at coefficients [N], written out with torch's own cross-entropy."""
    weights = problem.merges.start.double().clone()
    for value, vector in zip(row, problem.merges.vectors, strict=True):
        weights += float(value) * vector.double()
    matrix = weights[: INPUTS * WIDTH].view(WIDTH, INPUTS)
    offset = weights[INPUTS * WIDTH :]
    found = []
    for name, split in problem.samples.items():
        features = split.inputs.double().flatten(1) @ matrix.T + offset
        logits = features @ problem.heads[name].weight.double().T + problem.heads[name].bias.double()
        found.append(float(torch.nn.functional.cross_entropy(logits, split.labels)))
    return np.array(found)
