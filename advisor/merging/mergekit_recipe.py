"""The same merge as a mergekit configuration, where mergekit 0.1.5 would reproduce ours; else the reason why not.

| ours | mergekit | holds when |
|---|---|---|
| average, weighted_average | `linear`, normalize | always |
| task_arithmetic, metagpt | `task_arithmetic`, weight c (c λ) | always |
| ties, scope "tensor", aggregate "sum" | `ties`, normalize false, weight c | always |
| ties, scope "tensor", aggregate "mean" | `ties`, normalize true, lambda c | all coefficients equal |
| model_stock, pairs "cosine" | `model_stock` | coefficients 1, no tensor needs our clamp |
| slerp | `slerp` | two experts |

"Reproduces" is up to rounding, and for TIES up to numbers that equal the threshold or cancel exactly. BatchNorm
statistics and kept tensors follow rules of ours, and mergekit refuses integer tensors that differ.
"""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from advisor.merging.grams import cosines_of
from advisor.merging.results import MergeResult


@dataclass(frozen=True, slots=True, kw_only=True)
class MergekitRecipe:
    """A configuration text, or the reason why there is none: exactly one of the two is empty."""

    text: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if bool(self.text) == bool(self.reason):
            raise ValueError(f"text={self.text!r}, reason={self.reason!r}: give exactly one")


def write_recipe(
    result: MergeResult, *, base: str, experts: Mapping[str, str], dtypes: Collection[str]
) -> MergekitRecipe:
    """The configuration of a finished merge.

    Args:
        result: of the merge.
        base: path or hub name of the base; empty when it was in memory.
        experts: the same by label.
        dtypes: storage dtypes of the parameters, as safetensors names them.

    Returns:
        The text, or the reason why there is none.
    """
    reason = _why_not(result, base, experts)
    if not reason and len(dtypes) > 1:
        reason = f"mergekit writes one dtype, this model has {sorted(dtypes)}"
    if reason:
        return MergekitRecipe(reason=reason)
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    method, shared, own = _translate(result)
    lines = [f"merge_method: {method}"]
    listed = dict(experts)
    if method == "slerp":
        lines.append(f"base_model: {json.dumps(listed.pop(result.labels[0]))}")
    elif method != "linear":
        lines.append(f"base_model: {json.dumps(base)}")
    lines.append("models:")
    for label, place in listed.items():
        lines.append(f"  - model: {json.dumps(place)}")
        lines += _block("    parameters:", own.get(label, {}), "      ")
    lines += _block("parameters:", shared, "  ")
    lines.append(f"dtype: {names[next(iter(dtypes))]}")
    return MergekitRecipe(text="\n".join(lines) + "\n")


def _block(title: str, values: Mapping[str, Any], indent: str) -> list[str]:
    return [title, *(f"{indent}{key}: {json.dumps(value)}" for key, value in values.items())] if values else []


def _translate(result: MergeResult) -> tuple[str, dict[str, Any], dict[str, dict[str, Any]]]:
    """Mergekit's method, its shared parameters, and those of each expert."""
    weights = result.coefficients
    if result.method in ("average", "weighted_average"):
        return "linear", {"normalize": True}, {label: {"weight": c} for label, c in weights.items()}
    if result.method in ("task_arithmetic", "metagpt"):
        factors = result.options.get("weights", [1.0] * len(weights))
        own = {label: {"weight": c * f} for (label, c), f in zip(weights.items(), factors, strict=True)}
        return "task_arithmetic", {"normalize": False}, own
    if result.method == "ties":
        density = result.options["density"]
        if result.options["aggregate"] == "sum":
            return "ties", {"normalize": False}, {a: {"weight": c, "density": density} for a, c in weights.items()}
        common = next(iter(weights.values()))
        own = {label: {"weight": 1.0, "density": density} for label in weights}
        return "ties", {"normalize": True, "lambda": common}, own
    if result.method == "slerp":
        return "slerp", {"t": result.coefficients[result.labels[1]]}, {}
    return "model_stock", {}, {}


def _why_not(result: MergeResult, base: str, experts: Mapping[str, str]) -> str:
    linear = ("average", "weighted_average", "task_arithmetic", "metagpt")
    if not base or not all(experts.values()):
        return "base or experts were in memory, not in files"
    if result.tensor_coefficients:
        return "some tensors have their own coefficients, which mergekit's filters do not select one by one"
    if result.kept:
        return f"tensor {result.kept[0]!r} was kept from the base, mergekit would merge it or refuse it"
    if result.statistics and result.method not in linear:
        return f"BatchNorm statistics such as {result.statistics[0]!r} take the linear rule here, not the method's"
    if result.method == "metagpt" and result.statistics:
        return "BatchNorm statistics are averaged here, not weighed by MetaGPT's coefficients"
    specific = {"ties": _why_not_ties, "model_stock": _why_not_stock, "slerp": _why_not_slerp}
    if result.method in specific:
        return specific[result.method](result)
    if result.method in ("dare", "dare_ties", "della"):
        return "mergekit draws other masks and rescales by the ratio of L1 norms, not by the keep probability"
    if result.method == "breadcrumbs":
        return "mergekit rounds the number of dropped values in another way"
    return "" if result.method in linear else f"mergekit 0.1.5 has no {result.method} as its paper defines it"


def _why_not_ties(result: MergeResult) -> str:
    if result.options["scope"] == "global":
        return "mergekit trims each tensor, not the whole model (scope='tensor' would match)"
    if result.options["aggregate"] == "max":
        return "mergekit has no largest-magnitude merge"
    values = list(result.coefficients.values())
    if result.options["aggregate"] == "mean" and len(set(values)) > 1:
        return (
            "mergekit divides by the agreeing weights, ours by the agreeing count; they differ for unequal coefficients"
        )
    return ""


def _why_not_stock(result: MergeResult) -> str:
    if result.options["pairs"] != "cosine":
        return "mergekit averages cosines, not angles"
    if any(value != 1.0 for value in result.coefficients.values()):
        return "mergekit's model_stock takes no coefficients"
    pairs = np.triu_indices(len(result.labels), k=1)
    for name, gram in result.task_vectors.tensors.items():
        if len(result.labels) < 2 or not cosines_of(gram)[pairs].mean() > 0:
            return f"tensor {name!r} needs our clamp: its task vectors do not agree on average"
    return ""


def _why_not_slerp(result: MergeResult) -> str:
    return "" if len(result.labels) == 2 else "mergekit's slerp takes exactly two models"
