r"""A task's loss as a function of one flat vector: l(x; z) for every sample z of a batch.

Training, curvature and gradient statistics only see ``Objective.losses``, so closed-form problems stand in for
networks in tests.  With heads that train along, the vector is [x, h]: the first ``num_shared`` entries are the
backbone's x (what is merged, and what displacement measures), the rest belong to the task alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from estimators.backbone import Backbone
from estimators.cost import CostMeter
from estimators.tasks import LinearHead, Split

MASKED_LOGIT = -1e9  # a class that another task of a stack has and this one lacks


class Objective(Protocol):
    """The loss of single samples at a flat vector of weights."""

    @property
    def initial(self) -> Tensor:
        """The start vector [D]."""
        ...

    @property
    def num_shared(self) -> int:
        """Leading entries that are the backbone's."""
        ...

    def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Losses [B] of a batch at ``weights`` [D]."""
        ...


class ClassificationObjective:
    """Cross-entropy of a linear head on the backbone's features.

    Args:
        backbone: the features.
        head: the head; the start of training where it trains along.
        trained_head: whether the head moves with the backbone.
    """

    def __init__(self, backbone: Backbone, head: LinearHead, *, trained_head: bool = False) -> None:
        self.backbone, self.trained_head = backbone, trained_head
        self.head = head.to(backbone.initial.device)

    @property
    def initial(self) -> Tensor:
        """x_0, followed by the head's parameters where it trains along."""
        shared = self.backbone.initial
        return torch.cat([shared, self.head.flat()]) if self.trained_head else shared

    @property
    def num_shared(self) -> int:
        """Number of backbone parameters P."""
        return self.backbone.initial.numel()

    def logits(self, weights: Tensor, inputs: Tensor) -> Tensor:
        """Class scores [B, C]."""
        head = self.head_at(weights)
        features = self.backbone.features(weights[: self.num_shared], inputs)
        return functional.linear(features, head.weight.to(features.dtype), head.bias.to(features.dtype))

    def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each sample, nats, [B]."""
        return functional.cross_entropy(self.logits(weights, inputs).float(), labels, reduction="none")

    def head_at(self, weights: Tensor) -> LinearHead:
        """The head that belongs to ``weights``."""
        if not self.trained_head:
            return self.head
        classes, width = self.head.weight.shape
        flat = weights[self.num_shared :]
        return LinearHead(weight=flat[: classes * width].view(classes, width), bias=flat[classes * width :])


class StackedObjective:
    """R classification objectives on one backbone, evaluated at R weight vectors in one call (``torch.func.vmap``).

    Heads must be frozen; tasks with fewer classes than the largest are padded with classes that never win.
    """

    def __init__(self, backbone: Backbone, heads: Sequence[LinearHead]) -> None:
        device, classes = backbone.initial.device, max(head.num_classes for head in heads)
        self.backbone = backbone
        self.weight = torch.stack(
            [functional.pad(head.weight, (0, 0, 0, classes - head.num_classes)) for head in heads]
        ).to(device)
        self.bias = torch.stack(
            [functional.pad(head.bias, (0, classes - head.num_classes), value=MASKED_LOGIT) for head in heads]
        ).to(device)

    def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Losses [R, B] at weights [R, P] of inputs [R, B, ...] and labels [R, B]."""
        features = torch.func.vmap(self.backbone.features)(weights, inputs)
        logits = torch.baddbmm(self.bias.unsqueeze(1), features.float(), self.weight.transpose(1, 2))
        rows, batch, classes = logits.shape
        flat = functional.cross_entropy(logits.reshape(-1, classes), labels.reshape(-1), reduction="none")
        return flat.view(rows, batch)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Evaluation:
    """Risk and accuracy of one set of weights on one split.

    Attributes:
        risk: mean cross-entropy, nats.
        accuracy: share classified correctly.
        losses: cross-entropy of each sample [n], on the CPU (for paired differences).
    """

    risk: float
    accuracy: float
    losses: Tensor


@torch.no_grad()
def evaluate(
    objective: ClassificationObjective,
    weights: Tensor,
    split: Split,
    *,
    meter: CostMeter | None = None,
    batch_size: int = 500,
) -> Evaluation:
    """Risk and accuracy of ``weights`` on a split; costs 1/3 unit a sample."""
    losses, correct = [], 0
    device = objective.backbone.initial.device
    for start in range(0, len(split), batch_size):
        labels = split.labels[start : start + batch_size].to(device)
        logits = objective.logits(weights, split.inputs[start : start + batch_size].to(device)).float()
        losses.append(functional.cross_entropy(logits, labels, reduction="none"))
        correct += int((logits.argmax(1) == labels).sum())
    if meter is not None:
        meter.add(forwards=len(split))
    all_losses = torch.cat(losses).cpu().double()
    return Evaluation(risk=float(all_losses.mean()), accuracy=correct / len(split), losses=all_losses)
