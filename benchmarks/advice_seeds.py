"""One project, many seeds: how far do advice and its gain differ when splits, heads and probes are drawn anew?

    python -m benchmarks.advice_seeds benchmarks/projects/vit-flipped.yaml --out FIGURES.json [--seeds 0 1 2 ...]

For each seed the live path runs: splits, heads, constants, probes, advice (off any grid), the advised experts, their
merge, and the test figures of merge and x_0.  Resumable: a seed whose run is finished is read back.

    gain    (x_0 - merge) / x_0, test risk of the goal
    regret  1 - gain / best, best: mean over the seeds of the suite of the same name of (x_0 - best of the grid) / x_0

so a regret below 0 says that advice off the grid beat the grid.  A seed's own best is not known, where its grid was not
trained.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advisor import pipeline
from advisor.advice import Recommendation
from advisor.baselines import Contender
from advisor.experts import merge_experts, train_experts
from advisor.probe_session import stored_probes
from advisor.validation import measure_models, open_tests
from advisor.workspace import BEFORE_ADVICE, Workspace, open_workspace
from benchmarks.suite_format import candidate_plans, load_suite
from estimators.files import write_json

SUITES = Path(__file__).resolve().parent / "suites"
FIGURES_NAME = "advice_seed.json"


def judge_seed(ws: Workspace) -> dict[str, Any]:
    """Advice of one run, what it predicted and what its merge measures on test data."""
    if ws.run.has(FIGURES_NAME):
        return dict(ws.run.read_json(FIGURES_NAME))
    with ws.session("advice seed"):
        pipeline.train(ws)  # an expert that diverges is learned from, and the advice made again
        recommendation = pipeline.recommend(ws)
        row = describe(recommendation, sum(ws.costs().get(name, 0.0) for name in BEFORE_ADVICE) / ws.full_fine_tune)
        row["probes"] = len(stored_probes(ws))
        experts = train_experts(ws, recommendation)
        merged = merge_experts(ws, recommendation, experts)
        contender = Contender(name="advised merge", weights=merged, experts=dict(experts), cost=0.0, note="")
        tests = open_tests(ws.run.path, tuple(ws.tasks))
        advised, pretrained, *_ = measure_models(contender, (), ws.objectives, tests, goal=ws.goal.of)
        assert advised.goal is not None
        assert pretrained.goal is not None
        row |= {
            "pretrained": pretrained.goal,
            "advised": advised.goal,
            "gain": 1.0 - advised.goal / pretrained.goal,
            "interval_holds": recommendation.goal.holds(advised.goal),
        }
        ws.run.write_json(FIGURES_NAME, row)
    return row


def describe(recommendation: Recommendation, cost: float) -> dict[str, Any]:
    """The advice in plain values; ``cost`` in full fine-tunes, everything before it."""
    recipe = next(iter(recommendation.plan.recipes.values()))
    return {
        "status": recommendation.status,
        "recipe": recipe.to_json(),
        "coefficients": dict(recommendation.plan.coefficients),
        "method": recommendation.plan.method,
        "predicted": recommendation.goal.value,
        "low": recommendation.goal.low,
        "high": recommendation.goal.high,
        "cost": cost,
    }


def best_gain(name: str) -> float | None:
    """Mean over a suite's seeds of what its best merge gains, of x_0; ``None`` if there is no such suite."""
    if not (SUITES / name).is_dir():
        return None
    suite = load_suite(SUITES / name)
    gains = []
    for seed in map(int, suite.seeds):
        initial = float(suite.initial(seed, "test").mean())
        gains.append(1.0 - float(np.min(candidate_plans(suite, seed).test)) / initial)
    return float(np.mean(gains))


def summarise(rows: Sequence[dict[str, Any]], best: float | None) -> dict[str, Any]:
    """Spread of what the advice brings, and of its learning rates for each optimizer."""
    gains = np.array([row["gain"] for row in rows])
    rates: dict[str, list[float]] = {}
    for row in rows:
        rates.setdefault(row["recipe"]["optimizer"], []).append(row["recipe"]["learning_rate"])
    found: dict[str, Any] = {
        "seeds": len(rows),
        "gain": {"mean": float(gains.mean()), "sd": float(gains.std(ddof=1)) if len(rows) > 1 else None},
        "better_than_pretrained": int((gains > 0).sum()),
        "interval_holds": sum(row["interval_holds"] for row in rows),
        "cost": float(np.mean([row["cost"] for row in rows])),
        "rate_factor": {name: max(values) / min(values) for name, values in rates.items()},
        "advised": {name: len(values) for name, values in rates.items()},
    }
    if best is not None:
        regret = 1.0 - gains / best
        found["best_gain_of_the_grid"] = best
        found["regret"] = {"mean": float(regret.mean()), "sd": float(regret.std(ddof=1)) if len(rows) > 1 else None}
    return found


def main() -> None:
    """Run the seeds and write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("project", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/advice_seeds"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    best, rows = best_gain(options.project.stem), []
    command = f"python -m benchmarks.advice_seeds {options.project} --seeds {' '.join(map(str, options.seeds))}"
    for seed in options.seeds:
        ws = open_workspace(options.project, options.work / options.project.stem / str(seed), seed=seed)
        rows.append({"seed": seed} | judge_seed(ws))
        print(rows[-1], flush=True)
        write_json(
            options.out,
            {
                "command": command,
                "environment": {"python": platform.python_version(), "torch": torch.__version__},
                "summary": summarise(rows, best),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
