"""Predicted beside measured, and all measured models beside each other."""

from __future__ import annotations

import math
from typing import Literal

import plotly.graph_objects as go

from advisor.advice import Measured, Predicted, Validation
from advisor.figures.style import (
    GREEN,
    GREY,
    INITIAL,
    MEASURED,
    ORANGE,
    PREDICTED,
    PURPLE,
    RISK,
    Drawn,
    bar_marker,
    error_bars,
    finite,
    plain,
    styled,
)
from advisor.wording import measured_text

KIND_LOOKS = {
    "advised": (MEASURED, "/"),
    "pretrained": (GREY, ""),
    "expert": (GREEN, "."),
    "joint": (PURPLE, "x"),
    "baseline": (ORANGE, "\\"),
}


def predicted_and_measured(validation: Validation) -> Drawn:
    """Predicted risk with its 90 % interval and measured test risk, for the goal and each task, with x0's."""
    advised = validation.models[0]
    initial = next((model for model in validation.models if model.kind == "pretrained"), None)
    predicted: dict[str, Predicted] = {"goal": validation.predicted_goal, **validation.predicted}
    cells = list(predicted.values())
    labels = [plain(name) for name in predicted]
    values = [cell.value for cell in cells]
    bars = error_bars(values, [c.low for c in cells], [c.high for c in cells], PREDICTED, thickness=2, width=8)
    figure = go.Figure()
    figure.add_scatter(
        x=labels,
        y=values,
        mode="markers",
        name="predicted, 90 % interval",
        error_y=bars,
        marker={"color": PREDICTED, "symbol": "diamond-open", "size": 12, "line": {"width": 2}},
    )
    figure.add_scatter(
        x=labels,
        y=finite(_risks(advised, list(predicted))),
        mode="markers",
        name="measured on test data",
        marker={"color": MEASURED, "symbol": "circle", "size": 10},
    )
    if initial is not None:
        figure.add_scatter(
            x=labels,
            y=finite(_risks(initial, list(predicted))),
            mode="markers",
            name="pretrained model x₀",
            marker={"color": INITIAL, "symbol": "line-ew-open", "size": 22, "line": {"width": 3}},
        )
    styled(figure, title="Predicted against measured", x="goal and tasks", y=RISK)
    figure.update_xaxes(type="category")
    figure.update_yaxes(rangemode="tozero")
    return Drawn(figure, _alt(predicted, advised))


def compared_models(validation: Validation, measure: Literal["risk", "accuracy"] = "risk") -> Drawn:
    """Goal risk (or mean accuracy) of every measured model that covers all tasks, best first."""
    if measure not in ("risk", "accuracy"):
        raise ValueError(f"measure={measure!r} must be risk or accuracy; choose one")
    models = [model for model in validation.models if model.kind != "expert" and model.goal is not None]
    is_risk = measure == "risk"
    # plotly draws the first bar at the bottom
    models = sorted(models, key=lambda model: _measure(model, is_risk), reverse=is_risk)
    figure = go.Figure()
    for model in models:
        color, pattern = KIND_LOOKS[model.kind]
        value = _measure(model, is_risk)
        figure.add_bar(
            x=finite([value]),
            y=[plain(model.name)],
            orientation="h",
            text=["diverged" if model.diverged else measured_text(value)],
            textposition="outside",
            cliponaxis=False,
            marker=bar_marker(color, pattern),
            hovertext=plain(model.note),
            showlegend=False,
        )
    label = "goal " + RISK if is_risk else "mean accuracy over tasks (share correct)"
    title = "Goal risk of every model on test data" if is_risk else "Mean accuracy of every model on test data"
    styled(figure, title=title, x=label, y="", height=120 + 34 * len(models))
    longest = max(
        (_measure(model, is_risk) for model in models if math.isfinite(_measure(model, is_risk))), default=1.0
    )
    figure.update_xaxes(range=[0, 1.15 * longest])  # room for the numbers behind the bars
    figure.update_yaxes(title_text="model", type="category")
    ranked = ", ".join(f"{model.name} {measured_text(_measure(model, is_risk))}" for model in reversed(models))
    return Drawn(figure, f"Bars: {title.lower()}, best first: {ranked}.")


def _measure(model: Measured, is_risk: bool) -> float:
    assert model.goal is not None
    return model.goal if is_risk else model.mean_accuracy


def _risks(model: Measured, names: list[str]) -> list[float]:
    goal = float("nan") if model.goal is None else model.goal
    return [goal if name == "goal" else model.risks.get(name, float("nan")) for name in names]


def _alt(predicted: dict[str, Predicted], advised: Measured) -> str:
    measured = dict(zip(predicted, _risks(advised, list(predicted)), strict=True))
    held = [name for name, cell in predicted.items() if cell.holds(measured[name])]
    goal, found = predicted["goal"], measured_text(measured["goal"])
    return (
        f"Predicted against measured risk of the advised merge. Goal: predicted {goal.value:.3f} "
        f"[{goal.low:.3f}, {goal.high:.3f}], measured {found}. The interval holds the measured value for "
        f"{len(held)} of {len(predicted)}" + (f": {', '.join(held)}." if held else ".")
    )
