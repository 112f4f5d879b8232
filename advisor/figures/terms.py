"""The share of each term in the predicted risk of each task."""

from __future__ import annotations

from collections.abc import Mapping

import plotly.graph_objects as go

from advisor.figures.style import RISK, Drawn, bar_marker, look, plain, styled


def term_shares(terms: Mapping[str, Mapping[str, float]]) -> Drawn:
    """Stacked parts of each task's predicted risk; parts that lower it hang below zero, a marker shows the sum.

    Args:
        terms: task -> term -> nats; the parts of a task sum to its prediction.
    """
    if not terms:
        raise ValueError("terms={} must hold at least one task; recommend first")
    names = list(dict.fromkeys(term for parts in terms.values() for term in parts))
    labels = [plain(task) for task in terms]
    bars = [
        {
            "type": "bar",
            "x": labels,
            "y": [parts.get(name, 0.0) for parts in terms.values()],
            "name": plain(name.replace("_", " ")),
            "marker": bar_marker(look(index).color, look(index).pattern),
            "hovertemplate": "%{x}: %{y:+.4f} nats",
        }
        for index, name in enumerate(names)
    ]
    sums = {
        "type": "scatter",
        "x": labels,
        "y": [sum(parts.values()) for parts in terms.values()],
        "mode": "markers",
        "name": "predicted risk (sum)",
        "marker": {"color": "#ffffff", "symbol": "diamond", "size": 11, "line": {"color": "#222222", "width": 2}},
    }
    title, axis = "Parts of the predicted risk", {"type": "category"}
    figure = styled(go.Figure([*bars, sums]), title=title, x="task", y=RISK, barmode="relative", xaxis=axis)
    return Drawn(figure, "Stacked bars of signed parts: " + "; ".join(_task_text(t, p) for t, p in terms.items()) + ".")


def _task_text(task: str, parts: Mapping[str, float]) -> str:
    listed = ", ".join(f"{name.replace('_', ' ')} {value:+.3f}" for name, value in parts.items())
    return f"{task} {sum(parts.values()):.3f} = {listed}"
