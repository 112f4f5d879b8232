"""Project -> backbone, tasks with heads, splits: made once, stored in the run, read back on every later command.

    prepared.json          hash of the project's parts that fix all this, and the fingerprint of x_0
    backbone.safetensors   x_0, the whole state dict          backbone.json    how to build the model around it
    splits.json            who is in which split              data/            decoded samples, one file a split
    heads/                 linear probes on x_0's features

A piece that is missing or damaged is made again and must come out the same; a run of another project is refused by
name.  A head that is read back books what its fit had cost, so a continued run spends what an uninterrupted one does.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from advisor.project import Project, TaskSettings
from advisor.project_values import dump_settled
from advisor.task_sources import changed_since, listing, open_catalogue, task_basis
from estimators.backbone import TorchBackbone
from estimators.backbone_files import ABOUT_FILE, DamagedBackbone, load_backbone, store_backbone
from estimators.backbone_kinds import Source, build_backbone, resolve, sample_form
from estimators.backbone_loading import BackboneSource, backbone_fingerprint
from estimators.cost import CostMeter
from estimators.devices import calm_threads, resolve_device
from estimators.encoder_files import find_encoder
from estimators.encoder_loading import EncoderSource
from estimators.files import read_json, sha256_bytes, write_json
from estimators.head_files import DamagedHead, load_head, store_head
from estimators.heads import HeadFit, fit_head, with_head
from estimators.splits import SPLITS_FILE, DamagedSplit, read_records, split_catalogue
from estimators.stored_tasks import load_task, record_notes, shared_samples, store_task, write_records
from estimators.tasks import Task

PREPARED_FILE = "prepared.json"
PIECES = (PREPARED_FILE, ABOUT_FILE, SPLITS_FILE)  # descriptions that hold no checksum of themselves
SCHEMA = 1


class OtherProject(ValueError):
    """A run directory that was made from another project."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prepared:
    """Everything that probing, training and merging start from.

    Attributes:
        backbone: x_0, on the device.
        tasks: the tasks in the project's order, with fitted heads; test data stay closed.
        heads: task -> how its head's fit went.
        fingerprint: SHA-256 of x_0.
        image_size: side of the square inputs, pixels; ``None`` for texts.
        notes: caveats: what was adapted, assumed or left out.
        mended: pieces of the run that were damaged or lost and have been made again, the same.
    """

    backbone: TorchBackbone
    tasks: tuple[Task, ...]
    heads: Mapping[str, HeadFit]
    fingerprint: str
    image_size: int | None
    notes: tuple[str, ...]
    mended: tuple[str, ...] = ()


def prepare(
    project: Project,
    run_dir: Path,
    *,
    device: str | None = None,
    meter: CostMeter,
    allow_unreadable: bool = False,
    may_calm_threads: bool = False,
) -> Prepared:
    """Prepare a project in a run directory, or read back what is there.

    Args:
        project: the checked project.
        run_dir: the run; made if it is not there.
        device: overrides the project's device.
        meter: counts the head fits' forward passes.
        allow_unreadable: leave unreadable images out, with a caveat, instead of stopping.
        may_calm_threads: go on with one thread if the backbone is small (``estimators.devices.calm_threads``).

    Raises:
        OtherProject: if the run was made from another project.
        ValueError: for everything in the project that does not fit the data, the machine or the checkpoint.
    """
    torch_device = resolve_device(device or project.device)
    mended: list[str] = []
    _refuse_other_project(project, run_dir, mended)
    source, _ = resolve(backbone_source(project))
    backbone, notes = _backbone(project, source, run_dir, torch_device, mended)
    if may_calm_threads:
        calm_threads(backbone.num_parameters, torch_device)
    fingerprint = backbone_fingerprint(backbone)
    records, tasks, said = _tasks(project, run_dir, source, mended, allow_unreadable=allow_unreadable)
    check_batches(project, {name: len(task.train) for name, task in tasks.items()})
    heads: dict[str, HeadFit] = {}
    for name, task in tasks.items():
        basis = f"{fingerprint}|{records[name]['sha256']['train']}"
        heads[name] = _head(project, run_dir, backbone, task, basis, meter, mended)
    head_notes = [caveat for fit in heads.values() for caveat in fit.caveats]
    about = {"schema": SCHEMA, "project": project.content_hash(), "fingerprint": fingerprint}
    data = {name: record["sha256"] for name, record in records.items() if name in tasks}
    write_json(run_dir / PREPARED_FILE, about | {"data": data})
    return Prepared(
        backbone=backbone,
        tasks=tuple(on_device(with_head(task, heads[name]), torch_device) for name, task in tasks.items()),
        heads=heads,
        fingerprint=fingerprint,
        image_size=getattr(source, "image_size", None),
        notes=(*notes, *said, *head_notes),
        mended=tuple(mended),
    )


