"""Measured constants of every task with their 90 % intervals, a panel for each constant because units differ."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from advisor.figures.style import Drawn, error_bars, finite, look, plain, styled
from estimators.constants import Constants, Estimate

LABELS = {
    "initial_risk": ("risk of x₀", "nats"),
    "initial_accuracy": ("accuracy of x₀", "share"),
    "initial_gradient_norm": ("‖∇F(x₀)‖", "nats/|x|"),
    "gradient_variance": ("σ², gradient variance", "nats²/|x|²"),
    "heldout_gradient_variance": ("σ² on held-out data", "nats²/|x|²"),
    "heterogeneity": ("ζ², heterogeneity", "nats²/|x|²"),
    "top_curvature": ("top curvature at x₀", "nats/|x|²"),
    "gauss_newton_curvature": ("Gauss-Newton curvature", "nats/|x|²"),
    "sample_smoothness": ("smoothness of samples", "nats/|x|²"),
    "path_curvature": ("top curvature after a probe", "nats/|x|²"),
    "critical_sharpness": ("critical sharpness", "nats/|x|²"),
    "noise_curvature": ("curvature along the noise", "nats/|x|²"),
    "drift_curvature": ("curvature along the gradient", "nats/|x|²"),
    "noise_scale": ("noise scale σ²/‖∇F‖²", "samples"),
    "initial_gap": ("gap of x₀ to the best", "nats"),
    "progress_rate": ("progress rate", "1/progress"),
}
COLUMNS = 3
MAX_GAP = 0.2


def constants_with_intervals(constants: Constants, fields: Sequence[str] | None = None) -> Drawn:
    """A panel for each constant, a mark with its interval for each task; open marks are not identified.

    Args:
        constants: what was measured.
        fields: names of constants to show; all that were measured by default.
    """
    measured = {name: task.measured() for name, task in constants.tasks.items()}
    names = [f for f in (fields or LABELS) if any(f in values for values in measured.values())]
    if not names:
        raise ValueError(f"fields={list(fields or ())} hold nothing that was measured; choose from {list(LABELS)}")
    rows = -(-len(names) // COLUMNS)
    titles = [LABELS[name][0] for name in names]
    figure = make_subplots(
        rows=rows,
        cols=COLUMNS,
        subplot_titles=titles,
        vertical_spacing=min(MAX_GAP, 0.35 / rows),
        horizontal_spacing=0.13,
    )
    for index, name in enumerate(names):
        cells = {task: values[name] for task, values in measured.items() if name in values}
        _add_panel(figure, cells, list(measured), row=index // COLUMNS + 1, column=index % COLUMNS + 1)
    styled(figure, title="Measured constants, 90 % intervals", x="", y="", height=90 + 210 * rows, showlegend=False)
    figure.update_layout(margin={"t": 80})
    figure.update_annotations(font_size=12)
    figure.update_xaxes(type="category")
    for index, name in enumerate(names):
        figure.update_yaxes(title_text=LABELS[name][1], row=index // COLUMNS + 1, col=index % COLUMNS + 1)
    return Drawn(figure, _alt(names, measured))


def _add_panel(figure: go.Figure, cells: dict[str, Estimate], tasks: list[str], *, row: int, column: int) -> None:
    for task, cell in cells.items():
        style = look(tasks.index(task))
        figure.add_scatter(
            x=[plain(task)],
            y=finite([cell.value]),
            mode="markers",
            error_y=error_bars([cell.value], [cell.low], [cell.high], style.color, thickness=2),
            marker={
                "color": style.color,
                "symbol": style.marker + ("" if cell.identifiable else "-open"),
                "size": 9,
                "line": {"width": 2},
            },
            hovertext=plain(f"{task}: {cell.describe()} {cell.note}"),
            hoverinfo="text",
            row=row,
            col=column,
        )
    ends = [end for cell in cells.values() for end in (cell.low, cell.high) if math.isfinite(end)]
    if ends and min(ends) > 0 and max(ends) > 20 * min(ends):
        figure.update_yaxes(type="log", row=row, col=column)
    else:
        figure.update_yaxes(rangemode="tozero", row=row, col=column)


def _alt(names: list[str], measured: dict[str, dict[str, Estimate]]) -> str:
    parts = []
    for name in names:
        cells = ", ".join(f"{task} {values[name].describe()}" for task, values in measured.items() if name in values)
        parts.append(f"{LABELS[name][0]} in {LABELS[name][1]}: {cells}")
    return "Constants with 90 % intervals. " + "; ".join(parts) + "."
