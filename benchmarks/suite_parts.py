"""Unfinished suites on disk: one file a trained chunk, so that a killed run goes on where it stopped.

    WORK/seed-0/<chunk>.json.gz         rows               <chunk>.safetensors   experts kept for mixed plans

A chunk's name is a hash of its recipes, so a grid that grows finds the chunks it has.
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from safetensors.torch import load_file, save
from torch import Tensor

from benchmarks.suite_measuring import Part, recipe_key
from estimators.files import write_bytes_atomic
from estimators.recipe import Recipe


def chunk_name(recipes: Sequence[Recipe]) -> str:
    """Name of a chunk: depends on its recipes alone."""
    joined = "+".join(recipe_key(recipe) for recipe in recipes)
    return hashlib.sha256(joined.encode()).hexdigest()[:12]


def write_part(path: Path, part: Part) -> None:
    """Write rows, compressed; an infinite risk is data here, so it is kept."""
    write_bytes_atomic(path, gzip.compress(json.dumps(part.to_json(), default=float).encode(), mtime=0))


def read_part(path: Path) -> Part:
    """Read rows back."""
    return Part(**json.loads(gzip.decompress(path.read_bytes())))


def write_experts(path: Path, experts: Mapping[tuple[str, int, str], Tensor]) -> None:
    """Keep experts under (recipe key, steps, task)."""
    named = {f"{key}|{steps}|{task}": value.cpu().contiguous() for (key, steps, task), value in experts.items()}
    write_bytes_atomic(path, save(named))


def read_experts(path: Path) -> dict[tuple[str, int, str], Tensor]:
    """Read experts back; nothing if there are none."""
    if not path.exists():
        return {}
    found: dict[tuple[str, int, str], Tensor] = {}
    for name, value in load_file(path).items():
        key, steps, task = name.split("|")
        found[key, int(steps), task] = value
    return found
