r"""What can go wrong while measuring one task, each outcome by its own name with the next step in its text.

``estimators.measuring`` catches :class:`MeasurementFailed` for each task and estimator on its own and keeps the text
beside the results that did succeed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from estimators.constants import Constants


class MeasurementFailed(RuntimeError):
    """An estimator could not be computed from these data and weights."""


class LossNotFinite(MeasurementFailed):
    """The loss is NaN or infinite at the weights where something was to be measured."""


class GradientNotFinite(MeasurementFailed):
    """The loss is finite but a gradient or curvature is not."""


class TooFewSamples(MeasurementFailed):
    """A split holds fewer samples than the estimator needs."""


class NotEnoughMemory(MeasurementFailed):
    """Not even one sample at a time fits into memory."""


class NotDifferentiable(MeasurementFailed):
    """A layer offers no derivative of the kind that was asked for."""


class LostInNoise(MeasurementFailed):
    """The mean gradient is too small beside its noise to have a direction."""


class TasksNotMeasurable(MeasurementFailed):
    """Some tasks have no finite loss at x_0.

    Attributes:
        reasons: task name -> why.
        partial: the constants of the other tasks; ``None`` if there are none.
    """

    def __init__(self, reasons: dict[str, str], partial: Constants | None) -> None:
        self.reasons, self.partial = reasons, partial
        kept = [] if partial is None else list(partial.names)
        super().__init__(
            f"tasks {list(reasons)} cannot be measured at x_0: {next(iter(reasons.values()))}; "
            f"the results of {kept} are kept in .partial; repair or leave out the others"
        )


def require_finite_losses(losses: Tensor) -> None:
    """Raise :class:`LossNotFinite` unless every loss [B] is finite."""
    bad = int((~torch.isfinite(losses)).sum())
    if bad:
        raise LossNotFinite(
            f"losses: {bad} of {losses.numel()} are NaN or infinite at these weights; "
            "check the inputs' scale, the head and the checkpoint, or leave this task out"
        )


def require_samples(count: int, least: int, what: str) -> None:
    """Raise :class:`TooFewSamples` unless ``count`` >= ``least``."""
    if count < least:
        raise TooFewSamples(f"num_samples={count} is too few for {what}, which needs at least {least}; add samples")


def is_memory_error(error: Exception) -> bool:
    """Whether an exception of torch says that an allocation failed (CPU or CUDA)."""
    text = str(error)
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in text
