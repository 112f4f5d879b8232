"""What a suite is made from: x_0 and, for one seed, every task's train, validation and test samples and its head.

A project file is read and prepared as the advisor does it, once for each seed: the seed cuts the splits and
cross-validates the heads.  x_0 is the same for all seeds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advisor.preparing import backbone_source, prepare
from advisor.project import Project
from benchmarks.pretraining import Pretraining, pretrain
from estimators.backbone import TorchBackbone
from estimators.cost import CostMeter
from estimators.objectives import ClassificationObjective
from estimators.splits import open_test
from estimators.tasks import Split, Task


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SuiteInputs:
    """Everything one seed of a suite trains and evaluates on.

    Attributes:
        backbone: x_0.
        tasks: with fitted heads.
        tests: task -> test samples.
        objectives: task -> its loss.
        head_cost: units of fitting the heads.
        fingerprint: SHA-256 of x_0.
    """

    backbone: TorchBackbone
    tasks: tuple[Task, ...]
    tests: Mapping[str, Split]
    objectives: Mapping[str, ClassificationObjective]
    head_cost: float
    fingerprint: str

    @property
    def names(self) -> tuple[str, ...]:
        """Task names in order."""
        return tuple(task.name for task in self.tasks)

    @property
    def trains(self) -> dict[str, Split]:
        """Task -> training samples."""
        return {task.name: task.train for task in self.tasks}


def ensure_checkpoint(project: Project, settings: Pretraining | None) -> dict[str, Any]:
    """Pre-train x_0 if the project's checkpoint is not there yet; returns what is known of its making."""
    source = backbone_source(project)
    if source.checkpoint is None or settings is None:
        return {}
    if not source.checkpoint.exists():
        return pretrain(source, settings, source.checkpoint)
    record = source.checkpoint.with_suffix(".json")
    return dict(json.loads(record.read_text())) if record.exists() else {}


def prepare_inputs(project: Project, folder: Path, *, seed: int, device: str | None = None) -> SuiteInputs:
    """Splits, decoded samples and heads of one seed, stored in ``folder`` and read back when they are there."""
    if project.heads != "probe":
        raise ValueError(f"heads={project.heads!r}: suites are made with frozen linear probes; set heads: probe")
    meter = CostMeter()
    seeded = project.model_copy(update={"seed": seed})
    prepared = prepare(seeded, folder, device=device, meter=meter)
    where = prepared.backbone.device
    return SuiteInputs(
        backbone=prepared.backbone,
        tasks=prepared.tasks,
        tests={task.name: open_test(folder, task.name, reader="suite") for task in prepared.tasks},
        objectives={
            task.name: ClassificationObjective(prepared.backbone, task.fitted_head().to(where))
            for task in prepared.tasks
        },
        head_cost=meter.units,
        fingerprint=prepared.fingerprint,
    )


def first_samples(split: Split, count: int, device: torch.device | str) -> Split:
    """The first samples of a split, on a device."""
    return split.head(count).to(device)
