"""Train, validation and test of each task: made once, stored in the run, never mixed.

Every class is permuted with a generator seeded by (seed, the names of its samples) and cut by the fractions; so two
tasks that hold the same samples of a class put each of them on the same side.  A split that the source gives is
respected, a missing one is cut from train.  The samples of a split are stored in a fixed random order: the first n of
train are the n that ``num_samples=n`` uses.

A ``Task`` holds train and validation alone.  Test data come out of a run through ``open_test`` only, which writes down
who opened them (``test_openings.jsonl``); a test of the project walks the sources and allows that call in validation
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from estimators.datasets import SIDES, Catalogue
from estimators.files import append_json_line, read_json, sha256_bytes, write_bytes_atomic
from estimators.tasks import Split

DEFAULT_FRACTIONS = (0.70, 0.15, 0.15)
SCHEMA = 1
SPLITS_FILE = "splits.json"
OPENINGS_FILE = "test_openings.jsonl"

Indices = NDArray[np.int64]


class DamagedSplit(ValueError):
    """Stored samples that are missing, truncated or not those that the run wrote down."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SplitIndices:
    """Positions in a catalogue, each split in its fixed random order.

    Attributes:
        train: int64 [n].
        validation: int64 [m].
        test: int64 [k].
    """

    train: Indices
    validation: Indices
    test: Indices


def split_catalogue(
    catalogue: Catalogue,
    *,
    seed: int,
    fractions: Sequence[float] = DEFAULT_FRACTIONS,
    limit: int | None = None,
) -> SplitIndices:
    """Cut a catalogue into train, validation and test, stratified by class.

    Args:
        catalogue: the samples.
        seed: seed of the permutations.
        fractions: shares of train, validation and test among samples that no folder assigned; positive, sum 1.
        limit: keep this many samples over all splits and classes, in proportion, at least one of each class in each.

    Raises:
        ValueError: if a class is too small to be on every side, or ``limit`` is.
    """
    _check_fractions(fractions)
    given = {side for side in catalogue.sides if side}
    cells: dict[tuple[str, int], Indices] = {}
    sides = np.array(catalogue.sides)
    for label, name in enumerate(catalogue.class_names):
        members = np.flatnonzero(catalogue.labels == label)
        for side in SIDES:
            if side != "train" and side in given:
                cells[side, label] = _shuffled(members[sides[members] == side], catalogue, seed)
        open_ones = members[(sides[members] == "train") | (sides[members] == "")]
        to_cut = [side for side in SIDES if side == "train" or side not in given]
        shares = [fractions[SIDES.index(side)] for side in to_cut]
        parts = _cut(_shuffled(open_ones, catalogue, seed), shares, catalogue, name)
        cells |= {(side, label): part for side, part in zip(to_cut, parts, strict=True)}
    _refuse_absent_classes(cells, catalogue)
    if limit is not None:
        cells = _limited(cells, limit, catalogue)
    ordered = {
        side: np.random.default_rng([seed, number]).permutation(
            np.concatenate([cells[side, label] for label in range(len(catalogue.class_names))])
        )
        for number, side in enumerate(SIDES)
    }
    return SplitIndices(train=ordered["train"], validation=ordered["validation"], test=ordered["test"])


def apportion(counts: Sequence[int], total: int) -> list[int]:
    """Divide ``total`` over cells in proportion to their counts, at least one each, never more than there are.

    Whole shares first, then the largest remainders (Hamilton's method).

    >>> apportion([70, 20, 10], 10)
    [7, 2, 1]
    >>> apportion([1000, 1, 1], 4)
    [2, 1, 1]
    """
    available = np.array(counts)
    total = min(total, int(available.sum()))
    exact = total * available / available.sum()
    sizes = np.clip(np.floor(exact), 1, available).astype(np.int64)
    while sizes.sum() < total:
        sizes[np.where(sizes < available, exact - sizes, -np.inf).argmax()] += 1
    while sizes.sum() > total:
        sizes[np.where(sizes > 1, exact - sizes, np.inf).argmin()] -= 1
    return [int(size) for size in sizes]


def data_path(run: Path, task: str, side: str) -> Path:
    """Where the decoded samples of a split lie in a run."""
    return run / "data" / f"{task}-{side}.safetensors"


def store_split(run: Path, task: str, side: str, inputs: NDArray[Any], labels: Indices) -> str:
    """Write the samples of a split; returns the SHA-256 of the file."""
    data = save_tensors({"inputs": torch.from_numpy(inputs), "labels": torch.from_numpy(labels)})
    write_bytes_atomic(data_path(run, task, side), data)
    return sha256_bytes(data)


def read_records(run: Path) -> dict[str, Any]:
    """What ``splits.json`` holds: task name -> origin, class names, sample names and SHA-256 of each split."""
    path = run / SPLITS_FILE
    if not path.exists():
        raise ValueError(f"run={str(run)!r} holds no {SPLITS_FILE}; prepare the project into this run first")
    records = read_json(path)
    if not isinstance(records, dict) or records.get("schema") != SCHEMA or not isinstance(records.get("tasks"), dict):
        raise ValueError(
            f"path={str(path)!r} is not version {SCHEMA} of the splits; delete it so that it is made again"
        )
    return dict(records["tasks"])


