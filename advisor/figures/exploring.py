"""Figures of what people try out: risk against cost around a setting, settings side by side, honesty of intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import plotly.graph_objects as go

from advisor.advice import Alternative, Predicted
from advisor.calibration import Calibration
from advisor.figures.style import (
    GREY,
    INITIAL,
    MEASURED,
    PREDICTED,
    RISK,
    UNITS,
    Drawn,
    error_bars,
    level_line,
    look,
    plain,
    styled,
)
from advisor.wording import count_text


def front_around(
    front: Sequence[Alternative], here: tuple[float, Predicted], *, initial_goal: float, name: str = "this setting"
) -> Drawn:
    """Predicted goal risk against training cost: the front, and where a setting lies.

    Args:
        front: the best plan for each cost, cheapest first.
        here: cost and predicted goal of the setting.
        initial_goal: goal risk of x0.
        name: what to call the setting.
    """
    goals = [plan.goal for plan in front]
    values = [goal.value for goal in goals]
    cost, goal = here
    best = {
        "type": "scatter",
        "x": [plan.cost for plan in front],
        "y": values,
        "mode": "lines+markers",
        "name": "Pareto front",
        "line": {"color": PREDICTED, "dash": "dot"},
        "marker": {"color": PREDICTED, "symbol": "circle", "size": 8},
        "error_y": error_bars(values, [g.low for g in goals], [g.high for g in goals], PREDICTED, thickness=1),
        "hovertext": [plain(plan.label) for plan in front],
    }
    now = {
        "type": "scatter",
        "x": [cost],
        "y": [goal.value],
        "mode": "markers",
        "name": plain(name),
        "error_y": error_bars([goal.value], [goal.low], [goal.high], MEASURED),
        "marker": {"color": MEASURED, "symbol": "star", "size": 16},
    }
    figure = styled(
        go.Figure([best, now]),
        title="Risk against training cost",
        x=UNITS["cost"],
        y="predicted goal " + RISK,
        xaxis={"type": "log"},
        **level_line(initial_goal, INITIAL, "x₀, nothing trained"),
    )
    ends = ""
    if front:
        first, last = front[0], front[-1]
        ends = (
            f" The front goes from {first.goal.value:.3f} at {count_text(first.cost)} to {last.goal.value:.3f} at "
            f"{count_text(last.cost)}."
        )
    text = f"Predicted goal risk against training cost: {name} {goal.value:.3f} at {count_text(cost)}.{ends}"
    return Drawn(figure, text)


def side_by_side(settings: Mapping[str, tuple[Predicted, Mapping[str, Predicted]]], initial_goal: float) -> Drawn:
    """Predicted goal and task risks of named settings beside each other, with intervals."""
    if not settings:
        raise ValueError("settings={} must hold at least one; pin a setting first")
    figure = go.Figure()
    for index, (name, (goal, tasks)) in enumerate(settings.items()):
        style = look(index)
        cells = {"goal": goal, **tasks}
        values = [cell.value for cell in cells.values()]
        lows, highs = [c.low for c in cells.values()], [c.high for c in cells.values()]
        figure.add_scatter(
            x=[plain(label) for label in cells],
            y=values,
            mode="markers",
            name=plain(name),
            offsetgroup=str(index),
            marker={"color": style.color, "symbol": style.marker, "size": 11},
            error_y=error_bars(values, lows, highs, style.color, thickness=2),
        )
    styled(
        figure,
        title="Settings side by side",
        x="goal and tasks",
        y="predicted " + RISK,
        scattermode="group",
        xaxis={"type": "category"},
        **level_line(initial_goal, GREY, "goal of x₀"),
    )
    listed = "; ".join(f"{name}: goal {g.value:.3f} [{g.low:.3f}, {g.high:.3f}]" for name, (g, _) in settings.items())
    return Drawn(figure, f"Predicted risks with 90 % intervals of {len(settings)} settings. {listed}.")


def coverage_curve(calibration: Calibration) -> Drawn:
    """Share of measured merges inside the predictive interval of each nominal level."""
    count = len(calibration.measured)
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="perfectly calibrated", line={"color": GREY, "dash": "dash"}
    )
    figure.add_scatter(
        x=calibration.levels,
        y=calibration.coverage,
        mode="lines+markers",
        name=f"{count} measured merges",
        line={"color": PREDICTED},
        marker={"symbol": "circle", "size": 8},
    )
    styled(
        figure,
        title="Merges inside their interval",
        x="nominal level of the interval (share)",
        y="merges inside it (share)",
    )
    figure.update_xaxes(range=[0, 1])
    figure.update_yaxes(range=[0, 1.02])
    return Drawn(
        figure,
        f"Coverage of predictive intervals over {count} measured merges: {calibration.at_90:.0%} lie inside their 90 % "
        "interval. Above the dashed line intervals are wider than needed, below it too narrow.",
    )


def predicted_measured_scatter(calibration: Calibration) -> Drawn:
    """Measured against predicted goal risk of every measured merge."""
    top = max(*calibration.predicted, *calibration.measured)
    low = min(*calibration.predicted, *calibration.measured)
    figure = go.Figure()
    figure.add_scatter(
        x=[low, top], y=[low, top], mode="lines", name="predicted = measured", line={"color": GREY, "dash": "dash"}
    )
    figure.add_scatter(
        x=calibration.predicted,
        y=calibration.measured,
        mode="markers",
        name="measured merges of probes",
        marker={"color": MEASURED, "symbol": "circle-open", "size": 8},
    )
    styled(figure, title="Every measured merge", x="predicted goal risk (nats)", y="measured goal risk (nats)")
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return Drawn(
        figure,
        f"Measured against predicted goal risk of {len(calibration.measured)} merges, {low:.3f} to {top:.3f} nats.",
    )
