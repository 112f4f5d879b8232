"""Merge Advisor: predicts, before training, which recipes and coefficients make fine-tuned experts merge well.

The public names, and nothing else; each is loaded on first use, so that importing the package loads neither torch nor
Optuna.

    from advisor import advise, load_project
    recommendation = advise(load_project("project.yaml"), out="runs/first")
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "Constants": "estimators.constants",
    "Plan": "advisor.plan",
    "Predicted": "advisor.advice",
    "ProbeData": "advisor.observations",
    "Project": "advisor.project",
    "Recipe": "estimators.recipe",
    "Recommendation": "advisor.advice",
    "RiskModel": "advisor.risk_model",
    "RunDirectory": "advisor.runs",
    "Validation": "advisor.advice",
    "Workspace": "advisor.workspace",
    "advise": "advisor.pipeline",
    "load_project": "advisor.project",
    "open_workspace": "advisor.workspace",
    "run_all": "advisor.pipeline",
    "worst_case": "advisor.bound",
}

__all__ = [
    "Constants",
    "Plan",
    "Predicted",
    "ProbeData",
    "Project",
    "Recipe",
    "Recommendation",
    "RiskModel",
    "RunDirectory",
    "Validation",
    "Workspace",
    "advise",
    "load_project",
    "open_workspace",
    "run_all",
    "worst_case",
]


def __getattr__(name: str) -> Any:
    """Load a public name from its home."""
    if name not in _HOMES:
        raise AttributeError(f"module 'advisor' has no attribute {name!r}; its public names are {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names."""
    return __all__
