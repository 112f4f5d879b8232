"""All merge operators by name. Importing this module imports no torch."""

import inspect
from collections.abc import Mapping
from numbers import Real
from types import MappingProxyType
from typing import Any

from advisor.merging.averaging import average_operator, weighted_average_operator
from advisor.merging.breadcrumbs import breadcrumbs_operator
from advisor.merging.dare import dare_operator, dare_ties_operator
from advisor.merging.della import della_operator
from advisor.merging.fisher import fisher_operator
from advisor.merging.iso import iso_c_operator, iso_cts_operator
from advisor.merging.metagpt import metagpt_operator
from advisor.merging.model_stock import model_stock_operator
from advisor.merging.operator import Operator, OperatorEntry
from advisor.merging.regmean import regmean_operator
from advisor.merging.slerp import slerp_operator
from advisor.merging.task_arithmetic import task_arithmetic_operator
from advisor.merging.task_covariance import ridge_covariance_operator, wudi_operator
from advisor.merging.ties import ties_operator
from advisor.merging.tsv import tsv_operator

_ENTRIES = (
    OperatorEntry(name="average", summary="(1/N) Σ x_t", reference="arXiv 2203.05482", build=average_operator),
    OperatorEntry(
        name="weighted_average",
        summary="Σ c_t x_t / Σ c",
        reference="arXiv 2203.05482",
        build=weighted_average_operator,
    ),
    OperatorEntry(
        name="task_arithmetic", summary="x₀ + Σ c_t τ_t", reference="arXiv 2212.04089", build=task_arithmetic_operator
    ),
    OperatorEntry(
        name="ties",
        summary="trim small changes, elect signs, merge what agrees",
        reference="arXiv 2306.01708",
        build=ties_operator,
    ),
    OperatorEntry(
        name="dare", summary="drop changes at random, rescale, add", reference="arXiv 2311.03099", build=dare_operator
    ),
    OperatorEntry(
        name="dare_ties",
        summary="drop changes at random, rescale, elect signs",
        reference="arXiv 2311.03099",
        build=dare_ties_operator,
    ),
    OperatorEntry(
        name="della",
        summary="drop small changes more often, rescale, elect signs",
        reference="arXiv 2406.11617",
        build=della_operator,
    ),
    OperatorEntry(
        name="breadcrumbs",
        summary="drop the largest and the smallest changes, add",
        reference="arXiv 2312.06795",
        build=breadcrumbs_operator,
    ),
    OperatorEntry(
        name="slerp", summary="mean on the sphere, two experts or more", reference="Shoemake 1985", build=slerp_operator
    ),
    OperatorEntry(
        name="fisher",
        summary="weigh every number by its Fisher information",
        reference="arXiv 2111.09832",
        build=fisher_operator,
        needs_data=True,
    ),
    OperatorEntry(
        name="regmean",
        summary="linear layers that keep each expert's outputs",
        reference="arXiv 2212.09849",
        build=regmean_operator,
        needs_data=True,
    ),
    OperatorEntry(
        name="wudi",
        summary="least interference with task matrices, by Adam",
        reference="arXiv 2503.08099",
        build=wudi_operator,
    ),
    OperatorEntry(
        name="ridge_covariance",
        summary="least interference with task matrices, closed form",
        reference="arXiv 2503.08099",
        build=ridge_covariance_operator,
    ),
    OperatorEntry(
        name="tsv_m",
        summary="leading singular vectors of each task, made orthogonal",
        reference="arXiv 2412.00081",
        build=tsv_operator,
    ),
    OperatorEntry(
        name="iso_c",
        summary="summed task matrix with a flat spectrum",
        reference="arXiv 2502.04959",
        build=iso_c_operator,
    ),
    OperatorEntry(
        name="iso_cts",
        summary="flat spectrum over common and task directions",
        reference="arXiv 2502.04959",
        build=iso_cts_operator,
    ),
    OperatorEntry(
        name="model_stock",
        summary="mean change, shrunk by the experts' agreement",
        reference="arXiv 2403.19522",
        build=model_stock_operator,
    ),
    OperatorEntry(
        name="metagpt",
        summary="task arithmetic with squared norms as coefficients",
        reference="arXiv 2406.11385",
        build=metagpt_operator,
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
    entry = OPERATORS[method]
    accepted = inspect.signature(entry.build).parameters
    for name, value in options.items():
        if name not in accepted:
            takes = ", ".join(accepted) or "none"
            raise TypeError(f"method={method!r} takes no option {name!r}; its options: {takes}")
        usual = accepted[name].default
        if isinstance(usual, bool) and not isinstance(value, bool):
            raise TypeError(f"method={method!r}: {name}={value!r} must be true or false")
        if isinstance(usual, int | float) and not isinstance(value, Real):
            raise TypeError(f"method={method!r}: {name}={value!r} must be a number, like {usual}")
    for name, parameter in accepted.items():
        if parameter.default is parameter.empty and name not in options:
            raise TypeError(
                f"method={method!r} needs {name}=, one map for each expert, which a model and data give "
                "(docs/merging.md: estimate_fisher, collect_activation_grams); merge from Python with them"
            )
    return entry.build(**options)