def on_device(task: Task, device: torch.device) -> Task:
    """The task with its head on the device; samples move batch by batch."""
    return dataclasses.replace(task, head=task.fitted_head().to(device))


def backbone_source(project: Project) -> Source:
    """The project's backbone as the loader takes it, paths made absolute."""
    wanted = project.backbone
    if wanted.kind == "transformers":
        files = find_encoder(wanted.name, project.path(wanted.name), from_hub=wanted.pretrained)
        return EncoderSource(files=files, max_length=wanted.max_length, frozen=wanted.frozen)
    given = wanted.normalisation
    return BackboneSource(
        name=wanted.name,
        pretrained=wanted.pretrained,
        checkpoint=None if wanted.checkpoint is None else project.path(wanted.checkpoint),
        in_chans=wanted.in_chans,
        image_size=wanted.image_size,
        mean=None if given is None else given.mean,
        std=None if given is None else given.std,
        frozen=wanted.frozen,
        map_keys=wanted.map_keys,
        seed=project.seed,
    )


def check_batches(project: Project, train_sizes: Mapping[str, int]) -> None:
    """Refuse a search for batches larger than the smallest task's training samples."""
    name, smallest = min(train_sizes.items(), key=lambda item: item[1])
    largest = project.search.batch_size[1]
    if largest > smallest:
        raise ValueError(
            f"search.batch_size={list(project.search.batch_size)} goes beyond the {smallest} training samples of task "
            f"{name!r}; lower its upper end to at most {smallest} or add data"
        )


def _refuse_other_project(project: Project, run_dir: Path, mended: list[str]) -> None:
    path = run_dir / PREPARED_FILE
    if not path.exists():
        return
    try:
        about = read_json(path)
    except ValueError as error:
        mended.append(f"{error}: it was written again")
        path.unlink()
        return
    if not isinstance(about, dict) or about.get("schema") != SCHEMA:
        raise OtherProject(f"run={str(run_dir)!r} was prepared by another version; choose another --out")
    if about.get("project") != project.content_hash():
        raise OtherProject(
            f"run={str(run_dir)!r} was made from another project (its backbone, tasks or seed differ from this one's); "
            "choose another --out, or restore the project file kept in the run"
        )


def _backbone(
    project: Project, source: Source, run_dir: Path, device: torch.device, mended: list[str]
) -> tuple[TorchBackbone, list[str]]:
    """x_0 from the run, or built and stored there."""
    parts = [dump_settled(project.backbone), project.seed]
    basis = sha256_bytes(json.dumps(parts, sort_keys=True).encode())
    try:
        stored = load_backbone(run_dir, source, basis=basis, device=device)
    except DamagedBackbone as error:
        mended.append(f"{error}: the backbone was loaded from its source again")
        stored = None
    if stored is not None:
        return stored[0], list(stored[1])
    backbone, notes = build_backbone(source, device=device)
    _refuse_changed_weights(run_dir, backbone)
    store_backbone(run_dir, source, backbone, notes, basis=basis)
    return backbone, list(notes)


