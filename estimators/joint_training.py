r"""All tasks as one: multi-task training through the same loop, for comparison and for the learning-rate range test.

The joint problem has sum_i C_i classes; a sample's logits are masked to its own task's classes, so its loss is exactly
its task's cross-entropy.  A uniformly drawn sample of task i weighs p_i n/n_i (n = sum n_i), which makes the mean loss
F = sum_i p_i F_i.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from estimators.backbone import Backbone
from estimators.objectives import MASKED_LOGIT
from estimators.tasks import LinearHead, Split, Task


class JointObjective:
    """The loss of a pool of samples from several tasks; labels are class indices over all tasks.

    Args:
        backbone: the shared features.
        heads: task -> head, in the order of the pool.
        sample_weights: task -> weight of one of its samples.
    """

    def __init__(
        self, backbone: Backbone, heads: Mapping[str, LinearHead], sample_weights: Mapping[str, float]
    ) -> None:
        device = backbone.initial.device
        self.backbone = backbone
        self.weight = torch.cat([head.weight for head in heads.values()]).to(device)
        self.bias = torch.cat([head.bias for head in heads.values()]).to(device)
        counts = [head.num_classes for head in heads.values()]
        self.owner = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts)).to(device)
        self.sample_weights = torch.tensor([sample_weights[name] for name in heads], dtype=torch.float32, device=device)

    @property
    def initial(self) -> Tensor:
        """The pretrained weights."""
        return self.backbone.initial

    @property
    def num_shared(self) -> int:
        """All weights are shared."""
        return self.backbone.initial.numel()

    def losses(self, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        """Weighted cross-entropy [B]; its mean over the pool is F."""
        logits = functional.linear(self.backbone.features(weights, inputs).float(), self.weight, self.bias)
        owner = self.owner[labels]
        logits = logits.masked_fill(self.owner.unsqueeze(0) != owner.unsqueeze(1), MASKED_LOGIT)
        return functional.cross_entropy(logits, labels, reduction="none") * self.sample_weights[owner]


def join_tasks(
    backbone: Backbone, tasks: Mapping[str, Task], task_weights: Mapping[str, float]
) -> tuple[JointObjective, Split]:
    """The joint objective and the pool of all training samples.

    Args:
        backbone: the shared features.
        tasks: tasks with fitted heads, whose inputs have one shape.
        task_weights: p_i, any positive scale.
    """
    total = sum(len(task.train) for task in tasks.values())
    norm = sum(task_weights[name] for name in tasks)
    weights = {name: task_weights[name] / norm * total / len(task.train) for name, task in tasks.items()}
    heads = {name: task.fitted_head() for name, task in tasks.items()}
    offset, labels = 0, []
    for task in tasks.values():
        labels.append(task.train.labels + offset)
        offset += task.num_classes
    pool = Split(inputs=torch.cat([task.train.inputs for task in tasks.values()]), labels=torch.cat(labels))
    return JointObjective(backbone, heads, weights), pool
