"""The model card of a merge: recipe, what the weights say, and the figures that the caller predicted or measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from advisor.merging.mergekit_recipe import MergekitRecipe
from advisor.merging.results import MergeResult

_FRONT = "---\ntags:\n- merge\n- merge-advisor\nlibrary_name: merge-advisor\n---\n"


def write_card(
    result: MergeResult,
    *,
    base: str,
    experts: Mapping[str, str],
    recipe: MergekitRecipe,
    figures: Mapping[str, float | str] | None = None,
) -> str:
    """Markdown text of the card.

    Args:
        result: of the merge.
        base: what to call the base.
        experts: what to call each expert, by label.
        recipe: the mergekit configuration or the reason why there is none.
        figures: name → predicted or measured number, listed as given; none are invented.

    Returns:
        The text, with a front matter that model hubs read.
    """
    parts = [
        f"{_FRONT}\n# Merge of {len(experts)} experts by {result.method}\n",
        f"x_avg = x₀ + Π(c, τ), τ = expert − base; base: `{base or 'in memory'}`, seed {result.seed}.\n",
        "## Experts\n\n" + _experts(result, experts),
    ]
    if result.options:
        parts.append("## Options\n\n" + _table(("option", "value"), [(k, f"`{v}`") for k, v in result.options.items()]))
    if len(result.labels) > 1:
        parts.append("## Cosines of task vectors\n\n" + _cosines(result))
    if figures:
        parts.append("## Figures\n\n" + _table(("figure", "value"), [(k, _number(v)) for k, v in figures.items()]))
    if result.tensor_coefficients:
        parts.append(f"{len(result.tensor_coefficients)} tensors have coefficients of their own.\n")
    if result.kept or result.notes:
        kept = [f"- `{name}`: the base's value" for name in result.kept]
        parts.append("## Not merged\n\n" + "\n".join([*kept, *(f"- {note}" for note in result.notes)]) + "\n")
    if recipe.text:
        parts.append(f"## The same merge in mergekit\n\n```yaml\n{recipe.text}```\n")
    else:
        parts.append(f"## The same merge in mergekit\n\nNot possible: {recipe.reason}.\n")
    return "\n".join(parts)


def _experts(result: MergeResult, experts: Mapping[str, str]) -> str:
    rows = [
        (label, f"`{experts[label] or 'in memory'}`", _number(result.coefficients[label]), _number(float(norm)))
        for label, norm in zip(result.labels, result.norms, strict=True)
    ]
    table = _table(("expert", "weights", "coefficient", "norm of task vector"), rows)
    return f"{table}\nNorm of the base: {_number(result.task_vectors.base_norm)}.\n"


def _cosines(result: MergeResult) -> str:
    rows = [
        (label, *(f"{value:.3f}" for value in row)) for label, row in zip(result.labels, result.cosines, strict=True)
    ]
    return _table(("", *result.labels), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def _number(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.6g}"
