r"""Schemas of a run's JSON artefacts: ``"schema": "merge-advisor/<name>/<version>"`` is the first key of each.

A version goes up when readers of the older one would misread the new file.  ``CONVERTERS`` turns an older payload into
the next version; what has no converter is refused with the way on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from advisor.run_manifest import DamagedArtefact
from estimators.files import read_json

PREFIX = "merge-advisor"
VERSIONS: Mapping[str, int] = {}  # name -> version; 1 where it is not listed
CONVERTERS: Mapping[tuple[str, int], Callable[[dict[str, Any]], dict[str, Any]]] = {}


class WrongSchema(ValueError):
    """A stored piece was written by another version of the program."""


def schema_of(name: str) -> str:
    """The schema of a JSON artefact.

    >>> schema_of("recommendation.json")
    'merge-advisor/recommendation/1'
    """
    stem = Path(name).stem
    return f"{PREFIX}/{stem}/{VERSIONS.get(stem, 1)}"


def read_typed(path: Path) -> dict[str, Any]:
    """A JSON artefact without its schema, converted to today's version.

    Raises:
        DamagedArtefact: if it is not a JSON object with a schema of its own name.
        WrongSchema: if it is newer than this program or cannot be converted.
    """
    try:
        content = read_json(path)
    except ValueError as error:
        raise DamagedArtefact(str(error)) from None
    if not isinstance(content, dict) or "schema" not in content:
        raise DamagedArtefact(f"path={str(path)!r} has no schema; delete it so that it is made again")
    schema = content.pop("schema")
    prefix, _, number = str(schema).rpartition("/")
    if prefix != f"{PREFIX}/{path.stem}" or not number.isdecimal():
        raise DamagedArtefact(f"schema={schema!r} of {path.name} must be {schema_of(path.name)!r}; delete the file")
    return _converted(content, path, int(number))


def _converted(content: dict[str, Any], path: Path, number: int) -> dict[str, Any]:
    today = VERSIONS.get(path.stem, 1)
    if number > today:
        raise WrongSchema(
            f"version={number} of {path.name} is newer than {today}, which this program reads; upgrade merge-advisor"
        )
    for step in range(number, today):
        convert = CONVERTERS.get((path.stem, step))
        if convert is None:
            raise WrongSchema(
                f"version={number} of {path.name} is older than {today} and has no converter; "
                "open it with the version named in run.json, or start a new run of its project.yaml"
            )
        content = convert(content)
    return content
