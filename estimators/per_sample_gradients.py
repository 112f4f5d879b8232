r"""Per-sample gradients by ``torch.func.vmap(grad)``, streamed in chunks that fit a memory budget.

Where vmap cannot take a layer, samples go one by one (exact, slower); where the loss of a sample depends on its batch
(BatchNorm in train mode) or on chance (dropout), rows are mean gradients of batches of ``BATCH`` samples: the two-batch
estimate.  ``note`` says so.  A chunk that does not fit is halved; a single sample that does not fit is a named outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from estimators.cost import CostMeter
from estimators.gradient_rows import GradientMeasurement, RowCollector, Sketch
from estimators.objectives import Objective
from estimators.outcomes import NotEnoughMemory, is_memory_error, require_finite_losses
from estimators.sample_design import GradientDesign
from estimators.tasks import Split

BATCH = 8  # samples of a batch row; even, so that a signed sum of its rows can cancel the mean
SMALLEST_BUDGET = 64e6  # bytes; below, one small model would go sample by sample for nothing
SAMPLE_COPIES = 2.0  # vmap(grad) holds about two copies of activations and gradients at its peak
INTERACTION_TOLERANCE = 1e-3  # relative; float32 kernels differ by 1e-5 between batch sizes
INTERACTION_NOTE = (
    f"two-batch estimate from batches of {BATCH}: a sample's loss depends on its batch or on chance "
    "(BatchNorm or dropout in train mode); put the module into eval mode for per-sample gradients"
)


def exact_attention() -> AbstractContextManager[Any]:
    """Attention without fused kernels: those have no second derivative and are slower under vmap on a CPU."""
    return sdpa_kernel(SDPBackend.MATH)


def measure_gradients(
    objective: Objective,
    weights: Tensor,
    samples: Split,
    *,
    population: int,
    num_single: int | None = None,
    memory_budget: float | None = None,
    meter: CostMeter | None = None,
    on_batch: Callable[[Tensor], None] | None = None,
    design: GradientDesign | None = None,
) -> GradientMeasurement:
    """Gradients of ``samples`` (already on the device) at ``weights``; one unit a sample.

    Args:
        objective: the task's loss.
        weights: where [D].
        samples: the samples drawn.
        population: size of the split they were drawn from without replacement.
        num_single: how many to take sample by sample, the rest in batches of ``BATCH``; ``None`` for all.
        memory_budget: bytes that chunk and rows may take together; ``None``: half a training step's, at least 64 MB.
        meter: where units are booked.
        on_batch: called with each balanced signed sum of a batch's rows, sum_z e_z g_z / sqrt(batch), sum_z e_z = 0: a
            draw of the gradient noise with covariance Sigma (only where samples can be separated).
        design: how the samples were chosen, where their chances were unequal; all are then taken one by one, and the
            samples' losses must not depend on each other (:func:`samples_interact`).

    Raises:
        MeasurementFailed: a named outcome; see ``estimators.outcomes``.
    """
    with torch.no_grad():
        require_finite_losses(objective.losses(weights, samples.inputs[:32], samples.labels[:32]))
    half_a_step = training_step_bytes(objective, weights, samples) / 2
    budget = max(half_a_step, SMALLEST_BUDGET) if memory_budget is None else memory_budget
    interacting = design is None and samples_interact(objective, weights, samples)
    wanted = len(samples)
    if num_single is not None and design is None:
        wanted = min(len(samples), -(-num_single // BATCH) * BATCH)
    first = 0 if interacting else wanted
    sketch = Sketch(weights.numel())
    single, batched, further = (RowCollector(weights, sketch) for _ in range(3))
    note = INTERACTION_NOTE if interacting else ""
    if first:
        chunks, note = _row_chunks(objective, weights, _part(samples, 0, first), budget)
        groups = _Groups(weights, batched if design is None else None, on_batch)
        shares = None if design is None else torch.from_numpy(design.mean_weights)
        scales = None if design is None else torch.from_numpy(np.sqrt(len(samples) * design.draw.weights))
        for chunk in chunks:
            here = slice(single.count, single.count + len(chunk))
            single.add(chunk, None if shares is None else shares[here])
            groups.add(chunk, None if scales is None else scales[here].tolist())
            del chunk  # before the next one is made
    for mean in _loop(objective, weights, _part(samples, first, len(samples)), BATCH):
        batched.add(mean)
        further.add(mean)
        del mean
    if meter is not None:
        meter.add(gradients=first + (len(samples) - first) // BATCH * BATCH)
    return GradientMeasurement(
        single=single.rows(1, population, note, design) if single.count else None,
        batched=batched.rows(BATCH, population, note) if batched.count > 1 or not single.count else None,
        further=further.rows(BATCH, population, note) if first and further.count > 1 else None,
        note=note,
    )


class _Groups:
    """Folds per-sample rows into batch means and signed noise vectors.

    Rows drawn with chance pi are scaled by (m/(n pi))^(1/2) before: E of a scaled row's square is that of a sample's.
    """

    def __init__(self, weights: Tensor, means: RowCollector | None, on_batch: Callable[[Tensor], None] | None) -> None:
        self.means, self.on_batch, self.seen = means, on_batch, 0
        self.plus, self.minus = torch.zeros_like(weights), torch.zeros_like(weights)

    def add(self, rows: Tensor, scales: Sequence[float] | None = None) -> None:
        if self.means is None and self.on_batch is None:
            return
        for number, row in enumerate(rows):
            half = self.plus if self.seen % 2 == 0 else self.minus
            half.add_(row, alpha=1.0 if scales is None else scales[number])
            self.seen += 1
            if self.seen % BATCH == 0:
                if self.means is not None:
                    self.means.add((self.plus + self.minus).div_(BATCH).unsqueeze(0))
                if self.on_batch is not None:
                    self.on_batch((self.plus - self.minus).div_(BATCH**0.5))
                self.plus.zero_()
                self.minus.zero_()


def _part(samples: Split, start: int, stop: int) -> Split:
    """Samples ``start``..``stop``; an empty range is allowed to ``_loop``, not to ``Split``."""
    if start >= stop:
        start, stop = 0, 1  # shorter than a batch: the loop yields nothing
    return Split(inputs=samples.inputs[start:stop], labels=samples.labels[start:stop])


def training_step_bytes(objective: Objective, weights: Tensor, samples: Split) -> float:
    """Bytes of one training step at batch 32: weights, gradient, update and the activations kept for backward.

    Activations are counted on one sample (``saved_tensors_hooks``), without running a backward pass.
    """
    return 3.0 * weights.numel() * weights.element_size() + 32 * _activation_bytes(objective, weights, samples)


def _activation_bytes(objective: Objective, weights: Tensor, samples: Split) -> float:
    seen: dict[int, int] = {}

    def pack(value: Tensor) -> None:  # keeps nothing: there is no backward pass, and the graph would hold itself alive
        storage = value.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()

    point = weights.detach().clone().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        objective.losses(point, samples.inputs[:1], samples.labels[:1]).sum()
    seen.pop(point.untyped_storage().data_ptr(), None)
    return float(sum(seen.values()))


def _row_chunks(objective: Objective, weights: Tensor, samples: Split, budget: float) -> tuple[Iterator[Tensor], str]:
    """An iterator over per-sample rows, and a note."""
    try:  # the first sample tells whether vmap can take every layer
        _vmapped(objective, weights, samples.inputs[:1], samples.labels[:1])
    except (RuntimeError, ValueError) as error:
        if is_memory_error(error):
            raise _no_memory(weights) from error
        reason = str(error).strip().splitlines()[0][:120]
        return _loop(objective, weights, samples, 1), f"samples taken one by one: vmap cannot take a layer ({reason})"
    size = _chunk_size(objective, weights, samples, budget)
    if size == 1:  # then vmap gains nothing and holds several copies of the weights
        return _loop(objective, weights, samples, 1), ""
    return _vmap_chunks(objective, weights, samples, size), ""


def samples_interact(objective: Objective, weights: Tensor, samples: Split) -> bool:
    """Whether a sample's loss depends on its batch or on chance, as with BatchNorm or dropout in train mode."""
    if len(samples) < 2:
        return False
    with torch.no_grad():
        pair = objective.losses(weights, samples.inputs[:2], samples.labels[:2])
        alone = [_single_loss(objective, weights, samples, i) for i in range(2)]
    if any(value is None for value in alone):
        return True
    scale = float(pair.abs().max()) + 1e-6
    return any(abs(float(pair[i]) - float(alone[i])) > INTERACTION_TOLERANCE * scale for i in range(2))  # type: ignore[arg-type]


