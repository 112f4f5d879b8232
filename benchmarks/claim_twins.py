"""Twin runs of the pool: stability of plain SGD at several rates and batch sizes, beside both forms of its bound.

One task, a few training samples drawn with replacement (the theory's sampling).  All settings of a unit share replaced
samples, seeds and, at equal batch size, the batch order: ratios between settings are paired.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.claim_design import BATCH, MAIN, Design
from benchmarks.claim_inputs import Unit
from benchmarks.claim_merging import rounded
from benchmarks.suite_measuring import second_order_safe
from estimators.files import read_json, write_json
from estimators.recipe import Recipe
from estimators.stability import StabilityTwins, TwinDiverged, stability_bound


def settings(design: Design, edge: float) -> list[tuple[str, Recipe]]:
    """What varies (``rate`` or ``batch``) and the recipe, one setting an entry."""
    base = Recipe(
        learning_rate=edge,
        batch_size=BATCH,
        steps=design.twin_steps,
        sampling="with_replacement",
        num_samples=design.twin_samples,
    )
    found = [("rate", base.replace(learning_rate=edge * fraction)) for fraction in design.twin_fractions]
    middle = edge * design.twin_fractions[1]
    return found + [("batch", base.replace(learning_rate=middle, batch_size=b)) for b in design.twin_batches]


def measure_twins(design: Design, unit: Unit, folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Every setting, each stored when it is done."""
    rows = []
    for varied, recipe in settings(design, unit.edge):
        path = folder / f"twins-{recipe.learning_rate:.3g}-{recipe.batch_size}.json"
        if not path.exists():
            say(f"{unit.network}-{unit.seed}: twins at rate {recipe.learning_rate:.3g}, batch {recipe.batch_size}")
            write_json(path, _measure(design, unit, varied, recipe))
        rows.append(dict(read_json(path)))
    return rows


def _measure(design: Design, unit: Unit, varied: str, recipe: Recipe) -> dict[str, Any]:
    task = unit.inputs.tasks[0]
    constants = unit.constants.tasks[MAIN[0]]
    variance, curvature = constants.gradient_variance, constants.top_curvature
    row: dict[str, Any] = {
        "varied": varied,
        "fraction": rounded(recipe.learning_rate / unit.edge),
        "recipe": recipe.to_json(),
    }
    for form in ("refined", "paper"):
        row[form] = (
            None
            if variance is None or curvature is None
            else rounded(
                stability_bound(
                    gradient_variance=variance.value,
                    learning_rate=recipe.learning_rate,
                    batch_size=recipe.batch_size,
                    steps=recipe.steps,
                    num_samples=design.twin_samples,
                    smoothness=curvature.value,
                    form=form,
                )
            )
        )
    twins = StabilityTwins(recipe, num_pairs=design.twin_pairs, random_state=unit.seed)
    try:
        with second_order_safe():
            twins.fit(unit.inputs.objectives[MAIN[0]], task.train, task.validation)
    except TwinDiverged as error:
        return row | {"stability": None, "low": None, "high": None, "distances": [], "note": str(error)}
    return row | {
        "stability": rounded(twins.estimate_.value),
        "low": rounded(twins.estimate_.low),
        "high": rounded(twins.estimate_.high),
        "distances": [rounded(value) for value in twins.squared_distances_.tolist()],
        "note": twins.estimate_.note,
    }
