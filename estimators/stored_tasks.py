"""A task's samples in the run: decoded once, stored as safetensors, read back bit for bit.

``splits.json`` says for each task where its samples came from, which are in which split, and the SHA-256 of each file.
Unreadable samples are named and counted; they are left out only where that was allowed, and the record says so.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from estimators.datasets import SIDES, Catalogue, shortened
from estimators.files import StorageFailed, write_json
from estimators.sample_forms import SampleForm
from estimators.splits import SCHEMA, SPLITS_FILE, SplitIndices, check_test, load_split, store_split
from estimators.tasks import Task

MEMORY_SHARE = 0.5  # decoded samples may fill half of the machine's memory: torch, features and gradients need the rest


class UnreadableSamples(ValueError):
    """Samples that cannot be decoded, where leaving them out was not allowed."""


def store_task(
    run: Path,
    name: str,
    catalogue: Catalogue,
    indices: SplitIndices,
    *,
    form: SampleForm,
    allow_unreadable: bool = False,
) -> dict[str, Any]:
    """Decode and store the three splits of a task; returns its record for ``splits.json``.

    Raises:
        UnreadableSamples: if a sample cannot be decoded and ``allow_unreadable`` is false.
        StorageFailed: if the disk has no room, checked before anything is written.
        ValueError: if the samples do not fit into memory, or a class loses its last sample of a split.
    """
    total = sum(len(getattr(indices, side)) for side in SIDES)
    refuse_too_large(run, name, total * form.row_bytes)
    decoded: dict[str, tuple[NDArray[Any], NDArray[np.int64], list[str]]] = {}
    unreadable: dict[str, str] = {}
    facts: Counter[str] = Counter(samples=total)
    for side in SIDES:
        positions = getattr(indices, side)
        openers = [(catalogue.names[i], functools.partial(catalogue.open_sample, int(i))) for i in positions]
        found = form.encode(openers)
        kept = positions[found.readable]
        decoded[side] = found.rows, catalogue.labels[kept], [catalogue.names[i] for i in kept]
        unreadable |= found.unreadable
        facts.update(found.facts)
    _refuse_unreadable(unreadable, catalogue, total, allowed=allow_unreadable)
    for stored_side, (_, labels, _) in decoded.items():
        absent = sorted(set(range(len(catalogue.class_names))) - set(labels.tolist()))
        if absent:
            raise ValueError(
                f"data={catalogue.origin!r}: without its unreadable {catalogue.kind} class "
                f"{catalogue.class_names[absent[0]]!r} is absent from the {stored_side} split; repair or add some"
            )
    return {
        "origin": catalogue.origin,
        "pool": catalogue.pool or catalogue.origin,
        "class_names": list(catalogue.class_names),
        **({} if catalogue.kind == "images" else {"kind": catalogue.kind}),
        **form.about,
        "samples": {side: names for side, (_, _, names) in decoded.items()},
        "sha256": {side: store_split(run, name, side, rows, y) for side, (rows, y, _) in decoded.items()},
        "unreadable": unreadable,
        "form_notes": form.notes(name, facts),
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
    unreadable, notes = record["unreadable"], list(record.get("form_notes", []))
    if unreadable:
        named = shortened(list(unreadable), 3)
        notes.insert(0, f"task {name!r}: {len(unreadable)} unreadable {_kind(record)} were left out ({named})")
    return notes


def _kind(record: Mapping[str, Any]) -> str:
    """What the samples of a record are; records made before there were texts do not say."""
    return str(record.get("kind", "images"))


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
            one, two = sample_sides(records[first]), sample_sides(records[second])
            common = one.keys() & two.keys()
            kind = _kind(records[first])
            crossed = sum(one[name] != two[name] and "test" in (one[name], two[name]) for name in common)
            if crossed:
                told = f"{crossed} of them are test {kind} of one and not of the other"
                crossing.append(f"{first!r} and {second!r} share {len(common)} {kind}, {told}")
            elif common:
                apart.append(f"{first!r} and {second!r} share {len(common)} {kind}")
    theory = "the theory takes the tasks' samples as independent"
    notes = (
        [f"tasks {', '.join(apart)}: none is in the test split of one and not of the other, but {theory}"]
        if apart
        else []
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
            f"{memory / 2**30:.1f} GiB; set tasks.{name}.limit or a smaller backbone.image_size (texts: max_length)"
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
        raise UnreadableSamples(
            f"data={catalogue.origin!r}: {len(unreadable)} of {total} {catalogue.kind} cannot be read: {named}; repair "
            "or remove them, or go on without them with --skip-unreadable"
        )


def sample_sides(record: Mapping[str, Any]) -> dict[str, str]:
    """Sample, named by its pool -> its side."""
    return {f"{record['pool']}|{name}": side for side, names in record["samples"].items() for name in names}
