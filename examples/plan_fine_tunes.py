"""Plan fine-tunes: what should I train with, before anything is trained?

    python examples/plan_fine_tunes.py PROJECT.yaml RUN

Probes the project's tasks, prints the advice and what a few plans of one's own would do instead.  Without data at hand,
``merge-advisor demo --out demo`` writes a project (demo/project.yaml) on digits.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from advisor import advise
from advisor.advice import Recommendation
from advisor.fitted_model import load_fitted
from advisor.plan import Plan
from advisor.what_if import with_coefficients, with_recipes
from advisor.workspace import open_workspace


def plan(project: Path, run: Path) -> tuple[Recommendation, dict[str, float]]:
    """The advice, and the predicted goal of neighbouring plans."""
    advice = advise(project, out=run)
    print(f"{advice.status}: {advice.sentence}")
    for reason in advice.reasons:
        print(f"  - {reason}")
    for other in advice.alternatives:
        print(f"  {other.label}: {other.goal.value:.3f} at {other.cost:.0f} per-sample gradients")
    predicted = compare(advice.plan, run)
    for what, goal in predicted.items():
        print(f"  {what}: {goal:.3f}")
    return advice, predicted


def compare(advised: Plan, run: Path) -> dict[str, float]:
    """Predicted goal of the advised plan, of the simple average of its experts and of changes to that."""
    average = with_coefficients(advised, 1 / len(advised.names))
    first = next(iter(advised.recipes.values()))
    plans = {
        "as advised": advised,
        "simple average": average,
        "average after half the steps": with_recipes(average, steps=max(1, first.steps // 2)),
        "average at a third of the learning rate": with_recipes(average, learning_rate=first.learning_rate / 3),
        "average at twice the batch": with_recipes(average, batch_size=2 * first.batch_size),
    }
    ws = open_workspace(run)
    goals = load_fitted(ws.run, ws.project).model.predict(list(plans.values())).goal
    return {what: float(goal) for what, goal in zip(plans, goals, strict=True)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("run", type=Path)
    options = parser.parse_args()
    plan(options.project, options.run)
