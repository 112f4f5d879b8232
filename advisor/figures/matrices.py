"""Matrices between tasks as heat maps with the number in each cell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go

from advisor.figures.style import DIVERGING, SEQUENTIAL, Drawn, finite, plain, styled
from estimators.constants import Constants

MAX_NUMBERS = 12  # tasks up to which numbers fit into the cells


def heat_map(
    names: Sequence[str],
    matrix: Sequence[Sequence[float]],
    *,
    title: str,
    unit: str,
    x: str = "task",
    y: str = "task",
    around_zero: bool = True,
    limit: float | None = None,
) -> Drawn:
    """A matrix [N][N] between tasks; NaN leaves a gap.

    Args:
        names: N tasks.
        matrix: rows from top to bottom.
        title: what it shows.
        unit: unit of the numbers, shown at the colour bar.
        x: label of the columns.
        y: label of the rows.
        around_zero: colours diverge from zero, symmetric.
        limit: largest absolute value of the colour scale; from the matrix by default.
    """
    if [len(row) for row in matrix] != [len(names)] * len(names):
        raise ValueError(f"matrix must be {len(names)} x {len(names)} like names; give one row a task")
    labels = [plain(name) for name in names]
    known = [abs(value) for row in matrix for value in row if math.isfinite(value)]
    top = limit if limit is not None else max(known, default=1.0) or 1.0
    numbers: dict[str, Any] = {}
    if len(names) <= MAX_NUMBERS:
        numbers = {
            "text": [[f"{v:.2g}" if math.isfinite(v) else "" for v in row] for row in matrix],
            "texttemplate": "%{text}",
        }
    figure = go.Figure(
        go.Heatmap(
            x=labels,
            y=labels,
            z=[finite(row) for row in matrix],
            colorscale=DIVERGING if around_zero else SEQUENTIAL,
            zmin=-top if around_zero else None,
            zmax=top if around_zero else None,
            colorbar={"title": {"text": unit, "side": "right"}},
            hovertemplate="%{y} / %{x}: %{z:.4g}<extra></extra>",
            **numbers,
        )
    )
    styled(figure, title=title, x=x, y=y, height=max(360, 160 + 36 * len(names)))
    figure.update_xaxes(type="category")
    figure.update_yaxes(type="category", autorange="reversed")
    return Drawn(figure, _alt(names, matrix, title, unit))


def gradient_cosines(constants: Constants) -> Drawn | None:
    """cos(grad F_i, grad F_j) at x0 from the gradient Gram matrix; a gap where a norm is not known to be positive."""
    gram = constants.gradient_gram
    if gram is None:
        return None
    squares = [gram[i][i].value for i in range(len(gram))]
    matrix = [
        [
            cell.value / math.sqrt(squares[i] * squares[j]) if squares[i] > 0 and squares[j] > 0 else math.nan
            for j, cell in enumerate(row)
        ]
        for i, row in enumerate(gram)
    ]
    drawn = heat_map(
        constants.names, matrix, title="Do tasks pull together? Cosines of gradients at x₀", unit="cosine", limit=1.0
    )
    return Drawn(drawn.figure, f"{drawn.alt} These are estimates: noise can carry them beyond 1.")


def relative_sharpness(constants: Constants) -> Drawn | None:
    """Curvature of each task's loss along every task's update."""
    matrix = constants.relative_sharpness
    if matrix is None:
        return None
    return heat_map(
        constants.names,
        [[cell.value for cell in row] for row in matrix],
        title="Curvature of a task's loss along another's update",
        unit="nats/|x|²",
        x="update of task",
        y="loss of task",
    )


def task_vector_cosines(names: Sequence[str], cosines: Sequence[Sequence[float]]) -> Drawn:
    """cos(tau_i, tau_j) between finished experts."""
    return heat_map(names, cosines, title="Cosines between task vectors", unit="cosine", limit=1.0)


def _alt(names: Sequence[str], matrix: Sequence[Sequence[float]], title: str, unit: str) -> str:
    pairs = [(matrix[i][j], a, b) for i, a in enumerate(names) for j, b in enumerate(names) if i != j]
    known = [pair for pair in pairs if math.isfinite(pair[0])]
    if not known:
        return f"Heat map. {title}, {unit}, {len(names)} tasks."
    low, high = min(known), max(known)
    return (
        f"Heat map. {title}, in {unit}, {len(names)} tasks: between different tasks from {low[0]:.3g} "
        f"({low[1]}, {low[2]}) to {high[0]:.3g} ({high[1]}, {high[2]})."
    )
