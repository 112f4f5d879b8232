"""How far the estimators can be trusted: coverage, outside truth, repeatability, cost and memory.

    python -m benchmarks.estimators coverage [--trials 1000]       quadratic problems with known constants
    python -m benchmarks.estimators networks                       dense matrices, ARPACK, curvlinops, brute-force loops
    python -m benchmarks.estimators repeatability                  pretrained backbones with four tasks, several seeds
    python -m benchmarks.estimators memory                         peak memory beside a training step's

Each writes ``benchmarks/results/estimators-<section>.json`` with its environment.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    names = ("torch", "timm", "numpy", "scipy", "scikit-learn")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "threads": torch.get_num_threads(),
        "cuda": torch.cuda.is_available(),
        "packages": {name: importlib.metadata.version(name) for name in names},
    }


def coverage(trials: int) -> dict[str, Any]:
    """Share of trials whose 90 % interval holds the truth, with width and interval score, for each family."""
    from tests.estimator_trials import SETTINGS, run_trials
    from tests.weighted_draw_trials import WEIGHTED_SETTINGS, run_weighted_trials

    weighted = {f"weighted draws, {item.name}": run_weighted_trials(item, trials) for item in WEIGHTED_SETTINGS}
    return {setting.name: run_trials(setting, trials) for setting in SETTINGS} | weighted


def stored_figures(section: str) -> dict[str, Any]:
    """Figures of a section's last run; empty if there was none."""
    path = RESULTS / f"estimators-{section}.json"
    return dict(json.loads(path.read_text(encoding="utf-8"))["figures"]) if path.is_file() else {}


def main() -> None:
    """Run one section and store it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=["coverage", "networks", "repeatability", "memory"])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--networks", nargs="*", default=["cnn", "test_resnet", "test_vit", "resnet18"])
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    if options.section == "coverage":
        figures = coverage(options.trials)
    else:
        from benchmarks import estimator_checks

        figures = {
            "networks": estimator_checks.networks,
            "repeatability": lambda: estimator_checks.repeatability(
                options.networks, options.seeds, stored_figures("repeatability")
            ),
            "memory": lambda: estimator_checks.memory(options.networks),
        }[options.section]()
    result = {
        "command": " ".join(["python -m benchmarks.estimators", *sys.argv[1:]]),
        "environment": environment(),
        "seconds": round(time.perf_counter() - started),
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"estimators-{options.section}.json"
    target.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(target.name, "written")


if __name__ == "__main__":
    main()