def _refuse_changed_weights(run_dir: Path, backbone: TorchBackbone) -> None:
    path = run_dir / PREPARED_FILE
    if path.exists() and read_json(path).get("fingerprint") != backbone_fingerprint(backbone):
        raise OtherProject(
            f"run={str(run_dir)!r} rests on other backbone weights than their source holds now; choose another --out"
        )


def _tasks(
    project: Project, run_dir: Path, source: Source, mended: list[str], *, allow_unreadable: bool
) -> tuple[dict[str, Any], dict[str, Task], list[str]]:
    """Tasks from the run; those that are missing or damaged are made from their source."""
    notes: list[str] = []
    try:
        records = read_records(run_dir) if (run_dir / SPLITS_FILE).exists() else {}
    except ValueError as error:
        mended.append(f"{error}: the samples were read from their source again")
        records = {}
    tasks: dict[str, Task] = {}
    for name, settings in project.tasks.items():
        basis = task_basis(project, name, source)
        if name in records and records[name].get("basis") != basis:  # left by another project that did not get this far
            del records[name]
        if name in records:
            try:
                tasks[name] = load_task(run_dir, name, records[name])
            except (DamagedSplit, KeyError, TypeError) as error:
                mended.append(f"task {name!r}: {error}; its samples were read from their source again")
        if name not in tasks:
            before = records.get(name)
            made = _make_task(project, name, settings, run_dir, source, allow_unreadable=allow_unreadable)
            records[name] = made | {"basis": basis}
            _refuse_changed_data(name, before or {"sha256": _known_data(run_dir).get(name)}, records[name], run_dir)
            write_records(run_dir, records, seed=project.seed)
            tasks[name] = load_task(run_dir, name, records[name])
        else:
            notes += changed_since(project, name, records[name])
        notes += [*records[name].get("notes", []), *record_notes(name, records[name])]
    return records, tasks, [*notes, *shared_samples({name: records[name] for name in tasks})]


def _make_task(
    project: Project,
    name: str,
    settings: TaskSettings,
    run_dir: Path,
    source: Source,
    *,
    allow_unreadable: bool,
) -> dict[str, Any]:
    catalogue = open_catalogue(project, name, image_size=getattr(source, "image_size", None))
    try:
        indices = split_catalogue(catalogue, seed=project.seed, fractions=settings.split, limit=settings.limit)
        record = store_task(
            run_dir,
            name,
            catalogue,
            indices,
            form=sample_form(source),
            allow_unreadable=allow_unreadable,
        )
    except ValueError as error:
        raise type(error)(f"tasks.{name}: {error}") from error
    return record | {"listing": listing(catalogue), "notes": list(catalogue.notes)}


def _known_data(run_dir: Path) -> Mapping[str, Any]:
    """Task -> SHA-256 of each split, as written down when the run was prepared."""
    path = run_dir / PREPARED_FILE
    known = read_json(path).get("data") if path.exists() else None
    return known if isinstance(known, Mapping) else {}


def _refuse_changed_data(name: str, before: Mapping[str, Any], after: Mapping[str, Any], run_dir: Path) -> None:
    if before.get("sha256") not in (None, after["sha256"]):
        raise OtherProject(
            f"run={str(run_dir)!r}: the samples of task {name!r} are damaged there and their source has changed since, "
            "so they cannot be restored; choose another --out"
        )


def _head(
    project: Project,
    run_dir: Path,
    backbone: TorchBackbone,
    task: Task,
    basis: str,
    meter: CostMeter,
    mended: list[str],
) -> HeadFit:
    """The head of a task from the run, or fitted and stored there; its cost is booked either way."""
    try:
        fit = load_head(run_dir, task.name, basis=basis)
        meter.add_units("heads", fit.units)
    except DamagedHead as error:
        if (run_dir / PREPARED_FILE).exists():
            mended.append(f"task {task.name!r}: {error}; it was fitted again")
        fit = fit_head(backbone, task, seed=project.seed, meter=meter)
        store_head(run_dir, task.name, fit, basis=basis)
    return fit
