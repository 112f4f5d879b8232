"""Labelled texts: tables, and folders of class files.

    reviews.csv, .tsv          a header line with the columns ``text`` and ``label``; UTF-8
    reviews.jsonl              one object a line, {"text": ..., "label": ...}
    topics/sport.txt           one file a class, one text a line; blank lines separate nothing and are passed over
    topics/train/sport.txt     with train/ val/ test/ above; ``train.csv``, ``val.csv``, ``test.csv`` do the same

A text is named by its content, so that splits do not depend on the order of lines, and the same text is found again in
other tasks.  A text that stands there twice is kept once; one with two labels says nothing certain and is left out; one
that lies in two given splits is kept in the later of them (train, validation, test).  Notes say how many these were.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from estimators.datasets import SIDES, Catalogue, Kind, Side, shortened
from estimators.files import sha256_bytes
from estimators.image_folders import SIDE_NAMES

TABLE_ENDINGS = (".csv", ".tsv", ".jsonl")
CLASS_ENDING = ".txt"
POOL = "texts"  # every text is named by its content, so all sources count in one pool
KIND: Kind = "texts"
LARGEST_FILE = 2**31  # bytes; a table is read whole
LARGEST_TEXT = 1_000_000  # characters; more is a damaged file, and tokenising it takes minutes


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledText:
    """One line of a source.

    Attributes:
        text: the text, without spaces around it.
        label: its class.
        side: the split that its file gives; ``""`` for none.
    """

    text: str
    label: str
    side: Side


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Names of a table's columns."""

    text: str = "text"
    label: str = "label"


def text_catalogue(path: Path, *, origin: str | None = None, columns: Columns | None = None) -> Catalogue:
    """List the texts of a table or folder.

    Args:
        path: a table, a folder of class files, or a folder with train/ val/ test/ of either.
        origin: how the project names it.
        columns: names of a table's columns.

    Raises:
        ValueError: if nothing is there, a file is not UTF-8, a column or label is missing, or there is one class only.
    """
    origin = origin or str(path)
    found = [
        text for side, part in sources(path, origin).items() for text in _read(part, side, origin, columns or Columns())
    ]
    if not found:
        raise ValueError(f"data={origin!r} holds no text; check the path and what lies there")
    kept, notes = _each_once(found, origin)
    if not kept:
        raise ValueError(f"data={origin!r}: every text carries two labels; give each text one label")
    classes = tuple(sorted({text.label for text in kept}))
    given = {text.side for text in kept}
    for side in [side for side in SIDES if side in given]:
        absent = set(classes) - {text.label for text in kept if text.side == side}
        if absent:
            raise ValueError(
                f"data={origin!r}: class {min(absent)!r} is absent from the {side} split; add texts of it there or "
                "remove that split, so that it is cut from train"
            )
    index = {name: label for label, name in enumerate(classes)}
    return Catalogue(
        origin=origin,
        names=tuple(text_name(text.text) for text in kept),
        labels=np.array([index[text.label] for text in kept], dtype=np.int64),
        class_names=classes,
        sides=tuple(text.side for text in kept),
        open_sample=lambda position: kept[position].text,
        kind=KIND,
        pool=POOL,
        notes=tuple(notes),
    )


def text_name(text: str) -> str:
    """The name of a text: the first 80 bits of the SHA-256 of its content."""
    return sha256_bytes(text.encode())[:20]


def holds_texts(path: Path) -> bool:
    """Whether a path is a table, or a folder of texts and of nothing that could be images, by names alone."""
    if path.is_file():
        return path.suffix.lower() in TABLE_ENDINGS
    if not path.is_dir():
        return False
    try:
        found = sources(path, str(path))
    except ValueError:
        return False
    return all(place.is_file() or not any(child.is_dir() for child in _visible(place)) for place in found.values())


def sources(path: Path, origin: str) -> dict[Side, Path]:
    """Split -> table or folder of class files; the key is ``""`` where no splits are given."""
    if not path.exists():
        raise ValueError(f"data={origin!r} does not exist; paths are relative to the project file: correct the path")
    if path.is_file():
        if path.suffix.lower() not in TABLE_ENDINGS:
            raise ValueError(
                f"data={origin!r} ends in {path.suffix!r}; texts come from {', '.join(TABLE_ENDINGS)} or a folder of "
                f"{CLASS_ENDING} files, one a class"
            )
        return {"": path}
    if _class_files(path):
        return {"": path}
    sides: dict[Side, Path] = {}
    for child in _visible(path):
        side = SIDE_NAMES.get(child.stem.lower())
        if side is None or not (_class_files(child) if child.is_dir() else child.suffix.lower() in TABLE_ENDINGS):
            continue
        if side in sides:
            raise ValueError(f"data={origin!r} has two {side} parts, {sides[side].name!r} and {child.name!r}; keep one")
        sides[side] = child
    if "train" not in sides:
        raise ValueError(
            f"data={origin!r} holds no texts: it needs {CLASS_ENDING} files, one a class, or train/ (or train.csv) "
            "with val and test beside it; or name a table itself"
        )
    return {side: sides[side] for side in SIDES if side in sides}


def _visible(folder: Path) -> list[Path]:
    return [child for child in sorted(folder.iterdir()) if not child.name.startswith(".")]