def _single_loss(objective: Objective, weights: Tensor, samples: Split, i: int) -> float | None:
    try:
        return float(objective.losses(weights, samples.inputs[i : i + 1], samples.labels[i : i + 1])[0])
    except ValueError:  # BatchNorm in train mode refuses one value a channel
        return None


def _chunk_size(objective: Objective, weights: Tensor, samples: Split, budget: float) -> int:
    per_sample = SAMPLE_COPIES * (
        weights.numel() * weights.element_size() + _activation_bytes(objective, weights, samples)
    )
    return max(1, min(len(samples), int(budget / 2 / max(per_sample, 1.0))))


def _vmapped(objective: Objective, weights: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
    def loss(point: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return objective.losses(point, x.unsqueeze(0), y.unsqueeze(0))[0]

    with exact_attention():
        rows = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(weights, inputs, labels)
    return torch.as_tensor(rows)


def _vmap_chunks(objective: Objective, weights: Tensor, samples: Split, size: int) -> Iterator[Tensor]:
    """Rows in chunks of ``size``, halved whenever memory runs out."""
    start = 0
    while start < len(samples):
        stop = min(start + size, len(samples))
        try:
            rows = _vmapped(objective, weights, samples.inputs[start:stop], samples.labels[start:stop])
        except RuntimeError as error:
            if not is_memory_error(error):
                raise
            if size == 1:
                raise _no_memory(weights) from error
            size = max(1, size // 2)
            continue
        yield rows.detach()
        del rows
        start = stop


def _loop(objective: Objective, weights: Tensor, samples: Split, batch: int) -> Iterator[Tensor]:
    """Mean gradients of consecutive batches by ordinary backpropagation, [1, D] each."""
    for start in range(0, len(samples) - batch + 1, batch):
        point = weights.detach().clone().requires_grad_()
        try:
            with exact_attention():
                losses = objective.losses(
                    point, samples.inputs[start : start + batch], samples.labels[start : start + batch]
                )
                (gradient,) = torch.autograd.grad(losses.mean(), point)
        except RuntimeError as error:
            if is_memory_error(error):
                raise _no_memory(weights) from error
            raise
        row = gradient.unsqueeze(0)
        del point, losses, gradient  # of large models each vector counts
        yield row
        del row


def _no_memory(weights: Tensor) -> NotEnoughMemory:
    return NotEnoughMemory(
        f"chunk_size=1 does not fit: one gradient of {weights.numel()} parameters and one sample's activations exceed "
        "the memory; freeze more of the backbone, use smaller inputs or a larger device"
    )
