"""Predicted goal risk over two knobs, with measured runs laid over it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from advisor.curves import Surface
from advisor.figures.style import MEASURED, SEQUENTIAL, UNITS, Drawn, styled

LEVELS = 14


def risk_contour(
    surface: Surface,
    *,
    measured: Sequence[tuple[float, float, float]] = (),
    initial_goal: float | None = None,
) -> Drawn:
    """Contours of predicted goal risk, the plan, and measured runs coloured on the same scale.

    Args:
        surface: from ``advisor.curves.draw_surface``.
        measured: (x, y, goal risk) of runs that were measured.
        initial_goal: goal risk of x0; colours end there, so that the useful region shows.
    """
    risks = np.array(surface.goal, dtype=np.float64)
    low = float(np.nanmin(risks))
    high = float(np.nanmax(risks))
    top = min(high, 1.25 * initial_goal) if initial_goal is not None else high
    top = top if top > low else high if high > low else low + 1e-6
    ground = {
        "type": "contour",
        "x": surface.x,
        "y": surface.y,
        "z": np.minimum(risks, top).tolist(),
        "colorscale": SEQUENTIAL,
        "reversescale": True,
        "contours": {"start": low, "end": top, "size": (top - low) / LEVELS, "showlabels": True},
        "line": {"width": 0.5},
        "colorbar": {"title": {"text": "predicted goal risk (nats)", "side": "right"}},
        "customdata": risks.tolist(),
        "hovertemplate": "%{x:.3g}, %{y:.3g}: %{customdata:.3f}<extra></extra>",
    }
    seen = {
        "type": "scatter",
        "x": [point[0] for point in measured],
        "y": [point[1] for point in measured],
        "mode": "markers",
        "name": "measured runs",
        "text": [f"measured {point[2]:.3f}" for point in measured],
        "marker": {
            "color": [min(point[2], top) for point in measured],
            "colorscale": SEQUENTIAL,
            "reversescale": True,
            "cmin": low,
            "cmax": top,
            "symbol": "circle",
            "size": 11,
            "line": {"color": "#ffffff", "width": 2},
        },
    }
    plan = {
        "type": "scatter",
        "x": [surface.at[0]],
        "y": [surface.at[1]],
        "mode": "markers",
        "name": "this plan",
        "marker": {"color": MEASURED, "symbol": "star", "size": 17, "line": {"color": "#ffffff", "width": 2}},
    }
    axes = {
        axis: {"type": "log"}
        for axis, knob in (("xaxis", surface.x_knob), ("yaxis", surface.y_knob))
        if knob != "coefficient"
    }
    figure = styled(
        go.Figure([ground, *([seen] if measured else []), plan]),
        title="Predicted risk over two knobs",
        x=UNITS[surface.x_knob],
        y=UNITS[surface.y_knob],
        height=460,
        **axes,
    )
    row, column = np.unravel_index(int(np.nanargmin(risks)), risks.shape)
    return Drawn(
        figure,
        f"Contours of predicted goal risk over {surface.x_knob.replace('_', ' ')} and "
        f"{surface.y_knob.replace('_', ' ')}: from {low:.3f} (at {surface.x[column]:.3g}, {surface.y[row]:.3g}) to "
        f"{high:.3f}; this plan lies at {surface.at[0]:.3g}, {surface.at[1]:.3g}; {len(measured)} measured runs.",
    )