def _class_files(folder: Path) -> list[Path]:
    return [child for child in _visible(folder) if child.is_file() and child.suffix.lower() == CLASS_ENDING]


def _read(path: Path, side: Side, origin: str, columns: Columns) -> Iterator[LabelledText]:
    """Texts of a table or of a folder of class files."""
    if path.is_dir():
        files = _class_files(path)
        rows: Iterator[tuple[str, str, str]] = (
            (line, file.stem, f"{file.name}:{n}") for file in files for n, line in _lines(file, origin)
        )
    else:
        rows = _jsonl(path, origin, columns) if path.suffix.lower() == ".jsonl" else _table(path, origin, columns)
    for text, label, place in rows:
        if len(text) > LARGEST_TEXT:
            raise ValueError(
                f"data={origin!r}: {place} has {len(text):,} characters; a text may have {LARGEST_TEXT:,}: is a quote "
                "left open?"
            )
        yield LabelledText(text=text.strip(), label=label, side=side)


def _lines(file: Path, origin: str) -> Iterator[tuple[int, str]]:
    content = _content(file, origin)
    if not content.strip():
        raise ValueError(f"data={origin!r}: {file.name} is empty; put one text a line there or remove the file")
    return ((n, line) for n, line in enumerate(content.split("\n"), 1) if line.strip())


def _table(file: Path, origin: str, columns: Columns) -> Iterator[tuple[str, str, str]]:
    delimiter = "\t" if file.suffix.lower() == ".tsv" else ","
    reader = csv.DictReader(io.StringIO(_content(file, origin), newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            place = f"{file.name}:{reader.line_num}"
            yield _field(row, columns.text, origin, place), _label(row, columns, origin, place), place
    except csv.Error as error:
        raise ValueError(
            f"data={origin!r}: {file.name}:{reader.line_num} is no table row ({error}); quote fields that hold commas, "
            "quotes or line ends"
        ) from None


def _jsonl(file: Path, origin: str, columns: Columns) -> Iterator[tuple[str, str, str]]:
    for n, line in enumerate(_content(file, origin).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{file.name}:{n}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"data={origin!r}: {place} is no JSON ({error}); write one object a line") from None
        if not isinstance(row, dict):
            raise ValueError(f"data={origin!r}: {place} holds a {type(row).__name__}; write one object a line")
        yield _field(row, columns.text, origin, place), _label(row, columns, origin, place), place


def _field(row: dict[Any, Any], column: str, origin: str, place: str) -> str:
    """A text; a row that lacks it is refused."""
    if column not in row:
        raise ValueError(
            f"data={origin!r}: {place} has no column {column!r} but {shortened([str(k) for k in row if k])}; set "
            "reader.text_key and reader.label_key"
        )
    value = row[column]
    if not isinstance(value, str):
        raise ValueError(f"data={origin!r}: {place}: {column} is {value!r}, not a text; complete the row")
    return value


def _label(row: dict[Any, Any], columns: Columns, origin: str, place: str) -> str:
    """A class name; whole numbers count as names."""
    whole = isinstance(row.get(columns.label), int) and not isinstance(row[columns.label], bool)
    label = str(row[columns.label]) if whole else _field(row, columns.label, origin, place).strip()
    if not label:
        raise ValueError(f"data={origin!r}: {place} has no label; every text needs one class")
    return label


def _content(file: Path, origin: str) -> str:
    try:
        if file.stat().st_size > LARGEST_FILE:
            raise ValueError(
                f"data={origin!r}: {file.name} has over {LARGEST_FILE:,} bytes; cut it into parts or thin it out"
            )
        content = file.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ValueError(f"data={origin!r}: {file.name} cannot be read ({error.strerror}); grant permission") from None
    except UnicodeDecodeError as error:
        raise ValueError(
            f"data={origin!r}: {file.name} is not UTF-8 (byte {error.start:,}); save it as UTF-8, e.g. with iconv"
        ) from None
    if not content.strip():
        raise ValueError(f"data={origin!r}: {file.name} is empty; put texts there")
    return content.replace("\r\n", "\n")


def _each_once(found: list[LabelledText], origin: str) -> tuple[list[LabelledText], list[str]]:
    """Every text once, in order of appearance, and notes on what was left out."""
    labels: dict[str, set[str]] = {}
    latest: dict[str, int] = {}
    order: dict[Side, int] = {"": 0, "train": 0, "validation": 1, "test": 2}
    for text in found:
        labels.setdefault(text.text, set()).add(text.label)
        latest[text.text] = max(latest.get(text.text, 0), order[text.side])
    kept: dict[str, LabelledText] = {}
    crossing = set()
    for text in found:
        if order[text.side] != latest[text.text]:
            crossing.add(text.text)
        elif len(labels[text.text]) == 1:
            kept.setdefault(text.text, text)
    ambiguous = sum(len(names) > 1 for names in labels.values())
    repeats = len(found) - len({(text.text, text.label, text.side) for text in found})
    said = {
        "stand there more than once and count once": repeats,
        "carry two labels and were left out": ambiguous,
        "lie in two splits and were kept in the later one": len(crossing),
    }
    return list(kept.values()), [f"data={origin!r}: {count} texts {what}" for what, count in said.items() if count > 0]
