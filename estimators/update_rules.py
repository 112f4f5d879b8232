r"""One optimizer step on R weight vectors at once, each with its own learning rate.

Same formulas and defaults as ``torch.optim`` (the tests hold them equal); written out because a stack of runs needs a
learning rate a row, which ``torch.optim`` does not take, and because the displacement law needs the update itself.

    sgd        g <- g + w x;                       x <- x - eta_k g
    momentum   g <- g + w x;  v <- m v + g;        x <- x - eta_k v                          (no dampening)
    adamw      x <- (1 - eta_k w) x;  m <- .9 m + .1 g;  v <- .999 v + .001 g^2;
               x <- x - eta_k mhat / (sqrt(vhat) + 1e-8)        Loshchilov & Hutter 2019

Shapes: weights and gradients [R, D], learning rates [R, 1].
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class UpdateRule:
    """Optimizer state for R runs; ``step`` changes the weights in place.

    Args:
        optimizer: ``sgd``, ``momentum`` or ``adamw``, the same for all rows.
        momentum: [R, 1] heavy-ball coefficients.
        weight_decay: [R, 1].
        like: weights [R, D] whose shape, device and dtype the state takes.
    """

    def __init__(self, optimizer: str, *, momentum: Tensor, weight_decay: Tensor, like: Tensor) -> None:
        if optimizer not in ("sgd", "momentum", "adamw"):
            raise ValueError(f"optimizer={optimizer!r} must be sgd, momentum or adamw; choose one of them")
        self.optimizer = optimizer
        self.momentum, self.weight_decay = momentum.to(like), weight_decay.to(like)
        self.decays = bool((weight_decay != 0).any())
        self.count = 0
        self.first = torch.zeros_like(like) if optimizer != "sgd" else None
        self.second = torch.zeros_like(like) if optimizer == "adamw" else None

    def step(self, weights: Tensor, gradient: Tensor, learning_rate: Tensor) -> None:
        """Change ``weights`` [R, D] in place along ``gradient`` [R, D] with rates [R, 1]."""
        self.count += 1
        if self.optimizer == "adamw":
            self._adamw(weights, gradient, learning_rate)
            return
        if self.decays:
            gradient = gradient + self.weight_decay * weights
        if self.first is not None:
            self.first.mul_(self.momentum).add_(gradient)
            gradient = self.first
        weights.sub_(learning_rate * gradient)

    def state(self) -> dict[str, Tensor]:
        """What later steps need of earlier ones, by name; empty for plain SGD."""
        found = {"first": self.first, "second": self.second}
        return {name: value for name, value in found.items() if value is not None}

    def restore(self, count: int, state: Mapping[str, Tensor]) -> None:
        """Take up the state after ``count`` steps, as :meth:`state` gave it."""
        self.count = count
        for name, value in self.state().items():
            value.copy_(state[name])

    def _adamw(self, weights: Tensor, gradient: Tensor, learning_rate: Tensor) -> None:
        assert self.first is not None
        assert self.second is not None
        weights.mul_(1 - learning_rate * self.weight_decay)
        self.first.lerp_(gradient, 1 - BETA1)
        self.second.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
        corrected = self.first / (1 - BETA1**self.count)
        scale = (self.second / (1 - BETA2**self.count)).sqrt_().add_(EPSILON)
        weights.sub_(learning_rate * corrected.div_(scale))
