"""Open the data source that a task of the project names, and notice when it has changed since a run was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from advisor.project import Project, TaskSettings
from estimators.backbone_loading import BackboneSource
from estimators.builtin_tasks import builtin_catalogue
from estimators.datasets import TIMM_PREFIXES, Catalogue, Side
from estimators.files import sha256_bytes
from estimators.image_folders import folder_catalogue
from estimators.timm_datasets import ReaderOptions, timm_catalogue


def open_catalogue(project: Project, name: str, *, image_size: int) -> Catalogue:
    """List the samples of a task of the project; nothing is decoded but streams."""
    task = project.tasks[name]
    prefix = task.data.split("/", 1)[0].lower() if "/" in task.data else ""
    try:
        if prefix == "builtin":
            catalogue = builtin_catalogue(task.data)
        elif prefix in TIMM_PREFIXES:
            catalogue = timm_catalogue(task.data, _reader(project, task), image_size=image_size, limit=task.limit)
        else:
            catalogue = folder_catalogue(project.path(task.data), origin=task.data)
        return catalogue if task.classes is None else catalogue.with_classes(task.classes)
    except ValueError as error:
        raise type(error)(f"tasks.{name}: {error}") from error


def task_basis(project: Project, name: str, source: BackboneSource) -> str:
    """SHA-256 of what fixes a task's stored samples: its settings, the seed, and the images' form."""
    parts = [project.tasks[name].model_dump(mode="json"), project.seed, source.image_size, source.in_chans]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def listing(catalogue: Catalogue) -> str:
    """SHA-256 of the names of all samples."""
    return sha256_bytes("\n".join(catalogue.names).encode())


def changed_since(project: Project, name: str, record: Mapping[str, Any]) -> list[str]:
    """A note where a folder holds other files than when the run was made; the run keeps its own samples."""
    data = project.tasks[name].data
    if data.split("/", 1)[0].lower() in ("builtin", *TIMM_PREFIXES) or not project.path(data).is_dir():
        return []
    try:
        unchanged = listing(open_catalogue(project, name, image_size=int(record["image_size"]))) == record["listing"]
    except ValueError:
        unchanged = False
    said = f"task {name!r}: data={data!r} has changed since this run was made; the run keeps the samples it began with"
    return [] if unchanged else [said]


def _reader(project: Project, task: TaskSettings) -> ReaderOptions:
    wanted = task.reader
    splits: dict[Side, str] = {"train": wanted.train}
    if wanted.validation is not None:
        splits["validation"] = wanted.validation
    if wanted.test is not None:
        splits["test"] = wanted.test
    return ReaderOptions(
        root=project.path(wanted.root),
        download=wanted.download,
        splits=splits,
        image_key=wanted.image_key,
        label_key=wanted.label_key,
    )
