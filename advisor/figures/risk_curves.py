"""Predicted risk along one knob: learning rate with its stability edge, coefficient, steps or batch size."""

from __future__ import annotations

import math
from typing import Any

import plotly.graph_objects as go

from advisor.advice import Predicted
from advisor.curves import Curve, best_value
from advisor.figures.style import (
    EDGE,
    INITIAL,
    MEASURED,
    PREDICTED,
    RISK,
    UNITS,
    Drawn,
    look,
    plain,
    styled,
    translucent,
)

TITLES = {
    "learning_rate": "Risk against learning rate",
    "batch_size": "Risk against batch size",
    "steps": "Risk against steps",
    "coefficient": "Risk against the merging coefficient λ",
}
HEADROOM = 2.5  # the axis shows risks up to this multiple of x0's: beyond the edge predictions explode


def risk_curve(
    curve: Curve,
    *,
    initial_goal: float | None = None,
    edge: Predicted | None = None,
    turning_point: float | None = None,
    show_tasks: bool = True,
) -> Drawn:
    """Predicted goal risk with its interval band, each task's risk, the advised value, and limits where known.

    Args:
        curve: from ``advisor.curves.draw_curve``.
        initial_goal: goal risk of x0, drawn as a level.
        edge: stability edge with interval, for a learning-rate curve.
        turning_point: steps beyond which risk rises, for a steps curve.
        show_tasks: whether each task gets its own line.
    """
    figure = go.Figure()
    _add_band(figure, curve)
    for index, (name, risks) in enumerate(curve.tasks.items() if show_tasks else ()):
        style = look(index + 1)
        figure.add_scatter(
            x=curve.values,
            y=risks,
            mode="lines",
            name=plain(name),
            line={"color": style.color, "dash": DASHES_OF_TASKS[index % len(DASHES_OF_TASKS)], "width": 1.3},
        )
    _add_goal(figure, curve)
    marks = _Marks(curve)
    if initial_goal is not None:
        marks.level(initial_goal, "x₀")
    if edge is not None:
        marks.edge(edge)
    if turning_point is not None:
        marks.line(turning_point, "turning point", EDGE, "dot", 1.0)
    marks.line(curve.at, "advised", MEASURED, "solid", 0.9)
    styled(figure, title=TITLES[curve.knob], x=UNITS[curve.knob], y=RISK, shapes=marks.shapes, annotations=marks.notes)
    if curve.knob != "coefficient":
        figure.update_xaxes(type="log")
    figure.update_yaxes(range=[0, _top(curve, initial_goal)])
    return Drawn(figure, _alt(curve, initial_goal, edge))


DASHES_OF_TASKS = ("dash", "dot", "dashdot", "longdash", "longdashdot")


def _add_band(figure: go.Figure, curve: Curve) -> None:
    highs = [cell.high for cell in curve.goal]
    lows = [cell.low for cell in curve.goal]
    figure.add_scatter(
        x=[*curve.values, *reversed(curve.values)],
        y=[*highs, *reversed(lows)],
        fill="toself",
        fillcolor=translucent(PREDICTED),
        line={"width": 0},
        hoverinfo="skip",
        name="90 % interval of the goal",
    )


def _add_goal(figure: go.Figure, curve: Curve) -> None:
    figure.add_scatter(
        x=curve.values,
        y=[cell.value for cell in curve.goal],
        mode="lines",
        name="goal, predicted",
        line={"color": PREDICTED, "width": 3},
        customdata=[(cell.low, cell.high) for cell in curve.goal],
        hovertemplate="%{x:.3g}: %{y:.3f} [%{customdata[0]:.3f}, %{customdata[1]:.3f}]<extra></extra>",
    )


class _Marks:
    """Lines and labels of a curve, collected as plain values: adding them one by one is slow."""

    def __init__(self, curve: Curve) -> None:
        self.is_log = curve.knob != "coefficient"
        self.shapes: list[dict[str, Any]] = []
        self.notes: list[dict[str, Any]] = []

    def level(self, y: float, text: str) -> None:
        """A horizontal line."""
        line = {"color": INITIAL, "dash": "dash"}
        self.shapes.append({"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line})
        self.notes.append({"x": 1, "xref": "paper", "y": y, "text": text, "showarrow": False, "yshift": 9})

    def line(self, x: float, text: str, color: str, dash: str, height: float) -> None:
        """A vertical line with its label at a height of the plot."""
        line = {"color": color, "dash": dash, "width": 2}
        self.shapes.append({"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": x, "x1": x, "line": line})
        self.notes.append(
            {
                "x": math.log10(x) if self.is_log else x,  # annotations on a log axis are placed at the exponent
                "y": height,
                "yref": "paper",
                "text": f"{text} {x:.3g}",
                "showarrow": False,
                "xanchor": "left",
                "xshift": 5,
                "bgcolor": "rgba(255,255,255,0.7)",
                "font": {"color": "#222222"},
            }
        )

    def edge(self, edge: Predicted) -> None:
        """The stability edge with its interval."""
        band = {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "x0": edge.low, "x1": edge.high, "layer": "below"}
        self.shapes.append({**band, "fillcolor": translucent(EDGE, 0.18), "line": {"width": 0}})
        self.line(edge.value, "stability edge", EDGE, "dot", 1.0)


def _top(curve: Curve, initial_goal: float | None) -> float:
    lowest = min(cell.value for cell in curve.goal)
    ceiling = HEADROOM * (initial_goal if initial_goal is not None else lowest)
    highest = max(*(cell.high for cell in curve.goal), *(max(risks) for risks in curve.tasks.values()), 0.0)
    return 1.05 * min(max(ceiling, lowest), highest) if highest > 0 else 1.0


def _alt(curve: Curve, initial_goal: float | None, edge: Predicted | None) -> str:
    best = best_value(curve)
    lowest = min(cell.value for cell in curve.goal)
    ends = curve.goal[0].value, curve.goal[-1].value
    text = (
        f"{TITLES[curve.knob]}: predicted goal risk is {ends[0]:.3f} at {curve.values[0]:.3g}, "
        f"lowest ({lowest:.3f}) at {best:.3g} and {ends[1]:.3f} at {curve.values[-1]:.3g}; "
        f"the advised value is {curve.at:.3g}"
    )
    if edge is not None:
        text += f"; the stability edge lies at {edge.value:.3g} [{edge.low:.3g}, {edge.high:.3g}]"
    if initial_goal is not None:
        text += f"; the pretrained model has {initial_goal:.3f}"
    return text + "."
