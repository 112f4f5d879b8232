"""All merge operators by name. Importing this module imports no torch."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from advisor.merging.averaging import average_operator, weighted_average_operator
from advisor.merging.operator import Operator, OperatorEntry
from advisor.merging.task_arithmetic import task_arithmetic_operator
from advisor.merging.ties import ties_operator

_ENTRIES = (
    OperatorEntry(
        name="average",
        summary="(1/N) sum of experts",
        reference="arXiv 2203.05482",
        build=average_operator,
    ),
    OperatorEntry(
        name="weighted_average",
        summary="sum of c x / sum of c",
        reference="arXiv 2203.05482",
        build=weighted_average_operator,
    ),
    OperatorEntry(
        name="task_arithmetic",
        summary="base + sum of c times task vector",
        reference="arXiv 2212.04089",
        build=task_arithmetic_operator,
    ),
    OperatorEntry(
        name="ties",
        summary="trim small changes, elect signs, merge what agrees",
        reference="arXiv 2306.01708",
        build=ties_operator,
    ),
)

OPERATORS: Mapping[str, OperatorEntry] = MappingProxyType({entry.name: entry for entry in _ENTRIES})


def build_operator(method: str, options: Mapping[str, Any]) -> Operator:
    """The operator `method` with its options bound.

    Raises:
        ValueError: unknown method.
        TypeError: an option that the method does not take, or one that it needs and lacks.
    """
    if method not in OPERATORS:
        raise ValueError(f"method={method!r} is unknown; choose one of {', '.join(OPERATORS)}")
    try:
        return OPERATORS[method].build(**options)
    except TypeError as error:
        if "argument" not in str(error):
            raise
        raise TypeError(f"method={method!r}: {str(error).partition('() ')[2] or error}") from None
