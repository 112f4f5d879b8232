r"""The one look of all figures: colours, markers, dashes, axes with units, and text that is never read as HTML.

Palette: Okabe and Ito, *Color Universal Design* (2008), less black and yellow, which vanish on a dark or light page.
"""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import plotly.graph_objects as go

BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#808080",
)
PALETTE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY, GREY)
# The lengths of the four cycles have no common factor with the palette's, so combinations repeat late.
MARKERS = ("circle", "square", "diamond", "cross", "triangle-up", "star", "x", "triangle-down", "pentagon", "hexagram")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PATTERNS = ("", "/", "\\", "x", "-", "|", "+", ".")

# One meaning, one look, in every figure.
PREDICTED, MEASURED, INITIAL, EDGE = BLUE, VERMILLION, GREY, PURPLE
DIVERGING = [[0.0, "#B35806"], [0.25, "#F1A340"], [0.5, "#F7F7F7"], [0.75, "#998EC3"], [1.0, "#542788"]]
SEQUENTIAL = "Viridis"

LEGEND_ROW, LEGEND_WIDTH = 22, 80  # pixels; letters that fit beside each other
GRID = "rgba(128,128,128,0.25)"
RISK = "risk: cross-entropy (nats)"
UNITS = {
    "learning_rate": "peak learning rate (|x|² / nat)",
    "batch_size": "batch size (samples)",
    "steps": "fine-tuning steps",
    "coefficient": "merging coefficient λ (mean over tasks)",
    "cost": "training cost (per-sample gradients)",
}


class Drawn(NamedTuple):
    """A figure and what it shows, in words for those who cannot see it."""

    figure: go.Figure
    alt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """How one series looks."""

    color: str
    marker: str
    dash: str
    pattern: str


def look(index: int) -> Look:
    """The look of series ``index``; neighbours differ in colour, marker, dash and pattern.

    >>> look(0).color != look(1).color and look(0).marker != look(1).marker
    True
    """
    return Look(
        color=PALETTE[index % len(PALETTE)],
        marker=MARKERS[index % len(MARKERS)],
        dash=DASHES[index % len(DASHES)],
        pattern=PATTERNS[index % len(PATTERNS)],
    )


def plain(text: object) -> str:
    """Text for a figure: plotly reads a little HTML, names are shown as they are.

    >>> plain("<b>digits</b>")
    '&lt;b&gt;digits&lt;/b&gt;'
    """
    return html.escape(str(text), quote=False)


def translucent(color: str, alpha: float = 0.2) -> str:
    """A ``#rrggbb`` colour, see-through.

    >>> translucent("#0072B2", 0.5)
    'rgba(0,114,178,0.5)'
    """
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red},{green},{blue},{alpha:g})"


def styled(figure: go.Figure, *, title: str, x: str, y: str, height: int = 380, **layout: Any) -> go.Figure:
    """Give a figure its title, labelled axes, the common look, and room for its legend below."""
    entries = [trace.name for trace in figure.data if trace.showlegend is not False and trace.name is not None]
    beside = max(1, min(3, LEGEND_WIDTH // (6 + max(map(len, entries), default=0))))
    legend_height = LEGEND_ROW * -(-len(entries) // beside)
    axis = {"gridcolor": GRID, "zerolinecolor": GRID, "automargin": True, "exponentformat": "power", "minexponent": 4}
    look: dict[str, Any] = {
        "template": "none",
        "title": {"text": title, "font": {"size": 15}, "x": 0, "xref": "paper", "xanchor": "left"},
        "font": {"family": "system-ui, sans-serif", "size": 12},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": height + legend_height,
        "margin": {"l": 70, "r": 20, "t": 50, "b": 60 + legend_height},
        "legend": {"orientation": "h", "yref": "container", "yanchor": "bottom", "y": 0, "x": 0},
        "hoverlabel": {"namelength": -1},
    }
    now = figure.layout.to_plotly_json()
    for name in {"xaxis", "yaxis", *(key for key in now if key.startswith(("xaxis", "yaxis")))}:
        text = {"text": x} if name.startswith("x") else {"text": y, "standoff": 12}
        look[name] = {**axis, "title": text}
    # set at once: plotly checks every update of a part anew, which takes most of the time of drawing
    figure.layout = _merged(_merged(now, look), layout)
    return figure


def level_line(y: float, color: str, text: str, *, is_log: bool = False) -> dict[str, Any]:
    """Layout of a dashed line at height ``y`` across the figure, named at its right end.

    ``Figure.add_hline`` draws the same, but checks every part of the figure again, which takes longer than all else.
    """
    line = {
        "type": "line",
        "xref": "paper",
        "x0": 0,
        "x1": 1,
        "y0": y,
        "y1": y,
        "line": {"color": color, "dash": "dash"},
    }
    name = {
        "xref": "paper",
        "x": 1,
        "y": math.log10(y) if is_log else y,  # annotations on a log axis are placed at the exponent
        "text": text,
        "showarrow": False,
        "xanchor": "right",
        "yanchor": "bottom",
    }
    return {"shapes": [line], "annotations": [name]}


def _merged(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """``old`` with everything that ``new`` says, part by part."""
    both = {k: _merged(old[k], v) for k, v in new.items() if isinstance(v, Mapping) and isinstance(old.get(k), Mapping)}
    return {**old, **new, **both}


def error_bars(
    values: Sequence[float], lows: Sequence[float], highs: Sequence[float], color: str, **options: Any
) -> dict[str, Any]:
    """Plotly's description of intervals [low, high] around values; an infinite end leaves no bar to its side."""
    return {
        "type": "data",
        "symmetric": False,
        "array": finite([high - value for value, high in zip(values, highs, strict=True)]),
        "arrayminus": finite([value - low for value, low in zip(values, lows, strict=True)]),
        "color": color,
        **options,
    }


def bar_marker(colors: Sequence[str] | str, patterns: Sequence[str] | str) -> dict[str, Any]:
    """Filled bars with a white pattern over the colour."""
    pattern = {"shape": patterns, "fillmode": "overlay", "fgcolor": "#ffffff", "size": 7, "solidity": 0.25}
    return {"color": colors, "pattern": pattern}


def finite(values: Sequence[float]) -> list[float | None]:
    """Values for a trace; what is not finite leaves a gap."""
    return [float(value) if math.isfinite(value) else None for value in values]