def load_split(run: Path, task: str, side: str, *, sha256: str) -> Split:
    """Read train or validation samples back.

    Raises:
        DamagedSplit: if the file is missing or its hash is not ``sha256``.
        ValueError: for the test split, which only ``open_test`` reads.
    """
    if side not in ("train", "validation"):
        raise ValueError(f"side={side!r} must be train or validation; test data are opened by validation alone")
    return _read_split(run, task, side, sha256)


def check_test(run: Path, task: str, *, sha256: str) -> None:
    """Check that the stored test samples are whole, without opening them.

    Raises:
        DamagedSplit: if the file is missing or its hash is not ``sha256``.
    """
    _read_bytes(run, task, "test", sha256)


def open_test(run: Path, task: str, *, reader: str) -> Split:
    """Read the test samples of a task and write down who did.

    Args:
        run: the run directory.
        task: name of the task.
        reader: what the data are opened for, e.g. ``validation``; kept in the run.
    """
    if not reader.strip():
        raise ValueError(f"reader={reader!r} must say what opens the test data; pass a name such as 'validation'")
    records = read_records(run)
    if task not in records:
        raise ValueError(f"task={task!r} is not in this run; its tasks are {', '.join(records)}")
    sha256 = records[task]["sha256"]["test"]
    split = _read_split(run, task, "test", sha256)
    append_json_line(run / OPENINGS_FILE, {"task": task, "reader": reader, "samples": len(split), "sha256": sha256})
    return split


def _read_split(run: Path, task: str, side: str, sha256: str) -> Split:
    data = _read_bytes(run, task, side, sha256)
    try:
        tensors = load_tensors(data)
        return Split(inputs=tensors["inputs"], labels=tensors["labels"])
    except (SafetensorError, KeyError) as error:
        path = data_path(run, task, side)
        raise DamagedSplit(f"path={str(path)!r} is damaged ({error}); make it again") from None


def _read_bytes(run: Path, task: str, side: str, sha256: str) -> bytes:
    path = data_path(run, task, side)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DamagedSplit(
            f"path={str(path)!r} cannot be read ({error.strerror}); the split must be made again"
        ) from None
    if sha256_bytes(data) != sha256:
        raise DamagedSplit(f"path={str(path)!r} is not what the run wrote down (SHA-256 differs); make it again")
    return data


def _check_fractions(fractions: Sequence[float]) -> None:
    if len(fractions) != 3 or not all(0 < f < 1 for f in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise ValueError(
            f"split={list(fractions)} must be three positive shares of train, validation and test that sum to 1; "
            "for example [0.7, 0.15, 0.15]"
        )


def _shuffled(members: Indices, catalogue: Catalogue, seed: int) -> Indices:
    """Permute samples by (seed, their names), whatever else the task holds."""
    by_name = np.array(sorted(members, key=lambda i: catalogue.names[i]), dtype=np.int64)
    digest = sha256_bytes("\n".join(catalogue.names[i] for i in by_name).encode())
    return np.random.default_rng([seed, int(digest[:16], 16)]).permutation(by_name)


def _cut(members: Indices, shares: Sequence[float], catalogue: Catalogue, class_name: str) -> list[Indices]:
    if len(members) < len(shares):
        raise ValueError(
            f"data={catalogue.origin!r}: class {class_name!r} has {len(members)} {catalogue.kind} to cut into "
            f"{len(shares)} splits; it needs at least {len(shares)}: add {catalogue.kind} or leave the class out with "
            "`classes`"
        )
    weights = np.array(shares) / sum(shares)
    sizes = [max(1, round(len(members) * float(weight))) for weight in weights[1:]]
    while len(members) - sum(sizes) < 1:
        sizes[int(np.argmax(sizes))] -= 1
    return np.split(members, np.cumsum([len(members) - sum(sizes), *sizes])[:-1])


def _refuse_absent_classes(cells: dict[tuple[str, int], Indices], catalogue: Catalogue) -> None:
    for (side, label), members in cells.items():
        if len(members) == 0:
            raise ValueError(
                f"data={catalogue.origin!r}: class {catalogue.class_names[label]!r} is absent from the {side} split; "
                f"add {catalogue.kind} of it there or leave the class out with `classes`"
            )


def _limited(cells: dict[tuple[str, int], Indices], limit: int, catalogue: Catalogue) -> dict[tuple[str, int], Indices]:
    if limit < len(cells):
        raise ValueError(
            f"limit={limit} is below {len(cells)}, one {catalogue.kind[:-1]} for each of {len(catalogue.class_names)} "
            f"classes in each of 3 splits of data={catalogue.origin!r}; raise it"
        )
    sizes = apportion([len(members) for members in cells.values()], limit)
    return {key: members[:size] for (key, members), size in zip(cells.items(), sizes, strict=True)}
