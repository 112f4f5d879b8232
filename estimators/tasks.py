"""A task: named, labelled data and the classifier head that reads the backbone's features.

Splits hold whatever the backbone takes (for images uint8 [n, C, H, W]) and integer labels [n].  The test split is not
part of a task: it is opened by validation alone (``estimators.splits``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """Samples of one task.

    Attributes:
        inputs: [n, ...] as the backbone takes them (images: uint8 [n, C, H, W]).
        labels: int64 [n], class indices.
    """

    inputs: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        """Check that inputs and labels belong together."""
        if len(self.inputs) != len(self.labels):
            raise ValueError(f"inputs hold {len(self.inputs)} samples, labels {len(self.labels)}; pair them up")
        if len(self.labels) == 0:
            raise ValueError("labels=[] must hold at least one sample; check how the data were split")
        if self.labels.dtype != torch.int64:
            raise TypeError(f"labels.dtype={self.labels.dtype} must be torch.int64; convert with .long()")

    def __len__(self) -> int:
        return len(self.labels)

    def head(self, num_samples: int | None) -> Split:
        """The first ``num_samples`` samples (all of them for ``None``)."""
        if num_samples is None or num_samples >= len(self):
            return self
        return Split(inputs=self.inputs[:num_samples], labels=self.labels[:num_samples])

    def take(self, places: Tensor) -> Split:
        """The samples at ``places`` [m], in that order."""
        return Split(inputs=self.inputs[places], labels=self.labels[places])

    def to(self, device: torch.device | str) -> Split:
        """The same samples on another device."""
        return Split(inputs=self.inputs.to(device), labels=self.labels.to(device))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class LinearHead:
    """A linear classifier on features: logits = features @ weight.T + bias.

    Attributes:
        weight: [C, F].
        bias: [C].
    """

    weight: Tensor
    bias: Tensor

    def __post_init__(self) -> None:
        """Check shapes."""
        if self.weight.ndim != 2 or self.bias.shape != self.weight.shape[:1]:
            raise ValueError(
                f"weight {tuple(self.weight.shape)} and bias {tuple(self.bias.shape)} must be [C, F] and [C]; "
                "pass both of one head"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return int(self.weight.shape[0])

    def flat(self) -> Tensor:
        """Weight and bias as one vector [C * F + C]."""
        return torch.cat([self.weight.reshape(-1), self.bias])

    def to(self, device: torch.device | str) -> LinearHead:
        """The same head on another device."""
        return LinearHead(weight=self.weight.to(device), bias=self.bias.to(device))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """One task as advice may see it: training and validation data, and its head.

    Attributes:
        name: the task's name.
        train: training samples, n_i of them, in a fixed random order.
        validation: held-out samples that choose and refit.
        class_names: names of the C classes.
        head: linear head on x_0's features; ``None`` until it is fitted.
        held_out_losses: losses at x_0 of the training samples under heads fitted without them, float32 [n]
            (``estimators.heads.HeadFit``); ``None`` where there are none.
        features: of the training samples at x_0, bfloat16 [n, F], by which samples are chosen
            (``estimators.sample_design``); ``None`` where they were not kept.
    """

    name: str
    train: Split
    validation: Split
    class_names: tuple[str, ...]
    head: LinearHead | None = None
    held_out_losses: Tensor | None = None
    features: Tensor | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes C."""
        return len(self.class_names)

    def fitted_head(self) -> LinearHead:
        """The head, or an error that names the next step."""
        if self.head is None:
            raise ValueError(f"head of task {self.name!r} is not fitted; call estimators.heads.fit_heads first")
        return self.head
