r"""The worst-case bound against the truth of thousands of random problems, its broken variants, and its speed.

    python -m benchmarks.bound_monte_carlo --out benchmarks/results/bound_monte_carlo.json

Quadratic problems are judged exactly and stratified by eta L K; scalar ones (not convex, and convex without curvature
at infinity) are simulated and judged at a stated number of standard errors.  Every deliberately broken variant must be
caught.  The speed is that of one core at constant schedules.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from advisor.bound import BoundConstants, worst_case
from advisor.plan import PlanTable
from tests.bound_check import FAMILIES, ROUNDING, STRATA, Case, draw_cases, ratios, violations
from tests.broken_bounds import BROKEN
from tests.scalar_check import TOLERANCE, Kind, scalar_case

VARIANT_CASES_PER_STRATUM = 25
SPEED_PLANS = 200_000


def judge_quadratics(cases: list[Case]) -> dict[str, Any]:
    """Violations, tightest and median ratio of every promise, by family and stratum of eta L K."""
    found: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for case in cases:
        stratum = f"[{STRATA[case.stratum]:g}, {STRATA[case.stratum + 1]:g})"
        for promise, ratio in ratios(case).items():
            found[case.family, stratum, promise].append(ratio)
            found[case.family, "all", promise].append(ratio)
    tree: dict[str, Any] = {family: {} for family in FAMILIES}
    for (family, stratum, promise), values in found.items():
        sample = np.array(values)
        tree[family].setdefault(stratum, {})[promise] = {
            "problems": len(sample),
            "violations": int((~(sample >= 1 - ROUNDING)).sum()),
            "tightest": float(f"{sample.min():.6g}"),
            "median": float(f"{np.median(sample):.4g}"),
        }
    return tree


def judge_scalars(seed: int, count: int) -> dict[str, Any]:
    """The same for simulated problems; a violation is an excess of more than ``TOLERANCE`` standard errors."""
    rng = np.random.default_rng(seed)
    result: dict[str, Any] = {}
    kinds: tuple[Kind, ...] = ("cosine", "log_cosh")
    for kind in kinds:
        cases = [scalar_case(rng, kind) for _ in range(count)]
        excess = [case.excess() for case in cases]
        result[kind] = {
            promise: {
                "problems": count,
                "violations": sum(one[promise] > TOLERANCE for one in excess),
                "largest_excess_in_standard_errors": float(f"{max(one[promise] for one in excess):.3g}"),
                "median": float(f"{np.median([case.ratio(promise) for case in cases]):.4g}"),
            }
            for promise in excess[0]
        }
    return result


def judge_variants(seed: int) -> dict[str, Any]:
    """How many cases catch each broken variant."""
    cases = draw_cases(seed, VARIANT_CASES_PER_STRATUM)
    result = {}
    for name, variant in BROKEN.items():
        with variant.installed(), np.errstate(all="ignore"):
            result[name] = {"promise": variant.promise, "caught_by": violations(cases)[variant.promise]}
    return result


def measure_speed(num_tasks: int, pl_constant: float) -> dict[str, float]:
    """Plans and recipes a second of CPU time, best of nine, constant schedules, every recipe different."""
    rng, shape = np.random.default_rng(0), (SPEED_PLANS, num_tasks)
    names = tuple(f"task{i}" for i in range(num_tasks))
    table = PlanTable(
        names=names,
        learning_rate=10 ** rng.uniform(-4, -1, shape),
        batch_size=np.asarray(2.0 ** rng.integers(0, 8, shape), np.float64),
        steps=rng.integers(1, 641, shape).astype(float),
        optimizer=np.zeros(shape, np.int64),
        momentum=np.zeros(shape),
        schedule=np.zeros(shape, np.int64),
        num_samples=np.full(shape, 2000.0),
        coefficients=rng.uniform(0, 1, shape),
        method=("task_arithmetic",) * SPEED_PLANS,
    )
    ones = np.ones(num_tasks)
    constants = BoundConstants(
        names=names,
        task_weights=ones / num_tasks,
        num_samples=2000 * ones,
        smoothness=100.0,
        task_smoothness=50 * ones,
        gradient_variance=100 * ones,
        initial_gradient_norm=ones,
        initial_risk=ones,
        gradient_gram=np.eye(num_tasks),
        pl_constant=pl_constant,
    )
    times = []
    for _ in range(9):
        start = time.process_time()
        worst_case(constants, table)
        times.append(time.process_time() - start)
    plans = SPEED_PLANS / min(times)
    return {"plans_per_second": round(plans), "recipes_per_second": round(plans * num_tasks)}


def main() -> None:
    """Run everything and write one JSON file."""
    parser = argparse.ArgumentParser(description="Judge the worst-case bound by Monte Carlo.")
    parser.add_argument("--per-stratum", type=int, default=150, help="quadratic problems a family and stratum")
    parser.add_argument("--scalars", type=int, default=300, help="simulated problems of each kind")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bound_monte_carlo.json"))
    options = parser.parse_args()
    cases = draw_cases(options.seed, options.per_stratum)
    result = {
        "command": f"python -m benchmarks.bound_monte_carlo --per-stratum {options.per_stratum} "
        f"--scalars {options.scalars} --seed {options.seed}",
        "environment": {
            "cores_used": 1,
            "python": platform.python_version(),
            "numpy": np.__version__,
            "machine": platform.machine(),
        },
        "quadratic_problems": len(cases),
        "scalar_problems": 2 * options.scalars,
        "tolerance_in_standard_errors": TOLERANCE,
        "speed": {f"{n} tasks, mu={mu:g}": measure_speed(n, mu) for n in (1, 4) for mu in (0.0, 0.1)},
        "quadratic": judge_quadratics(cases),
        "scalar": judge_scalars(options.seed + 1, options.scalars),
        "broken_variants": judge_variants(options.seed + 2),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=1) + "\n")
    totals = {
        family: {promise: cell["violations"] for promise, cell in strata["all"].items()}
        for family, strata in result["quadratic"].items()
    }
    print(json.dumps({"violations": totals, "speed": result["speed"]}, indent=1))
    missed = [name for name, row in result["broken_variants"].items() if not row["caught_by"]]
    print(f"broken variants not caught: {missed or 'none'}")


if __name__ == "__main__":
    main()
