r"""A workspace's independent work, here or on the workers of its engine (``advisor.engine``).

On an engine, runs are trained ahead on workers; the parent keeps each finished training as a snapshot, and its own loop
finds it done.  Runs are then trained one by one and never stacked, so the number of workers changes no result.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from advisor.engine import Pool, in_order, open_pool
from advisor.jobs import EvaluationJob, SharedWork, TaskData, TrainingJob, evaluate_one, train_one
from advisor.merged_risks import EvaluateMany
from advisor.training import TrainMany, precision_on, train_runs
from advisor.unfinished import unfinished
from estimators.cost import CostMeter
from estimators.fine_tuning import Control, FineTuned, Run, Watcher
from estimators.objectives import ClassificationObjective, Evaluation
from estimators.snapshot_folder import SnapshotFolder, Snapshots
from estimators.tasks import Split
from estimators.training_snapshots import training_name

if TYPE_CHECKING:
    from advisor.workspace import Workspace


def open_workers(ws: Workspace) -> Pool:
    """The workers of a workspace's engine, with its backbone, heads, training and validation data."""
    backbone = ws.prepared.backbone
    if backbone.device.type != "cpu":
        backbone = copy.deepcopy(backbone).to("cpu")
    shared = SharedWork(
        backbone=backbone,
        tasks={
            name: TaskData(head=task.fitted_head().to("cpu"), train=task.train, validation=task.validation)
            for name, task in ws.tasks.items()
        },
        trained_head=ws.project.heads == "trained",
    )
    device = ws.prepared.backbone.device
    return open_pool(
        ws.engine,
        shared,
        device=device.type if device.index is None else f"{device.type}:{device.index}",
        threads=torch.get_num_threads(),
    )


def training_of(ws: Workspace) -> TrainMany:
    """What trains a workspace's runs."""
    if ws.engine.kind == "in-process":
        return train_runs

    def train(
        objectives: Mapping[str, ClassificationObjective],
        trains: Mapping[str, Split],
        runs: Sequence[Run],
        *,
        meter: CostMeter | None = None,
        control: Control | None = None,
        watcher: Watcher | None = None,
        snapshots: Snapshots | None = None,
    ) -> Iterator[list[FineTuned]]:
        kept = _Here() if snapshots is None else snapshots
        train_ahead(ws, runs, kept)
        yield from train_runs(
            objectives,
            trains,
            runs,
            meter=meter,
            control=control,
            watcher=watcher,
            snapshots=kept,
            stack_limit=1,
        )

    return train


def train_ahead(ws: Workspace, runs: Sequence[Run], kept: Snapshots) -> None:
    """Train runs on the workers and keep each as it is finished; nothing without an engine.

    Raises:
        RunInterrupted: as soon as the workspace is asked to stop; what was finished is kept.
        WorkerLost: if workers die again and again.
    """
    if ws.engine.kind == "in-process":
        return
    names = [snapshot_name(ws, run) for run in runs]
    starts = [kept.load(name) for name in names]
    left = [
        place
        for place, start in enumerate(starts)
        if start is None or ("weights" in start.tensors)  # a training that is over keeps no weights to go on from
    ]
    jobs = [TrainingJob(run=runs[place], start=starts[place]) for place in left]
    done = len(runs) - len(left)
    for position, snapshot in ws.workers.run(train_one, jobs, watch=ws.interrupts.check) if jobs else ():
        kept.keep(names[left[position]], lambda snapshot=snapshot: snapshot)  # type: ignore[misc]
        if isinstance(kept, SnapshotFolder):
            kept.flush()
        done += 1
        ws.progress("jobs", done, len(runs), task=runs[left[position]].task)


@contextmanager
def trained_ahead(ws: Workspace, runs: Sequence[Run]) -> Iterator[Callable[[Run, Snapshots], None]]:
    """Inside the block all runs are trained; what it yields hands a run's training to the store that will look for it.

    What the workers finished is kept below ``unfinished/`` until the block ends well.
    """
    if ws.engine.kind == "in-process" or not runs:
        yield lambda run, kept: None
        return
    what = "jobs"
    with ws.spending(what) as spending, unfinished(ws, what, spending) as store:
        train_ahead(ws, runs, store)

        def hand_over(run: Run, kept: Snapshots) -> None:
            name = snapshot_name(ws, run)
            found = store.load(name)
            if found is not None:
                kept.keep(name, lambda: found)

        yield hand_over


def snapshot_name(ws: Workspace, run: Run) -> str:
    """The name under which the parent's loop looks for the training of a run."""
    objective, train = ws.objectives[run.task], ws.tasks[run.task].train
    precision = precision_on(objective.initial.device)
    return training_name([objective], [train], [run], micro_batch=run.recipe.batch_size, precision=precision)


def evaluating_of(ws: Workspace) -> EvaluateMany | None:
    """What evaluates task -> weights on the first so many validation samples; ``None`` for this process."""
    if ws.engine.kind == "in-process":
        return None

    def evaluate(weights: Mapping[str, Tensor], samples: Mapping[str, int]) -> dict[str, Evaluation]:
        jobs = [EvaluationJob(task=n, weights=w.detach().cpu(), samples=samples[n]) for n, w in weights.items()]
        results = in_order(ws.workers.run(evaluate_one, jobs, watch=ws.interrupts.check), len(jobs))
        return dict(zip(weights, results, strict=True))

    return evaluate


class _Here:
    """Keeps snapshots in memory, for callers that keep none."""

    def __init__(self) -> None:
        self._kept: dict[str, Any] = {}

    def load(self, name: str) -> Any:
        take = self._kept.get(name)
        return None if take is None else take()

    def keep(self, name: str, take: Any) -> None:
        self._kept[name] = take

    def forget(self, name: str) -> None:
        self._kept.pop(name, None)
