"""The demo over several seeds: how often does the advised merge beat x_0 and the average of default experts?

    python -m benchmarks.demo_seeds --seeds 0 1 2 3 4 5 6 7 8 9 --out benchmarks/results/demo_seeds.json

Resumable: a seed whose run is finished is read back.  A seed counts as won when the advised merge has a lower test risk
than the pretrained model and than the simple average of every default recipe's experts at equal cost.
"""

from __future__ import annotations

import argparse
import math
import platform
from pathlib import Path
from typing import Any

import torch

from advisor.advice import Validation
from advisor.demo import run_demo
from estimators.files import write_json


def summarise(seed: int, status: str, validation: Validation) -> dict[str, Any]:
    """One seed's figures."""
    goal = {model.name: model.goal for model in validation.models if model.goal is not None}
    advised, start = goal["advised merge"], goal["pretrained"]
    averages = {name: value for name, value in goal.items() if name.startswith("average")}
    tuned = {name: value for name, value in goal.items() if name.startswith("best lambda")}
    return {
        "seed": seed,
        "status": status,
        "advised": advised,
        "predicted": validation.predicted_goal.value,
        "low": validation.predicted_goal.low,
        "high": validation.predicted_goal.high,
        "interval_holds": validation.predicted_goal.holds(advised),
        "pretrained": start,
        "averages": averages,
        "best_lambdas": tuned,
        "joint": goal.get("joint training"),
        "beats_pretrained": advised < start,
        "beats_averages": all(advised < value for value in averages.values()),
        "beats_best_lambdas": all(advised < value for value in tuned.values()),
    }


def lost_as_null(value: Any) -> Any:
    """The same with ``None`` where a contender diverged, at any depth."""
    if isinstance(value, dict):
        return {name: lost_as_null(cell) for name, cell in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main() -> None:
    """Run the seeds and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(10)))
    parser.add_argument("--work", type=Path, default=Path(".demo"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/demo_seeds.json"))
    options = parser.parse_args()
    rows = []
    for seed in options.seeds:
        ws, validation = run_demo(options.work, seed=seed)
        status = str(ws.run.read_json("recommendation.json")["status"])
        rows.append(summarise(seed, status, validation))
        print(rows[-1], flush=True)
        wins = [row for row in rows if row["beats_pretrained"] and row["beats_averages"]]
        environment = {"python": platform.python_version(), "torch": torch.__version__, "machine": platform.machine()}
        write_json(
            options.out,
            {
                "command": f"python -m benchmarks.demo_seeds --seeds {' '.join(map(str, options.seeds))}",
                "environment": environment,
                "seeds": len(rows),
                "beats_pretrained_and_averages": len(wins),
                "beats_pretrained": sum(row["beats_pretrained"] for row in rows),
                "beats_best_lambdas": sum(row["beats_best_lambdas"] for row in rows),
                "interval_holds": sum(row["interval_holds"] for row in rows),
                "rows": [lost_as_null(row) for row in rows],
            },
        )


if __name__ == "__main__":
    main()
