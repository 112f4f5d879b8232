r"""Artefacts of a run as values: what is whole and yet holds something else is refused by name, like damage.

A checksum shows damage, not whether a file was changed by hand or written by another program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from advisor.run_manifest import DamagedArtefact
from advisor.runs import RunDirectory

Value = TypeVar("Value")


def read_value(run: RunDirectory, name: str, make: Callable[[dict[str, Any]], Value]) -> Value:
    """What ``make`` makes of a JSON artefact.

    Raises:
        DamagedArtefact: if its content has another shape than this program writes.
    """
    content = run.read_json(name)
    try:
        return make(content)
    except (KeyError, IndexError, AttributeError, TypeError) as error:
        raise DamagedArtefact(
            f"{name} of run {run.id!r} holds something else than this program writes "
            f"({type(error).__name__}: {error}); "
            "delete it and run the same command again: it is made again and the rest is kept"
        ) from None
