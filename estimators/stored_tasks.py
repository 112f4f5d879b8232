"""A task's samples in the run: decoded once, stored as safetensors, read back bit for bit.

``splits.json`` says for each task where its samples came from, which are in which split, and the SHA-256 of each file.
Unreadable images are named and counted; they are left out only where that was allowed, and the record says so.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.datasets import SIDES, Catalogue, shortened
from estimators.files import StorageFailed, write_json
from estimators.image_decoding import decode_many
from estimators.splits import SCHEMA, SPLITS_FILE, SplitIndices, check_test, load_split, store_split
from estimators.tasks import Task

MEMORY_SHARE = 0.5  # decoded images may fill half of the machine's memory: torch, features and gradients need the rest


class UnreadableImages(ValueError):
    """Images that cannot be decoded, where leaving them out was not allowed."""


def store_task(
    run: Path,
    name: str,
    catalogue: Catalogue,
    indices: SplitIndices,
    *,
    image_size: int,
    channels: int,
    allow_unreadable: bool = False,
) -> dict[str, Any]:
    """Decode and store the three splits of a task; returns its record for ``splits.json``.

    Raises:
        UnreadableImages: if an image cannot be decoded and ``allow_unreadable`` is false.
        StorageFailed: if the disk has no room, checked before anything is written.
        ValueError: if the samples do not fit into memory, or a class loses its last image of a split.
    """
    total = sum(len(getattr(indices, side)) for side in SIDES)
    refuse_too_large(run, name, total * channels * image_size**2)
    decoded: dict[str, tuple[NDArray[np.uint8], NDArray[np.int64], list[str]]] = {}
    unreadable: dict[str, str] = {}
    for side in SIDES:
        positions = getattr(indices, side)
        openers = [(catalogue.names[i], functools.partial(catalogue.open_image, int(i))) for i in positions]
        pixels, readable, failed = decode_many(openers, size=image_size, channels=channels)
        kept = positions[readable]
        decoded[side] = pixels, catalogue.labels[kept], [catalogue.names[i] for i in kept]
        unreadable |= failed
    _refuse_unreadable(unreadable, catalogue, total, allowed=allow_unreadable)
    for stored_side, (_, labels, _) in decoded.items():
        absent = sorted(set(range(len(catalogue.class_names))) - set(labels.tolist()))
        if absent:
            raise ValueError(
                f"data={catalogue.origin!r}: without its unreadable images class {catalogue.class_names[absent[0]]!r} "
                f"is absent from the {stored_side} split; repair the images or add others"
            )
    return {
        "origin": catalogue.origin,
        "pool": catalogue.pool or catalogue.origin,
        "class_names": list(catalogue.class_names),
        "image_size": image_size,
        "channels": channels,
        "samples": {side: names for side, (_, _, names) in decoded.items()},
        "sha256": {side: store_split(run, name, side, pixels, y) for side, (pixels, y, _) in decoded.items()},
        "unreadable": unreadable,
    }


def write_records(run: Path, records: Mapping[str, Any], *, seed: int) -> None:
    """Write ``splits.json``."""
    write_json(run / SPLITS_FILE, {"schema": SCHEMA, "seed": seed, "tasks": dict(records)})


def load_task(run: Path, name: str, record: Mapping[str, Any]) -> Task:
    """The stored task, without head; test data stay closed, but must be whole."""
    train, validation = (load_split(run, name, side, sha256=record["sha256"][side]) for side in ("train", "validation"))
    check_test(run, name, sha256=record["sha256"]["test"])
    return Task(name=name, train=train, validation=validation, class_names=tuple(record["class_names"]))


def record_notes(name: str, record: Mapping[str, Any]) -> list[str]:
    """Caveats that a stored task carries."""
    unreadable = record["unreadable"]
    if not unreadable:
        return []
    return [f"task {name!r}: {len(unreadable)} unreadable images were left out ({shortened(list(unreadable), 3)})"]


def shared_samples(records: Mapping[str, Any]) -> list[str]:
    """At most two notes on pairs of tasks that come from one pool and hold the same samples, with their numbers.

    A sample on which one task trains or chooses and the other tests makes the test figures of the other look better
    than they are: such pairs are told apart from the others.
    """
    apart: list[str] = []
    crossing: list[str] = []
    names = list(records)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            one, two = _samples(records[first]), _samples(records[second])
            common = one.keys() & two.keys()
            crossed = sum(one[name] != two[name] and "test" in (one[name], two[name]) for name in common)
            if crossed:
                told = f"{crossed} of them are test images of one and not of the other"
                crossing.append(f"{first!r} and {second!r} share {len(common)} images, {told}")
            elif common:
                apart.append(f"{first!r} and {second!r} share {len(common)} images")
    theory = "the theory takes the tasks' samples as independent"
    notes = (
        [f"tasks {', '.join(apart)}: none is a test image of one and not of the other, but {theory}"] if apart else []
    )
    if crossing:
        notes.append(
            f"tasks {'; '.join(crossing)}, so test figures may flatter: give these tasks the same split and no limit; "
            f"{theory}"
        )
    return notes


def refuse_too_large(run: Path, name: str, size: int) -> None:
    """Refuse samples that fit neither into memory nor onto the disk, before decoding them."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > MEMORY_SHARE * memory:
        raise ValueError(
            f"task {name!r} would take {size / 2**30:.1f} GiB decoded, more than half of this machine's "
            f"{memory / 2**30:.1f} GiB; set tasks.{name}.limit or a smaller backbone.image_size"
        )
    folder = next((parent for parent in (run, *run.parents) if parent.exists()), Path("/"))
    free = shutil.disk_usage(folder).free
    if size > free:
        raise StorageFailed(
            f"path={str(run)!r} has {free / 2**20:.0f} MiB free, task {name!r} needs {size / 2**20:.0f} MiB; free some "
            "space, choose another --out or set a limit"
        )


def _refuse_unreadable(unreadable: dict[str, str], catalogue: Catalogue, total: int, *, allowed: bool) -> None:
    if unreadable and not allowed:
        named = shortened([f"{name} ({reason})" for name, reason in unreadable.items()], 3)
        raise UnreadableImages(
            f"data={catalogue.origin!r}: {len(unreadable)} of {total} images cannot be read: {named}; repair or remove "
            "them, or go on without them with --skip-unreadable"
        )


def _samples(record: Mapping[str, Any]) -> dict[str, str]:
    """Sample, named by its pool -> its side."""
    return {f"{record['pool']}|{name}": side for side, names in record["samples"].items() for name in names}
