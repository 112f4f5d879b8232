r"""The least that measuring takes: said before anything is spent, in the words of the project file.

    budget = min(probe_share * N * K_max * 32, max_cost) >= N * LEAST_UNITS / CONSTANTS_SHARE

N tasks, K_max the longest training; constants may take ``CONSTANTS_SHARE`` of what is spent before advice.  Units:
per-sample gradients.
"""

from __future__ import annotations

from advisor.measuring import CONSTANTS_SHARE
from advisor.probing import BudgetTooSmall
from advisor.project import Project
from estimators.cost import full_fine_tune_units
from estimators.sample_budget import LEAST_UNITS


def require_budget(project: Project, max_cost: float | None = None) -> None:
    """Refuse a budget that does not even pay for the constants.

    Raises:
        BudgetTooSmall: naming the setting that decides, and what would be enough.
    """
    full = full_fine_tune_units(len(project.tasks), project.search.steps[1])
    share = project.budget.probe_share
    limits = {
        f"budget.probe_share={share:g}": share * full,
        f"budget.max_cost={project.budget.max_cost}": project.budget.max_cost,
        f"--max-cost={max_cost}": max_cost,
    }
    given = {name: value for name, value in limits.items() if value is not None}
    name = min(given, key=lambda key: given[key])
    least = len(project.tasks) * LEAST_UNITS / CONSTANTS_SHARE
    if given[name] < least:
        enough = f"at least {least / full:.2g}" if name.startswith("budget.probe") else f"at least {least:,.0f}"
        raise BudgetTooSmall(
            f"{name} leaves {given[name]:,.0f} per-sample gradients for everything before advice, but measuring the "
            f"constants of {len(project.tasks)} tasks needs {least:,.0f}; raise it to {enough} (probes take more), or "
            "let search.steps end higher"
        )
