"""What the models of the project file share: the frozen base, whole numbers, ranges and task names."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

FOLDER_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class Settings(BaseModel):
    """Frozen; unknown keys, NaN and infinity are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


LATER_FIELDS = {"kind", "max_length", "text_key"}  # came after the first runs had been made


def dump_settled(settings: BaseModel) -> dict[str, Any]:
    """Plain values that hashes are taken of; fields younger than the first runs count only where they are set.

    So a run that was made before a field existed is still known by its project.
    """

    def settled(model: BaseModel) -> dict[str, Any]:
        plain = model.model_dump(mode="json")
        for name, field in type(model).model_fields.items():
            value = getattr(model, name)
            if isinstance(value, BaseModel):
                plain[name] = settled(value)
            elif name in LATER_FIELDS and value == field.default:
                del plain[name]
        return plain

    return settled(settings)


def refuse_bool(value: Any) -> Any:
    """YAML's ``yes`` and ``on`` are no numbers."""
    if isinstance(value, bool):
        raise ValueError("must be a number, not true or false; write the number")
    return value


def _two_ends(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ValueError("must be a range of two numbers, [least, greatest]; write both ends")
    return value


def _ordered(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError("is inverted: the lower end comes first; swap the two")
    return value


def _positive(value: tuple[float, float]) -> tuple[float, float]:
    if not value[0] > 0:
        raise ValueError("must be positive at both ends; raise the lower one")
    return value


def _not_negative(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] < 0:
        raise ValueError("must be at least 0 at both ends; raise the lower one")
    return value


Real = Annotated[float, BeforeValidator(refuse_bool)]
Whole = Annotated[int, BeforeValidator(refuse_bool)]
PositiveRange = Annotated[
    tuple[Real, Real], BeforeValidator(_two_ends), AfterValidator(_positive), AfterValidator(_ordered)
]
CoefficientRange = Annotated[
    tuple[Real, Real], BeforeValidator(_two_ends), AfterValidator(_not_negative), AfterValidator(_ordered)
]
WholeRange = Annotated[
    tuple[Whole, Whole], BeforeValidator(_two_ends), AfterValidator(_positive), AfterValidator(_ordered)
]


def check_folder_name(name: str) -> str:
    """A task name is part of file and column names, so it is kept plain."""
    if not FOLDER_NAME.fullmatch(name):
        raise ValueError(
            f"name {name!r} must be 1 to 64 letters, digits, - or _, and begin with a letter or digit; rename the task"
        )
    return name


def plain_yaml_value(value: Any) -> Any:
    """Tuples as lists, so that YAML writes no tags."""
    if isinstance(value, dict):
        return {key: plain_yaml_value(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [plain_yaml_value(item) for item in value]
    return value
