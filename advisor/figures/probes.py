"""What probes left behind: loss and displacement step by step, and the risks of their merges."""

from __future__ import annotations

import math
from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from advisor.figures.style import (
    DASHES,
    GREY,
    INITIAL,
    MEASURED,
    PALETTE,
    RISK,
    Drawn,
    finite,
    level_line,
    look,
    plain,
    styled,
)
from advisor.observations import DisplacementTrace, MergeObservation

WIDE = 50.0  # factor between values from which an axis is logarithmic
MAX_POINTS = 120  # of a trace; more cannot be seen and make pages slow


def probe_traces(
    traces: Sequence[DisplacementTrace],
    diverged: Sequence[bool] | None = None,
    *,
    title: str = "Probes, step by step",
    longest: int | None = None,
) -> Drawn:
    """Training loss and distance from x0 at each step of each run; a colour a task, a dash a recipe.

    Args:
        traces: the runs.
        diverged: of each, whether it counts as diverged; by default, whether its last loss is not finite.
        title: of the figure.
        longest: steps that the axes leave room for; by default, as many as were done.
    """
    if not traces:
        raise ValueError("traces=[] must hold at least one run; probe first")
    lost = [_is_infinite(trace) for trace in traces] if diverged is None else list(diverged)
    tasks = list(dict.fromkeys(trace.task for trace in traces))
    recipes = list(dict.fromkeys(trace.recipe.describe() for trace in traces))
    figure = make_subplots(
        rows=1, cols=2, subplot_titles=("mini-batch loss", "distance from x₀"), horizontal_spacing=0.12
    )
    shown: set[str] = set()
    for trace, is_lost in zip(traces, lost, strict=True):
        keep = _thinned(len(trace.steps))
        steps = [int(trace.steps[k]) for k in keep]
        losses = [float(trace.losses[k]) for k in keep]
        moved = [math.sqrt(float(trace.squared_displacements[k])) for k in keep]
        index = tasks.index(trace.task)
        line = {
            "color": PALETTE[index % len(PALETTE)],
            "dash": DASHES[recipes.index(trace.recipe.describe()) % len(DASHES)],
        }
        for column, values in ((1, losses), (2, moved)):
            figure.add_scatter(
                x=steps,
                y=finite(values),
                mode="lines+markers",
                marker={"symbol": look(index).marker, "size": 5, "maxdisplayed": 6},
                line={**line, "width": 1.4},
                name=plain(trace.task),
                legendgroup=trace.task,
                showlegend=column == 1 and trace.task not in shown,
                hovertext=plain(f"{trace.task}: {trace.recipe.describe()}"),
                row=1,
                col=column,
            )
        shown.add(trace.task)
        if is_lost:
            _mark_divergence(figure, steps, losses)
    _name_dashes(figure, recipes)
    styled(figure, title=plain(title), x="step", y="")
    figure.update_layout(margin={"t": 80})
    figure.update_yaxes(title_text="loss (nats)", row=1, col=1)
    if longest is not None:
        figure.update_xaxes(range=[0, 1.02 * longest])
    figure.update_yaxes(title_text="‖x − x₀‖ (weight units)", row=1, col=2)
    for column in (1, 2):
        figure.update_yaxes(**_axis_of(figure, column), row=1, col=column)
    return Drawn(
        figure,
        f"Lines of {len(traces)} probe runs on {len(tasks)} tasks ({', '.join(tasks)}) with {len(recipes)} recipes: "
        f"training loss and distance from the pretrained weights at each step; {sum(lost)} diverged.",
    )


def measured_merges(merges: Sequence[MergeObservation]) -> Drawn:
    """Mean measured risk of every probe merge against its mean coefficient; a look for each recipe."""
    finite_merges = [merge for merge in merges if not merge.diverged]
    if not finite_merges:
        raise ValueError(f"all {len(merges)} merges diverged or none was measured; probe with lower learning rates")
    recipes: dict[str, list[MergeObservation]] = {}
    for merge in finite_merges:
        text = "; ".join(dict.fromkeys(recipe.describe() for recipe in merge.plan.recipes.values()))
        recipes.setdefault(text, []).append(merge)
    figure = go.Figure()
    for index, (text, group) in enumerate(recipes.items()):
        style = look(index)
        points = sorted((_mean(m.plan.coefficients.values()), _mean(m.risks.values())) for m in group)
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers",
            name=plain(text),
            line={"color": style.color, "dash": style.dash, "width": 1.3},
            marker={"symbol": style.marker, "size": 8},
        )
    initial = _mean(finite_merges[0].initial_risks.values())
    styled(
        figure,
        title="Measured merges of probes",
        x="merging coefficient λ (mean over tasks)",
        y="mean " + RISK,
        yaxis={"type": "log", "nticks": 6},
        **level_line(initial, INITIAL, "x₀", is_log=True),
    )
    best = min(finite_merges, key=lambda merge: _mean(merge.risks.values()))
    return Drawn(
        figure,
        f"Mean risk of {len(finite_merges)} probe merges against the coefficient, {len(merges) - len(finite_merges)} "
        f"more diverged; lowest {_mean(best.risks.values()):.3f} at coefficient "
        f"{_mean(best.plan.coefficients.values()):.3g}; the pretrained model has {initial:.3f}.",
    )


def _thinned(count: int) -> list[int]:
    if count <= MAX_POINTS:
        return list(range(count))
    return sorted({round(k * (count - 1) / (MAX_POINTS - 1)) for k in range(MAX_POINTS)})


def _is_infinite(trace: DisplacementTrace) -> bool:
    return not (math.isfinite(float(trace.losses[-1])) and math.isfinite(float(trace.squared_displacements[-1])))


def _mark_divergence(figure: go.Figure, steps: list[int], losses: list[float]) -> None:
    """A cross at the last finite loss."""
    seen = [(step, loss) for step, loss in zip(steps, losses, strict=True) if math.isfinite(loss)]
    step, loss = seen[-1] if seen else (steps[0], 1.0)
    figure.add_scatter(
        x=[step],
        y=[loss],
        mode="markers+text",
        text=["diverged"],
        textposition="top center",
        marker={"symbol": "x", "size": 12, "color": MEASURED},
        showlegend=False,
        row=1,
        col=1,
    )


def _axis_of(figure: go.Figure, column: int) -> dict[str, object]:
    """Logarithmic where values differ much, so that one jump does not flatten all others."""
    values = [y for trace in figure.select_traces(col=column, row=1) for y in trace.y if y is not None and y > 0]
    wide = len(values) > 1 and max(values) > WIDE * min(values)
    return {"type": "log", "nticks": 6} if wide else {"rangemode": "tozero"}


def _name_dashes(figure: go.Figure, recipes: Sequence[str]) -> None:
    """What each dash stands for, where there is more than one."""
    for index, text in enumerate(recipes if len(recipes) > 1 else ()):
        line = {"color": GREY, "dash": DASHES[index % len(DASHES)], "width": 1.4}
        figure.add_scatter(x=[None], y=[None], mode="lines", name=plain(text), line=line, row=1, col=1)


def _mean(values: object) -> float:
    items = list(values)  # type: ignore[call-overload]
    return float(sum(items) / len(items))
