r"""The jobs: train one run, evaluate weights on one task.  Pure functions of what is shared and of the job.

A trained run comes back as the finished snapshot of its training, under the name that the parent's own loop would look
for: the parent keeps it, and its loop finds the training done.  So a run that was trained elsewhere ends with the bits
of one that was trained here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from advisor.training import train_runs
from estimators.backbone import TorchBackbone
from estimators.fine_tuning import Run
from estimators.objectives import ClassificationObjective, Evaluation, evaluate
from estimators.snapshot_folder import Take
from estimators.snapshots import Snapshot
from estimators.tasks import LinearHead, Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TaskData:
    """What jobs need of a task: head, training and validation samples."""

    head: LinearHead
    train: Split
    validation: Split


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SharedWork:
    """What all jobs of a run share.

    Attributes:
        backbone: x_0, on the CPU.
        tasks: the tasks.
        trained_head: whether heads move along.
    """

    backbone: TorchBackbone
    tasks: Mapping[str, TaskData]
    trained_head: bool

    def on(self, device: str) -> ReadyWork:
        """Objectives on a worker's device."""
        backbone = self.backbone.to(device)
        return ReadyWork(
            objectives={
                name: ClassificationObjective(backbone, task.head, trained_head=self.trained_head)
                for name, task in self.tasks.items()
            },
            trains={name: task.train for name, task in self.tasks.items()},
            validations={name: task.validation for name, task in self.tasks.items()},
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ReadyWork:
    """The same, ready on a device."""

    objectives: Mapping[str, ClassificationObjective]
    trains: Mapping[str, Split]
    validations: Mapping[str, Split]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class TrainingJob:
    """One run to train; ``start`` is the snapshot to go on from."""

    run: Run
    start: Snapshot | None = None


def train_one(ready: ReadyWork, job: TrainingJob) -> Snapshot:
    """The snapshot of the finished training."""
    kept = LastOffered(job.start)
    for _ in train_runs(ready.objectives, ready.trains, [job.run], snapshots=kept, stack_limit=1):
        pass
    last = kept.last()
    return Snapshot(tensors={n: v.detach().cpu() for n, v in last.tensors.items()}, facts=dict(last.facts))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class EvaluationJob:
    """Weights to evaluate on the first validation samples of a task; ``samples`` is ``None`` for all."""

    task: str
    weights: Tensor
    samples: int | None = None


def evaluate_one(ready: ReadyWork, job: EvaluationJob) -> Evaluation:
    """Risk and accuracy of one task."""
    objective = ready.objectives[job.task]
    weights = job.weights.to(objective.initial.device)
    return evaluate(objective, weights, ready.validations[job.task].head(job.samples))


class LastOffered:
    """Keeps the last state that one training offered."""

    def __init__(self, start: Snapshot | None) -> None:
        self._start = start
        self._take: Take | None = None if start is None else lambda: start

    def load(self, name: str) -> Snapshot | None:
        """The state to go on from; it is not there a second time, when memory ran out at the first."""
        found, self._start = self._start, None
        return found

    def keep(self, name: str, take: Take) -> None:
        """Take note of a state."""
        self._take = take

    def forget(self, name: str) -> None:
        """Nothing is written, so nothing is taken back."""

    def last(self) -> Snapshot:
        """The last state."""
        if self._take is None:
            raise ValueError("training offered no state; give it at least one step")
        return self._take()
