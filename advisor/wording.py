"""Numbers and names as people read them: the same words on the command line, in the report and on pages."""

from __future__ import annotations

import math

from advisor.advice import Answer, Predicted, Status

STATUS_WORDS: dict[Status, str] = {
    "advise": "Advised",
    "caution": "Advised with caution",
    "refuse": "Advice refused",
}
STATUS_SIGNS: dict[Status, str] = {"advise": "✓", "caution": "!", "refuse": "✗"}
ANSWER_WORDS: dict[Answer, str] = {
    "train_and_merge": "train one expert a task, then merge",
    "do_not_merge": "don't merge",
    "train_jointly": "train one model on all tasks jointly instead",
}
MORE = {
    "learning_rate": "higher learning rate",
    "batch_size": "larger batches",
    "num_samples": "more samples",
    "coefficients": "larger coefficients",
    "num_tasks": "more tasks",
}
VERDICT_SIGNS = {"pass": "✓", "warn": "!", "fail": "✗"}


def count_text(value: float) -> str:
    """A count, with separators where it is large.

    >>> count_text(16300.4), count_text(0.25)
    ('16,300', '0.25')
    """
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def risk_text(value: float | None) -> str:
    """A risk in nats with three decimals.

    >>> risk_text(0.12345), risk_text(None), risk_text(float("inf"))
    ('0.123', '–', '∞')
    """
    if value is None or math.isnan(value):
        return "–"
    return ("∞" if value > 0 else "−∞") if math.isinf(value) else f"{value:.3f}"


def measured_text(value: float | None) -> str:
    """A measured risk; one that is infinite was not measured but lost.

    >>> measured_text(0.12345), measured_text(float("inf")), measured_text(None)
    ('0.123', 'diverged', '–')
    """
    return "diverged" if value == math.inf else risk_text(value)


def interval_text(cell: Predicted) -> str:
    """An interval.

    >>> interval_text(Predicted(value=0.375, low=0.338, high=0.431))
    '0.338 to 0.431'
    """
    return f"{risk_text(cell.low)} to {risk_text(cell.high)}"


def signed_text(value: float) -> str:
    """A signed part of a risk.

    >>> signed_text(-0.0456)
    '-0.046'
    """
    return f"{value:+.3f}"


def term_text(name: str) -> str:
    """The name of a term or purpose in words.

    >>> term_text("initial_risk")
    'initial risk'
    """
    return name.replace("_", " ")


def elasticity_text(knob: str, exponent: Predicted) -> str:
    """What ten per cent more of a knob does to the predicted goal risk.

    >>> elasticity_text("steps", Predicted(value=-0.12, low=-0.2, high=-0.05))
    '10 % more steps: -1.1 % (-1.9 % to -0.5 %)'
    """
    change, low, high = (100 * (1.1**e - 1) for e in (exponent.value, exponent.low, exponent.high))
    more = MORE.get(knob, f"more {term_text(knob)}")
    return f"10 % {more}: {change:+.1f} % ({low:+.1f} % to {high:+.1f} %)"
