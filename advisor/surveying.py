"""Look a project over without running it: data, splits, device, model.  Nothing is written, no sample is decoded.

This is what ``merge-advisor check`` and ``--dry-run`` rest on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from advisor.preparing import backbone_source, check_batches
from advisor.project import Project
from advisor.task_sources import open_catalogue
from estimators.backbone_kinds import described, resolve
from estimators.backbone_loading import BackboneSource
from estimators.checkpoints import read_checkpoint
from estimators.cost import FORWARD_UNITS, full_fine_tune_units
from estimators.devices import resolve_device
from estimators.splits import split_catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSurvey:
    """What a task's source holds.

    Attributes:
        data: the source as the project names it.
        classes: class -> samples.
        train: training samples after the split.
        validation: validation samples.
        test: test samples.
        given: splits that the source gives itself.
    """

    data: str
    classes: Mapping[str, int]
    train: int
    validation: int
    test: int
    given: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A project looked over.

    Attributes:
        tasks: task -> what its source holds.
        device: the device that would compute.
        inputs: what the backbone reads, in words.
        image_size: side of the square inputs, pixels; ``None`` for texts.
        head_units: cost of fitting the heads, per-sample gradients.
        full_fine_tune: one full fine-tune of all tasks, per-sample gradients.
        budget_units: what everything before advice may cost.
        notes: what was assumed or adapted.
    """

    tasks: Mapping[str, TaskSurvey]
    device: str
    inputs: str
    image_size: int | None
    head_units: float
    full_fine_tune: float
    budget_units: float
    notes: tuple[str, ...]


def survey(project: Project, *, device: str | None = None) -> Survey:
    """Check everything that can be checked without decoding samples or building the model.

    Raises:
        ValueError: as ``prepare`` would, for data, splits, batches, model name, checkpoint file and device.
    """
    resolved_device = resolve_device(device or project.device)
    source, notes = resolve(backbone_source(project))
    said = list(notes)
    image_size = source.image_size if isinstance(source, BackboneSource) else None
    if isinstance(source, BackboneSource) and source.checkpoint is not None:
        said += read_checkpoint(source.checkpoint).notes
    tasks: dict[str, TaskSurvey] = {}
    for name, settings in project.tasks.items():
        catalogue = open_catalogue(project, name, image_size=image_size)
        try:
            cut = split_catalogue(catalogue, seed=project.seed, fractions=settings.split, limit=settings.limit)
        except ValueError as error:
            raise type(error)(f"tasks.{name}: {error}") from error
        said += catalogue.notes
        tasks[name] = TaskSurvey(
            data=settings.data,
            classes=catalogue.counts(),
            train=len(cut.train),
            validation=len(cut.validation),
            test=len(cut.test),
            given=tuple(dict.fromkeys(side for side in catalogue.sides if side)),
        )
    check_batches(project, {name: task.train for name, task in tasks.items()})
    full = full_fine_tune_units(len(tasks), project.search.steps[1])
    return Survey(
        tasks=tasks,
        device=str(resolved_device),
        inputs=described(source),
        image_size=image_size,
        head_units=FORWARD_UNITS * sum(task.train for task in tasks.values()),
        full_fine_tune=full,
        budget_units=budget_units(project),
        notes=tuple(said),
    )


def budget_units(project: Project) -> float:
    """What everything before advice may cost, per-sample gradients: the smaller of probe_share and max_cost."""
    full = full_fine_tune_units(len(project.tasks), project.search.steps[1])
    share = project.budget.probe_share * full
    return share if project.budget.max_cost is None else min(share, project.budget.max_cost)


def survey_json(found: Survey) -> dict[str, Any]:
    """Plain values, for ``--json``."""
    return {
        "tasks": {
            name: {
                "data": task.data,
                "classes": dict(task.classes),
                "train": task.train,
                "validation": task.validation,
                "test": task.test,
                "given": list(task.given),
            }
            for name, task in found.tasks.items()
        },
        "device": found.device,
        "inputs": found.inputs,
        "image_size": found.image_size,
        "head_units": found.head_units,
        "full_fine_tune": found.full_fine_tune,
        "budget_units": found.budget_units,
        "notes": list(found.notes),
    }
