"""The judge's curves as PNG: regret against cost, and predicted against measured test risk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.judge_regret import Curve, at_costs
from benchmarks.suite_format import FloatArray

STYLES = {
    "advisor": ("#0072b2", "-", 2.4),
    "random": ("#999999", "--", 1.4),
    "tpe": ("#d55e00", "-", 1.4),
    "gp": ("#009e73", "-.", 1.4),
    "hyperband": ("#cc79a7", ":", 1.8),
}
GRID = np.geomspace(0.02, 20, 120)


def plot_regret(
    out: Path, title: str, curves: Mapping[str, Sequence[Curve]], defaults: Mapping[str, Sequence[tuple[float, float]]]
) -> None:
    """Mean regret against cost in full fine-tunes, one line a method, one cross a default recipe."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, (colour, line, width) in STYLES.items():
        if name in curves:
            mean = np.mean([np.clip(at_costs(curve, GRID), 0, 3) for curve in curves[name]], axis=0)
            axes.plot(GRID, mean, color=colour, linestyle=line, linewidth=width, label=name)
    for marker, (name, points) in zip("xv^sP", defaults.items(), strict=False):
        cost, regret = np.mean(np.clip(points, 0, 3), axis=0)
        axes.plot([cost], [regret], marker=marker, linestyle="none", color="black", label=name)
    axes.axhline(0.05, color="black", linewidth=0.6)
    axes.set(
        xscale="log",
        xlabel="cost, full fine-tunes of all tasks (everything counted)",
        ylabel="regret (0: best of the grid, 1: x\u2080)",
        title=title,
        ylim=(-0.05, 3.05),
    )
    axes.legend(fontsize=8, loc="upper right")
    figure.savefig(out, dpi=110)
    plt.close(figure)


def plot_predictions(
    out: Path, title: str, predicted: FloatArray, measured: FloatArray, initial: FloatArray, best: FloatArray
) -> None:
    """Predicted against measured test goal of unseen merges, both relative to x_0 of their seed.

    Args:
        out: file.
        title: title.
        predicted: [M] relative to x_0.
        measured: [M] relative to x_0.
        initial: [S] risk of x_0 of each seed, for the note.
        best: [S] best of the grid of each seed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(4.8, 4.6), layout="constrained")
    known = np.isfinite(predicted) & np.isfinite(measured)
    axes.loglog(measured[known], predicted[known], ".", markersize=3, color="#0072b2", alpha=0.6)
    if known.any():  # else the model could say nothing, and the empty figure says so
        ends = [float(np.mean(best / initial)) * 0.97, float(np.quantile(measured[known], 0.98))]
        axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.axvline(1.0, color="black", linewidth=0.5, linestyle=":")
    axes.set(xlabel="measured test risk / risk of x\u2080", ylabel="predicted / risk of x\u2080", title=title)
    figure.savefig(out, dpi=110)
    plt.close(figure)
