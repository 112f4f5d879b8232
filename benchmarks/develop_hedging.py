r"""How far from the simple average may coefficients from weights go?  The development figures behind the choice.

    python -m benchmarks.develop_hedging

For every development problem (``benchmarks/coefficient_problems.py``): test accuracy of x_0, the simple average, common
coefficients, the best guess (``advisor.coefficients_prior``) and the hedged choice
(``advisor.coefficients_hedging``) for several least interferences.  Printed for each of these: the share of the gap
between the average and the best of all that was closed (problems with a gap of at least a point), and how many problems
ended more than half a point below the average.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from advisor.coefficients_hedging import hedged_coefficients
from advisor.coefficients_prior import prior_coefficients
from benchmarks.coefficient_problems import DEVELOPMENT, DEVELOPMENT_SEEDS, KINDS, RELATED_SEEDS, make_problem

RESULTS = Path(__file__).parent / "results" / "coefficients-development.json"
LEAST = (15.0, 18.0, 20.0, 22.0, 25.0, 30.0, 40.0)
COMMON = (0.05, 0.1, 0.15, 0.2, 0.3)


def problems() -> Iterator[tuple[str, str, int]]:
    """Family, recipes and seed of every development problem."""
    for seed in DEVELOPMENT_SEEDS:
        yield from ((family, kind, seed) for family in ("views", "halves", "mixed") for kind in KINDS)
    for seed in RELATED_SEEDS:
        yield from ((family, "adamw", seed) for family in ("halves", "inverse"))


def measure(family: str, kind: str, seed: int, work: Path) -> dict[str, float]:
    """Test accuracies of one problem."""
    case = make_problem(work / f"{family}-{seed}", DEVELOPMENT[family], kind, seed)
    merges = case.problem.merges
    gram, base, count = merges.gram(), float(merges.start.norm()), len(case.experts)
    rows = {"x0": np.zeros(count), "average": np.full(count, 1 / count), "best guess": prior_coefficients(gram, base)}
    rows |= {f"common {value}": np.full(count, value) for value in COMMON}
    rows |= {f"hedged {least:g}": hedged_coefficients(gram, base, least=least) for least in LEAST}
    return {name: case.test_figures(row.tolist())["accuracy"] for name, row in rows.items()}


def summarise(cases: dict[str, dict[str, float]]) -> dict[str, dict[str, Any]]:
    """Gap closed and losses against the average, for the best guess and every hedge."""
    found = {}
    for name in ["best guess", *(f"hedged {least:g}" for least in LEAST)]:
        gains = {case: cells[name] - cells["average"] for case, cells in cases.items()}
        gaps = {case: max(cells.values()) - cells["average"] for case, cells in cases.items()}
        wide = [case for case, gap in gaps.items() if gap >= 0.01]
        found[name] = {
            "gap_closed": sum(gains[case] for case in wide) / sum(gaps[case] for case in wide) if wide else None,
            "worst": min(gains.values()),
            "more_than_half_a_point_below": sum(gain < -0.005 for gain in gains.values()),
            "problems": len(gains),
        }
    return found


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("benchmarks/work/development"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = json.loads(options.out.read_text())["problems"] if options.out.exists() else {}
    for family, kind, seed in problems():
        name = f"{family}-{kind}-seed-{seed}"
        if name not in cases:
            cases[name] = measure(family, kind, seed, options.work)
            document = {
                "command": "python -m benchmarks.develop_hedging",
                "summary": summarise(cases),
                "problems": cases,
            }
            options.out.write_text(json.dumps(document, indent=1) + "\n")
            print(name, flush=True)
    print(json.dumps(summarise(cases), indent=1))


if __name__ == "__main__":
    main()
