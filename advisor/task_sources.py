"""Open the data source that a task of the project names, and notice when it has changed since a run was made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from advisor.project import Project, TaskSettings
from advisor.project_values import dump_settled
from estimators.backbone_kinds import Source
from estimators.backbone_loading import BackboneSource
from estimators.builtin_tasks import builtin_catalogue
from estimators.datasets import TIMM_PREFIXES, Catalogue, Side
from estimators.files import sha256_bytes
from estimators.image_folders import folder_catalogue
from estimators.text_files import Columns, holds_texts, text_catalogue
from estimators.timm_datasets import ReaderOptions, timm_catalogue


def open_catalogue(project: Project, name: str, *, image_size: int | None = None) -> Catalogue:
    """List the samples of a task of the project; nothing is decoded but streams, to ``image_size``."""
    task = project.tasks[name]
    prefix = task.data.split("/", 1)[0].lower() if "/" in task.data else ""
    try:
        if project.backbone.kind == "transformers":
            catalogue = _texts(project, task, prefix)
        elif prefix == "builtin":
            catalogue = builtin_catalogue(task.data)
        elif prefix in TIMM_PREFIXES:
            catalogue = timm_catalogue(task.data, _reader(project, task), image_size=image_size or 0, limit=task.limit)
        elif holds_texts(project.path(task.data)):
            raise ValueError(
                f"data={task.data!r} holds texts, which backbone={project.backbone.name!r} cannot read; set "
                "backbone.kind: transformers and name a text encoder"
            )
        else:
            catalogue = folder_catalogue(project.path(task.data), origin=task.data)
        return catalogue if task.classes is None else catalogue.with_classes(task.classes)
    except ValueError as error:
        raise type(error)(f"tasks.{name}: {error}") from error


def task_basis(project: Project, name: str, source: Source) -> str:
    """SHA-256 of what fixes a task's stored samples: its settings, the seed, and the samples' form."""
    form = [source.image_size, source.in_chans] if isinstance(source, BackboneSource) else [source.form.about]
    parts = [dump_settled(project.tasks[name]), project.seed, *form]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def listing(catalogue: Catalogue) -> str:
    """SHA-256 of the names of all samples."""
    return sha256_bytes("\n".join(catalogue.names).encode())


def changed_since(project: Project, name: str, record: Mapping[str, Any]) -> list[str]:
    """A note where a folder holds other files than when the run was made; the run keeps its own samples."""
    data = project.tasks[name].data
    if data.split("/", 1)[0].lower() in ("builtin", *TIMM_PREFIXES) or not project.path(data).exists():
        return []
    try:
        unchanged = listing(open_catalogue(project, name, image_size=record.get("image_size"))) == record["listing"]
    except ValueError:
        unchanged = False
    said = f"task {name!r}: data={data!r} has changed since this run was made; the run keeps the samples it began with"
    return [] if unchanged else [said]


def _texts(project: Project, task: TaskSettings, prefix: str) -> Catalogue:
    """A task's texts; the sources that only hold images are refused."""
    if prefix in ("builtin", *TIMM_PREFIXES):
        raise ValueError(
            f"data={task.data!r} holds images, which backbone={project.backbone.name!r} cannot read; name a table of "
            "texts (.csv, .tsv, .jsonl), a folder of .txt files, one a class, or ./" + task.data
        )
    wanted = task.reader
    columns = Columns(text=wanted.text_key or Columns().text, label=wanted.label_key or Columns().label)
    return text_catalogue(project.path(task.data), origin=task.data, columns=columns)


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
