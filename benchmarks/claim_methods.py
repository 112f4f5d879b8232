r"""What a way of merging changes: which term of the bound, measured, beside the merge's risk and accuracy (claim 6).

With D = x_merge - x_0, F the mean training risk of the main tasks and g its gradient at x_0:

    progress  pi      -<g, D>, against the simple average's                    first order
    interference  k   F(x_0 + D) - F(x_0) - <g, D>, against the simple average's    all beyond first order
    heterogeneity     mean cosine between task vectors; chi^2 of the shares lambda_i eta_i ||a_i||_1
    displacement      ||D||

Shrinking lambda by s gives pi = s and, on a quadratic, k = s^2, so k/pi^2 is free of the coefficient: a method has less
interference *for its progress* where it is below 1.  Gradient and risks are of the same training samples.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from advisor.bound_terms import chi_square, shares
from advisor.merging import tune_by_gradient
from advisor.probing import LINEAR_METHOD
from benchmarks.claim_design import MAIN, Design
from benchmarks.claim_inputs import Unit
from benchmarks.claim_merging import Member, UnitMerger, rounded

AVERAGE = 1 / len(MAIN)
ADAMERGING_STEPS, ADAMERGING_RATE = 40, 0.02


def measure_methods(design: Design, merger: UnitMerger) -> list[dict[str, Any]]:
    """One row for each way of merging, at the step where aligned experts end."""
    step = design.middle // 2
    base: dict[str, Member] = dict.fromkeys(MAIN, ("base", step))
    tuned = adamerging(merger, base)
    common = dict.fromkeys(MAIN, AVERAGE)
    ways: list[tuple[str, dict[str, Member], Mapping[str, float], str]] = [
        ("simple average", base, common, LINEAR_METHOD),
        ("task arithmetic, λ = 0.5", base, dict.fromkeys(MAIN, 0.5), LINEAR_METHOD),
        ("TIES", base, dict.fromkeys(MAIN, 1.0), "ties"),
        ("DARE", base, common, "dare"),
        ("AdaMerging", base, tuned, LINEAR_METHOD),
        ("tangent", dict.fromkeys(MAIN, ("tangent", step)), common, LINEAR_METHOD),
        ("sharpness-aware", dict.fromkeys(MAIN, ("sam", step)), common, LINEAR_METHOD),
    ]
    gradient = mean_gradient(merger.unit)
    return [
        {"way": name} | _describe(merger, gradient, members, coefficients, method)
        for name, members, coefficients, method in ways
    ]


def adamerging(merger: UnitMerger, members: Mapping[str, Member]) -> dict[str, float]:
    """Task-wise coefficients that minimise the entropy of predictions on validation inputs, labels unseen."""
    unit = merger.unit
    vectors = [merger.task_vector(task, member) for task, member in members.items()]
    alive = [{"x": vector.cpu()} for vector in vectors if vector is not None]
    if len(alive) < len(vectors):
        raise ValueError("an expert diverged, so AdaMerging has nothing to weigh; lower the base rate")
    inputs = {task.name: task.validation.inputs for task in unit.inputs.tasks if task.name in members}

    def entropy(state: Mapping[str, Any]) -> tuple[float, dict[str, Tensor]]:
        weights = state["x"].to(merger.start.device).requires_grad_(True)
        losses = []
        for task, batch in inputs.items():
            log = functional.log_softmax(unit.inputs.objectives[task].logits(weights, batch.to(weights.device)), dim=1)
            losses.append(-(log.exp() * log).sum(dim=1).mean())
        total = torch.stack(losses).sum()
        (gradient,) = torch.autograd.grad(total, weights)
        return float(total.detach()), {"x": gradient.cpu()}

    result = tune_by_gradient(
        {"x": merger.start.cpu()},
        alive,
        entropy,
        granularity="task",
        steps=ADAMERGING_STEPS,
        learning_rate=ADAMERGING_RATE,
        initial=AVERAGE,
    )
    return dict(zip(members, result.task_coefficients, strict=True))


def _training_risk(unit: Unit, weights: Tensor) -> Tensor:
    """F: mean over the main tasks of the risk on their evaluated training samples."""
    risks = []
    for task in MAIN:
        samples = unit.samples[task]
        first = samples.sizes.validation + samples.sizes.test
        logits = samples.objective.logits(weights, samples.inputs[first:])
        risks.append(functional.cross_entropy(logits.float(), samples.labels[first:]))
    return torch.stack(risks).mean()


def mean_gradient(unit: Unit) -> Tensor:
    """Gradient of F at x_0 [P]."""
    weights = unit.inputs.backbone.initial.clone().requires_grad_(True)
    return torch.autograd.grad(_training_risk(unit, weights), weights)[0]


def _describe(
    merger: UnitMerger, gradient: Tensor, members: Mapping[str, Member], coefficients: Mapping[str, float], method: str
) -> dict[str, Any]:
    merged = merger.merged(members, coefficients, method)
    if merged is None:
        raise ValueError(f"an expert of {dict(members)} diverged; lower the base rate")
    moved = merged - merger.start
    first_order = float(gradient @ moved)
    with torch.no_grad():
        change = float(_training_risk(merger.unit, merged) - _training_risk(merger.unit, merger.start))
    gram = np.array(merger.gram(members))
    norms = np.sqrt(np.diag(gram))
    cosines = (gram / np.outer(norms, norms))[np.triu_indices(len(norms), 1)]
    # equal recipes: lambda_i eta_i ||a_i||_1 is proportional to lambda_i
    weights = np.full(len(MAIN), 1 / len(MAIN))
    travelled = np.array([[coefficients[task] for task in MAIN]])
    figures = {task: merger.figures(task, merged) for task in MAIN}
    return {
        "coefficients": {task: rounded(value) for task, value in coefficients.items()},
        "method": method,
        "progress": rounded(-first_order),
        "beyond": rounded(change - first_order),
        "length": rounded(float(moved.norm())),
        "expert_length": rounded(float(norms.mean())),
        "cosine": rounded(float(cosines.mean())),
        "chi_square": rounded(float(chi_square(weights, shares(travelled, weights))[0])),
        "figures": figures,
    }
