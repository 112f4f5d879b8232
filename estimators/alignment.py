r"""Ways of training that align experts before they are merged.

Tangent (linearised) fine-tuning trains the first-order model f(x_0) + J (x - x_0), whose task vectors add without
interference as long as the linear model holds (Ortiz-Jimenez et al. 2023, *Task Arithmetic in the Tangent Space*).
Sharpness-aware fine-tuning takes the gradient at x + rho g/||g|| (Foret et al. 2021), so experts end in
flatter regions.
Both cost two passes a sample.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from estimators.objectives import StackedObjective

SAM_RADIUS = 0.05  # the default of the paper


def tangent_losses(
    objective: StackedObjective, start: Tensor, weights: Tensor, inputs: Tensor, labels: Tensor
) -> Tensor:
    """Losses [R, B] of the model linearised at ``start`` [R, P], at ``weights`` [R, P]."""

    def features(x: Tensor) -> Tensor:
        return torch.func.vmap(objective.backbone.features)(x, inputs)

    value, slope = torch.func.jvp(features, (start,), (weights - start,))[:2]
    logits = torch.baddbmm(objective.bias.unsqueeze(1), (value + slope).float(), objective.weight.transpose(1, 2))
    rows, batch, classes = logits.shape
    flat = functional.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none")
    return flat.view(rows, batch)


def sharpness_aware_gradient(
    gradient: Callable[[Tensor], tuple[Tensor, Tensor]], weights: Tensor, radius: float = SAM_RADIUS
) -> tuple[Tensor, Tensor]:
    """Losses at ``weights`` [R, D] and gradients [R, D] at weights + radius * g/||g||."""
    losses, slope = gradient(weights)
    norm = slope.norm(dim=1, keepdim=True).clamp_min(torch.finfo(slope.dtype).tiny)
    _, aware = gradient(weights + radius * slope / norm)
    return losses, aware
