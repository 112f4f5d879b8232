"""Read a YAML file that a user wrote: no tags, no anchors, no key twice; and say what is wrong with it in words."""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

MAX_BYTES = 200_000
MAX_DEPTH = 20  # a project is five levels deep; the scanner's time grows with the square of the depth
SHOWN = 5  # problems named in one message


class _Loader(yaml.SafeLoader):
    """``yaml.SafeLoader`` that refuses keys given twice, which YAML forbids and PyYAML swallows."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """Build a mapping, each key once."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is no text; put it in quotes", problem_mark=key_node.start_mark
                )
            if key in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key!r} is given twice; keep one", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> Any:
    """Plain values of a YAML file.

    Raises:
        ValueError: for a missing, too large or damaged file, and for anchors, tags and repeated keys.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"path={str(path)!r} is larger than {MAX_BYTES:,} bytes; this is no project file")
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError(f"path={str(path)!r} is not UTF-8 text; save it as UTF-8") from None
    except OSError as error:
        raise ValueError(
            f"path={str(path)!r} cannot be read ({error.strerror}); write one with `merge-advisor init FOLDER`"
        ) from None
    return parse_yaml(text, str(path))


def parse_yaml(text: str, label: str = "text") -> Any:
    """Plain values of YAML text."""
    try:
        _refuse_tricks(text, label)
        loader = _Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        place = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ValueError(f"{label}{place}: {error.problem or error.context}; correct the YAML") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{label}: {' '.join(str(error).split())[:200]}; correct the YAML") from None
    except (ValueError, OverflowError) as error:
        if str(error).startswith(f"{label}: "):
            raise
        raise ValueError(f"{label}: {' '.join(str(error).split())[:200]}; put the value in quotes") from None
    except RecursionError:
        raise ValueError(f"{label}: the YAML is nested too deeply; write it flat") from None


def _refuse_tricks(text: str, label: str) -> None:
    """Refuse anchors, aliases, tags and deep nesting while scanning, before anything is built."""
    depth = 0
    for token in yaml.scan(text):
        if isinstance(token, yaml.AliasToken | yaml.AnchorToken | yaml.TagToken):
            raise ValueError(f"{label}: anchors, aliases and tags of YAML are not used here; write the values out")
        name = type(token).__name__
        depth += name.endswith(("SequenceStartToken", "MappingStartToken"))
        depth -= name.endswith(("SequenceEndToken", "MappingEndToken", "BlockEndToken"))
        if depth > MAX_DEPTH:
            raise ValueError(f"{label}: the YAML is nested deeper than {MAX_DEPTH} levels; write it flat")


def explain(error: ValidationError, model: type[BaseModel], label: str) -> str:
    """What pydantic found, in one paragraph: place=value, rule, next step."""
    problems = [_problem(dict(item), model) for item in error.errors()]
    rest = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return f"{label}: " + "; ".join(problems[:SHOWN]) + rest


def _problem(item: dict[str, Any], model: type[BaseModel]) -> str:
    location = tuple(part for part in item["loc"] if part != "[key]")
    place = ".".join(str(part) for part in location)
    value = item.get("input")
    shown = repr(value) if len(repr(value)) <= 80 else f"{repr(value)[:77]}..."
    if item["type"] == "extra_forbidden":
        owner, known = ".".join(map(str, location[:-1])), field_names(model, location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, 1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(known)}"
        return f"{place} is no key of {owner or 'the project'}; {hint}"
    if item["type"] == "missing":
        return f"{place} is missing; add it (docs/project-file.md)"
    if item["type"] == "value_error":
        said = str(item["ctx"]["error"])
        if not place:
            return said
        return f"{place}: {said}" if isinstance(value, dict) and value else f"{place}={shown} {said}"
    if "literal" in item["type"]:
        choices = str(item["ctx"]["expected"])
        near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", choices), 1)
        return f"{place}={shown} must be {choices}; " + (f"did you mean {near[0]!r}?" if near else "choose one")
    message = str(item["msg"]).replace("Input should", "must").replace("Value should", "must").replace("input", "value")
    return f"{place}={shown} {message[0].lower()}{message[1:]}; correct it (docs/project-file.md)"


def field_names(model: type[BaseModel], location: tuple[Any, ...]) -> list[str]:
    """Keys that the model at ``location`` knows, descending through optional fields, mappings and lists."""
    current: Any = model
    for part in location:
        current = _inside(current, part)
        if current is None:
            return []
    found = _model_of(current)
    return list(found.model_fields) if found else []


def _inside(kind: Any, part: Any) -> Any:
    found = _model_of(kind)
    if found is not None:
        return found.model_fields[part].annotation if part in found.model_fields else None
    arguments = [a for a in typing.get_args(kind) if a is not type(None)]
    return arguments[-1] if arguments else None


def _model_of(kind: Any) -> type[BaseModel] | None:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return next((m for m in map(_model_of, typing.get_args(kind)) if m is not None), None)
    return None
