"""How long a study takes from risk to advice, for 8 tasks, and how much its result depends on the seed.

    python benchmarks/study_speed.py [--seeds 3]

The risk is synthetic, of the form of ``docs/theory.md`` section 3 (progress, interference of each pair of tasks, noise,
a stability edge), vectorised, and slowed down until it costs about ten microseconds a plan.  Cases: one recipe for all
tasks, one for each (48 free knobs), the front of risk against compute, coefficients for given experts, sensitivity.
Wall and CPU time in seconds; on a busy machine the CPU time is the one to compare.  Aim on 2 cores: 5 s shared, 60 s
per task.
Results go to benchmarks/results/study_speed.json.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from studies.coefficients import search_coefficients
from studies.evaluation import RiskBatch, RiskFunction
from studies.knobs import Columns, FloatArray
from studies.recipes import search_recipes
from studies.search_space import SearchSpace
from studies.sensitivity import find_sensitivity
from studies.tradeoffs import search_tradeoffs

RESULTS = Path(__file__).parent / "results" / "study_speed.json"
TASKS = tuple(f"task{k}" for k in range(8))
MICROSECONDS = 10.0


def make_risk(seed: int = 0, ballast: int = 0) -> RiskFunction:
    """A risk over 8 tasks with known structure; ``ballast`` sines a plan make it cost more."""
    rng = np.random.default_rng(seed)
    gap, progress = rng.uniform(0.5, 1.5, 8), rng.uniform(0.5, 2, 8)
    cross = rng.uniform(0, 0.02, (8, 8))
    cross = cross + cross.T + np.diag(rng.uniform(0.01, 0.04, 8))

    def column(columns: Columns, name: str) -> FloatArray:
        if name in columns:
            return np.repeat(np.asarray(columns[name], dtype=np.float64)[:, None], 8, axis=1)
        return np.stack([columns[f"{name}_{task}"] for task in TASKS], axis=1).astype(np.float64)

    def risk_of_plans(columns: Columns) -> RiskBatch:
        rate, batch = column(columns, "learning_rate"), column(columns, "batch_size")
        steps, weight = column(columns, "steps"), column(columns, "coefficient")
        adamw = np.stack([columns.get("optimizer", columns.get(f"optimizer_{t}")) == "adamw" for t in TASKS], axis=1)
        rate = np.where(adamw, 30 * rate, rate)
        moved = weight * np.sqrt(6 * rate**2 * steps / batch + np.log1p(rate * steps) ** 2)
        travel = weight * rate * steps
        risk = 0.2 + gap / (1 + progress * travel) + moved * (moved @ cross) + travel * 1e-4
        goal = (risk + 0.75 * weight**2 * rate / batch).mean(axis=1)
        if ballast:
            np.sin(np.broadcast_to(goal[:, None], (len(goal), ballast)))
        violation = (rate * (20 + 200 / batch)).max(axis=1) - 2
        return RiskBatch(goal=goal, low=goal - 0.01, high=goal + 0.01, violation=violation)

    return risk_of_plans


class Counted:
    """A risk that counts its calls: a fitted model costs milliseconds a call besides microseconds a plan."""

    def __init__(self, risk: RiskFunction) -> None:
        self.risk, self.calls = risk, 0

    def __call__(self, columns: Columns) -> RiskBatch:
        """The risk of some plans."""
        self.calls += 1
        return self.risk(columns)


def make_space(*, per_task: bool) -> SearchSpace:
    """The space of a typical project."""
    return SearchSpace(
        tasks=TASKS,
        learning_rate={"sgd": (1e-4, 1.0), "adamw": (1e-5, 1e-2)},
        batch_size=(8, 128),
        steps=(20, 640),
        schedules=("constant", "warmup_cosine"),
        coefficient_scope="per_task",
        per_task_recipes=per_task,
    )


def cost_of(risk: RiskFunction, space: SearchSpace) -> float:
    """Microseconds of CPU a plan, on 8192 plans at once."""
    plans = space.sample(np.random.default_rng(0), 8192)
    risk(plans)
    began = time.process_time()
    risk(plans)
    return (time.process_time() - began) / 8192 * 1e6


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """A result with its wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = work()
    return found, {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def measure(*, per_task: bool, seeds: int) -> dict[str, Any]:
    """All studies of one space."""
    space = make_space(per_task=per_task)
    bare = cost_of(make_risk(), space)
    a_sine = (cost_of(make_risk(ballast=1000), space) - bare) / 1000
    risk = Counted(make_risk(ballast=max(0, round((MICROSECONDS - bare) / a_sine))))
    rows = []
    for seed in range(seeds):
        risk.calls = 0
        found, seconds = timed(partial(search_recipes, space, risk, seed=seed))
        calls = risk.calls
        _, sensitivity = timed(partial(find_sensitivity, space, risk, found))
        rows.append(
            {
                "seed": seed,
                **seconds,
                "sensitivity": sensitivity,
                "goal": found.best.goal,
                "cheapest_cost": found.cheapest.cost,
                "evaluated": found.evaluated,
                "calls": calls,
                "trials": found.trials,
            }
        )
    front, seconds = timed(partial(search_tradeoffs, space, risk, seed=0))
    return {
        "knobs": space.dimensions,
        "microseconds_a_plan": cost_of(risk, space),
        "recipes": rows,
        "goal_spread": float(np.ptp([row["goal"] for row in rows])),
        "tradeoffs": {**seconds, "front": len(front.front), "knee": front.knee},
    }


def measure_coefficients(seeds: int) -> list[dict[str, Any]]:
    """Coefficients of 8 experts under a quadratic risk with minimum 0.5."""
    rng = np.random.default_rng(1)
    root, target = rng.standard_normal((8, 8)), rng.uniform(0.1, 0.6, 8)

    def risk(rows: FloatArray) -> RiskBatch:
        return RiskBatch.exact(0.5 + (((rows - target) @ root) ** 2).sum(axis=1) / 8)

    rows = []
    for seed in range(seeds):
        found, seconds = timed(partial(search_coefficients, risk, TASKS, seed=seed))
        dear, _ = timed(partial(search_coefficients, risk, TASKS, seed=seed, trials=64, measured=True))
        rows.append({"seed": seed, **seconds, "excess": found.goal - 0.5, "excess_of_64_measured": dear.goal - 0.5})
    return rows


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    search_recipes(make_space(per_task=False), make_risk(), seed=0, trials=4, batch=2, sweep=16)  # imports, caches
    packages = ("numpy", "scipy", "optuna", "cmaes")
    results: dict[str, Any] = {
        "environment": {
            "python": platform.python_version(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0],
            "threads": os.environ.get("OMP_NUM_THREADS", "default"),
            **{name: importlib.metadata.version(name) for name in packages},
        },
        "shared": measure(per_task=False, seeds=seeds),
        "per_task": measure(per_task=True, seeds=seeds),
        "coefficients": measure_coefficients(seeds),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    for name in ("shared", "per_task"):
        case = results[name]
        walls = ", ".join(
            f"{row['wall']:.1f} s wall ({row['cpu']:.1f} s CPU, {row['calls']} calls)" for row in case["recipes"]
        )
        print(f"{name}: {case['knobs']} knobs, {walls}, goal spread {case['goal_spread']:.1e}")


if __name__ == "__main__":
    main()
