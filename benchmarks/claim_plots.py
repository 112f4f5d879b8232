"""Draw what a claim shows: its panels side by side in one small PNG."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.claim_curves import Line, Panel
from estimators.files import write_bytes_atomic

COLOURS = {"resnet": "#0072b2", "vit": "#d55e00"}
METHOD_COLOURS = ("#0072b2", "#009e73", "#cc79a7")
FREE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#666666")
DPI = 72
NARROW = 8.0  # a logarithmic axis over less than this factor is drawn linear
MOST_TICKS = 10
OFF_GRID = ("predicted", "points", "crosses")  # lines whose abscissae are no settings


def draw(path: Path, panels: Sequence[Panel]) -> None:
    """Draw panels into a PNG; the same panels give the same bytes."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(panels), figsize=(4.9 * len(panels), 3.9), layout="constrained", squeeze=False)
    for place, panel in zip(axes[0], panels, strict=True):
        _draw_panel(place, panel)
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, buffer.getvalue())


def _draw_panel(axes: Any, panel: Panel) -> None:
    one_network = len({line.network for line in panel.lines}) < 2
    for number, line in enumerate(panel.lines):
        colour = COLOURS.get(line.network, "#666666")
        if line.style.startswith("method-"):
            colour = METHOD_COLOURS[int(line.style.removeprefix("method-"))]
        elif one_network and panel.x_scale == "log":
            colour = FREE[_position(panel.lines, number) % len(FREE)]
        _draw_line(axes, line, colour, band_from=0.0 if panel.y_scale == "log" else -np.inf)
    for number, (label, value) in enumerate(panel.marks.items()):
        colour = COLOURS.get(label.split(",", 1)[0], "black")
        axes.axvline(value, color=colour, linewidth=0.9, linestyle=(0, (1, 1 + number)), label=label)
    axes.set(title=panel.title, xlabel=panel.x_label, ylabel=panel.y_label)
    drawn = np.array([value for line in panel.lines for value in line.y if np.isfinite(value)])
    narrow = drawn.size > 0 and (drawn.min() <= 0 or drawn.max() < NARROW * drawn.min())
    axes.set(xscale=panel.x_scale, yscale="linear" if narrow else panel.y_scale)
    if panel.ticks:
        axes.set_xticks(range(len(panel.ticks)), panel.ticks)
        if len(panel.ticks[0]) > 2:
            axes.tick_params(axis="x", labelrotation=25, labelsize=8)
            for label in axes.get_xticklabels():
                label.set_horizontalalignment("right")
        axes.axhline(panel.zero, color="black", linewidth=0.5)
    elif panel.x_scale == "log":
        measured = sorted({value for line in panel.lines if line.style not in OFF_GRID for value in line.x})
        if 0 < len(measured) <= MOST_TICKS:
            axes.set_xticks(measured, [f"{value:.3g}" for value in measured])
            axes.minorticks_off()
    if any(line.label for line in panel.lines):
        axes.legend(fontsize=7)


def _position(lines: Sequence[Line], number: int) -> int:
    """Colour of a line where one network is drawn: a prediction takes that of the line it predicts."""
    own = lines[number].label.removesuffix(", predicted")
    return next(i for i, line in enumerate(lines) if line.label.removesuffix(", predicted") == own)


def _draw_line(axes: Any, line: Line, colour: str, *, band_from: float) -> None:
    label = line.label or None
    if line.style in ("points", "crosses"):
        marker = "x" if line.style == "crosses" else "o"
        axes.plot(line.x, line.y, marker, markersize=4, color=colour, alpha=0.75, label=label)
        return
    look = {"predicted": "--", "other": ":"}.get(line.style, "-")
    axes.plot(line.x, line.y, look, marker="o" if look == "-" else "", markersize=3, color=colour, label=label)
    if line.low:
        low = np.maximum(line.low, 0.02 * np.asarray(line.y)) if band_from == 0 else np.asarray(line.low)
        axes.fill_between(line.x, low, line.high, color=colour, alpha=0.15, linewidth=0)
