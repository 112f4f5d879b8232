"""Many fine-tuning runs through the one loop: stacked on an accelerator, one by one on a CPU.

Out of memory is handled in two steps: a stack is halved until it holds single runs, then a run's batch is split by
gradient accumulation.  Neither changes a run's numbers beyond rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Literal, Protocol

import torch

from estimators.cost import CostMeter
from estimators.fine_tuning import Control, FineTuned, Run, Watcher, fine_tune_stack, stack_key
from estimators.objectives import ClassificationObjective
from estimators.snapshot_folder import Snapshots
from estimators.tasks import Split

STACK_LIMIT = 32  # runs in one stack on an accelerator


class TrainMany(Protocol):
    """What trains many runs; as :func:`train_runs`."""

    def __call__(
        self,
        objectives: Mapping[str, ClassificationObjective],
        trains: Mapping[str, Split],
        runs: Sequence[Run],
        *,
        meter: CostMeter | None = None,
        control: Control | None = None,
        watcher: Watcher | None = None,
        snapshots: Snapshots | None = None,
    ) -> Iterator[list[FineTuned]]:
        """Finished groups, in order."""
        ...


class OutOfMemory(RuntimeError):
    """A single sample's gradient does not fit into memory."""


def train_runs(
    objectives: Mapping[str, ClassificationObjective],
    trains: Mapping[str, Split],
    runs: Sequence[Run],
    *,
    meter: CostMeter | None = None,
    control: Control | None = None,
    stack_limit: int | None = None,
    watcher: Watcher | None = None,
    snapshots: Snapshots | None = None,
) -> Iterator[list[FineTuned]]:
    """Train ``runs``; yields finished groups in order.

    Args:
        objectives: task -> its loss.
        trains: task -> its training data.
        runs: what to train; neighbours of equal shape are stacked.
        meter: counts every per-sample gradient.
        control: asked between steps whether to go on; once it says no, the running group is the last one.
        stack_limit: runs in a stack; 1 on a CPU and ``STACK_LIMIT`` elsewhere by default.
        watcher: shown the traces as they grow.
        snapshots: where training is kept on the way, so that it can be taken up again.
    """
    first = objectives[runs[0].task]
    on_cpu = first.initial.device.type == "cpu"
    limit = stack_limit or (1 if on_cpu or first.trained_head else STACK_LIMIT)
    for _, members in groupby(runs, key=lambda run: stack_key(run.recipe)):
        group = list(members)
        for start in range(0, len(group), limit):
            part = group[start : start + limit]
            done = _train_within_memory(
                objectives, trains, part, meter=meter, control=control, watcher=watcher, snapshots=snapshots
            )
            yield done
            if any(result.outcome in ("deadline", "stopped") for result in done):
                return


def _train_within_memory(
    objectives: Mapping[str, ClassificationObjective],
    trains: Mapping[str, Split],
    group: Sequence[Run],
    *,
    meter: CostMeter | None,
    control: Control | None,
    watcher: Watcher | None,
    snapshots: Snapshots | None,
) -> list[FineTuned]:
    def train(runs: Sequence[Run], micro_batch: int | None) -> list[FineTuned]:
        return fine_tune_stack(
            [objectives[run.task] for run in runs],
            [trains[run.task] for run in runs],
            runs,
            meter=meter,
            control=control,
            micro_batch=micro_batch,
            precision=precision_on(objectives[runs[0].task].initial.device),
            watcher=watcher,
            snapshots=snapshots,
        )

    return _halving(train, list(group), None)


def _halving(
    train: Callable[[Sequence[Run], int | None], list[FineTuned]], group: list[Run], micro_batch: int | None
) -> list[FineTuned]:
    try:
        return train(group, micro_batch)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    torch.cuda.empty_cache()
    if len(group) > 1:
        middle = len(group) // 2
        return _halving(train, group[:middle], micro_batch) + _halving(train, group[middle:], micro_batch)
    size = min(micro_batch or group[0].recipe.batch_size, group[0].recipe.batch_size)
    if size == 1:
        raise OutOfMemory(
            f"task={group[0].task!r}: the gradient of a single sample does not fit into memory; "
            "use a smaller image_size or backbone, freeze parameters, or another device"
        )
    return _halving(train, group, size // 2)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out (CUDA's own class, or the CPU allocator's message)."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def precision_on(device: torch.device) -> Literal["float32", "bfloat16"]:
    """Mixed precision on CUDA devices that have bfloat16, float32 elsewhere."""
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"
