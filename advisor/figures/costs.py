"""What advice costs: predicted risk against training cost, and the units spent on each purpose."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from advisor.advice import Alternative, Recommendation
from advisor.figures.style import (
    BLUE,
    GREEN,
    INITIAL,
    MEASURED,
    PREDICTED,
    RISK,
    UNITS,
    Drawn,
    error_bars,
    plain,
    styled,
)
from advisor.wording import count_text


def risk_against_cost(recommendation: Recommendation) -> Drawn:
    """Predicted goal risk against the cost of training: the front, the alternatives and the advised plan."""
    figure = go.Figure()
    front = sorted(recommendation.pareto, key=lambda plan: plan.cost)
    if front:
        _add(figure, front, "Pareto front", PREDICTED, "circle", mode="lines+markers")
    if recommendation.alternatives:
        _add(figure, recommendation.alternatives, "alternatives", GREEN, "square", mode="markers")
    goal = recommendation.goal
    figure.add_scatter(
        x=[recommendation.training_cost],
        y=[goal.value],
        mode="markers",
        name="advised",
        error_y=error_bars([goal.value], [goal.low], [goal.high], MEASURED),
        marker={"color": MEASURED, "symbol": "star", "size": 16},
    )
    figure.add_hline(
        y=recommendation.initial_goal, line={"color": INITIAL, "dash": "dash"}, annotation_text="x₀, nothing trained"
    )
    styled(figure, title="Risk against training cost", x=UNITS["cost"], y="predicted goal " + RISK)
    figure.update_xaxes(type="log")
    return Drawn(figure, _alt(recommendation, front))


def cost_by_purpose(costs: Mapping[str, float], full_fine_tune: float) -> Drawn:
    """Units spent on each purpose; one full fine-tune of all tasks for comparison."""
    names = list(costs)[::-1]
    figure = go.Figure(
        go.Bar(
            x=[costs[name] for name in names],
            y=[plain(name) for name in names],
            orientation="h",
            marker={"color": BLUE},
            text=[count_text(costs[name]) for name in names],
            showlegend=False,
        )
    )
    figure.add_vline(
        x=full_fine_tune, line={"color": INITIAL, "dash": "dash"}, annotation_text="one full fine-tune of all tasks"
    )
    styled(figure, title="What it cost", x="cost (per-sample gradients)", y="purpose", height=150 + 30 * len(names))
    figure.update_yaxes(type="category")
    total = sum(costs.values())
    parts = ", ".join(f"{name} {count_text(units)}" for name, units in costs.items())
    return Drawn(
        figure,
        f"Bars: units spent on each purpose: {parts}; {count_text(total)} in all, {total / full_fine_tune:.2g} full "
        "fine-tunes of all tasks.",
    )


def _add(
    figure: go.Figure,
    plans: tuple[Alternative, ...] | list[Alternative],
    name: str,
    color: str,
    symbol: str,
    *,
    mode: str,
) -> None:
    goals = [plan.goal for plan in plans]
    values = [goal.value for goal in goals]
    figure.add_scatter(
        x=[plan.cost for plan in plans],
        y=values,
        mode=mode,
        name=name,
        line={"color": color, "dash": "dot"},
        error_y=error_bars(values, [g.low for g in goals], [g.high for g in goals], color, thickness=1),
        marker={"color": color, "symbol": symbol, "size": 9},
        hovertext=[plain(f"{plan.label}: {_recipe_text(plan)}") for plan in plans],
    )


def _recipe_text(plan: Alternative) -> str:
    texts = dict.fromkeys(recipe.describe() for recipe in plan.plan.recipes.values())
    return "; ".join(texts)


def _alt(recommendation: Recommendation, front: list[Alternative]) -> str:
    text = (
        f"Predicted goal risk against training cost. Advised: {recommendation.goal.value:.3f} at "
        f"{count_text(recommendation.training_cost)} per-sample gradients; the pretrained model has "
        f"{recommendation.initial_goal:.3f} at no cost."
    )
    if front:
        text += (
            f" The front goes from {front[0].goal.value:.3f} at {count_text(front[0].cost)} to "
            f"{front[-1].goal.value:.3f} at {count_text(front[-1].cost)}."
        )
    return text
