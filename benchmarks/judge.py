"""Hold the advisor against stored suites: rank, calibration, regret, overhead, arms, all baselines.

    python -m benchmarks.judge [SUITE...] --out FIGURES.json [--plots FOLDER] [--sampler-seeds 4]

Every figure is defined in ``docs/benchmark.md``.  Judging a suite that ``suites.yaml`` holds out appends a line to
``held_out_log.jsonl`` with the commit that was judged.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

if __package__ in (None, ""):  # run as a file
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import yaml

from advisor.probing import BudgetTooSmall
from benchmarks.judge_advisor import SuiteAdvice, predict_goal, replay_design
from benchmarks.judge_arms import advise_arm, shuffled_constants, swapped_probes
from benchmarks.judge_calibration import calibrate
from benchmarks.judge_plots import plot_predictions, plot_regret
from benchmarks.judge_rank import ceiling, noise_floor, rank, strata, unseen_rows
from benchmarks.judge_regret import judge_regret
from benchmarks.judge_statistics import bootstrap
from benchmarks.judge_summary import summarise_suite, summarise_suites
from benchmarks.make_suite import environment
from benchmarks.suite_format import FloatArray, Suite, candidate_plans, load_suite
from benchmarks.suite_replay import Replay
from estimators.files import append_json_line, write_json

HERE = Path(__file__).resolve().parent
LOG = HERE / "held_out_log.jsonl"
SAMPLER_SEEDS = 4  # times three suite seeds: twelve paired units


def judge_suites(
    suites: Sequence[Suite], *, sampler_seeds: int = SAMPLER_SEEDS, cache: Path | None = None, plots: Path | None = None
) -> dict[str, Any]:
    """All figures of some suites, and pooled."""
    replays = {suite.name: {seed: _replay(suite, seed) for seed in suite.seeds} for suite in suites}
    judged = {}
    for suite in suites:
        started = time.perf_counter()
        ceilings = _ceilings(suite, replays[suite.name])
        floor = float(ceilings["noise_floor"]["value"] or 0.0)
        units = [
            judge_seed(suite, seed, replays, range(sampler_seeds), cache, noise_floor=floor) for seed in suite.seeds
        ]
        judged[suite.name] = summarise_suite(suite, units, ceilings)
        judged[suite.name]["seconds"] = time.perf_counter() - started
        if plots is not None:
            _plot(plots, suite, units)
        print(f"{suite.name}: judged in {judged[suite.name]['seconds']:.0f} s", flush=True)
    return {"suites": judged, "pooled": summarise_suites(judged), "environment": environment(), "commit": commit()}


def judge_seed(
    suite: Suite,
    seed: int,
    replays: Mapping[str, Mapping[int, Replay | None]],
    sampler_seeds: Sequence[int],
    cache: Path | None,
    *,
    noise_floor: float = 0.0,
) -> dict[str, Any]:
    """Everything about one seed of a suite."""
    replay = replays[suite.name][seed]
    advice = None if replay is None else advise_arm(suite, seed, replay)
    candidates = candidate_plans(suite, seed)
    initial, best = float(suite.initial(seed).mean()), float(candidates.test.min())
    unit: dict[str, Any] = {
        "seed": seed,
        "initial": initial,
        "best": best,
        "regret": _regret(advice, candidates.test, initial),
        "advice": describe_advice(advice),
        "cost": None if replay is None else {n: v / suite.full_fine_tune for n, v in replay.cost.items()},
        "arms": _arms(suite, seed, replays, candidates.test, initial),
        "search": judge_regret(
            suite, seed, None if advice is None else replay, sampler_seeds, cache, noise_floor=noise_floor
        ),
    }
    if advice is not None and replay is not None:
        unit |= _predictions(suite, seed, advice, replay, gain=initial - best)
    return unit


def describe_advice(advice: SuiteAdvice | None) -> str:
    """The advised plan in words."""
    if advice is None:
        return "no advice: the probes or the budget did not suffice"
    if advice.choice is None:
        return "do not merge"
    plan = advice.candidates.plans[advice.choice]
    value = next(iter(plan.coefficients.values()))
    return f"{next(iter(plan.recipes.values())).describe()}, coefficient {value:g}"


def _replay(suite: Suite, seed: int) -> Replay | None:
    try:
        return replay_design(suite, seed)
    except BudgetTooSmall:
        return None


def _regret(advice: SuiteAdvice | None, test: FloatArray, initial: float) -> float:
    """Regret of the first advice; no advice keeps x_0."""
    best = float(test.min())
    chosen = None if advice is None else advice.choice
    if best >= initial:
        return 0.0 if chosen is None else 1.0
    risk = initial if chosen is None else min(float(test[chosen]), 1e6)
    return (risk - best) / (initial - best)


def _arms(
    suite: Suite, seed: int, replays: Mapping[str, Mapping[int, Replay | None]], test: FloatArray, initial: float
) -> dict[str, list[float]]:
    """Regret of the shuffled and swapped arms with every other suite as donor."""
    own = replays[suite.name][seed]
    found: dict[str, list[float]] = {"shuffled constants": [], "swapped probes": []}
    for name, others in replays.items():
        donor = others.get(seed) if name != suite.name else None
        if own is None or donor is None:
            continue
        for label, change in (("shuffled constants", shuffled_constants), ("swapped probes", swapped_probes)):
            found[label].append(_regret(advise_arm(suite, seed, change(own, donor)), test, initial))
    return found


def _predictions(suite: Suite, seed: int, advice: SuiteAdvice, replay: Replay, *, gain: float) -> dict[str, Any]:
    """Rank and calibration over rows that were not probed."""
    rows = unseen_rows(suite, seed, replay.rows, replay.longest)
    plans = [suite.plan(int(row)) for row in rows]
    predicted = predict_goal(advice.model, plans)
    possible = np.isfinite(predicted.value)
    rows, plans = rows[possible], [plan for plan, known in zip(plans, possible, strict=True) if known]
    measured = suite.goal(rows)
    useful = measured < suite.initial(seed).mean()
    value, low, high = (v[possible] for v in (predicted.value, predicted.low, predicted.high))
    return {
        "rank": dataclasses.asdict(rank(value, measured, useful, strata(plans))),
        "calibration": dataclasses.asdict(calibrate(value, low, high, measured, useful, gain=gain)),
        "unpredicted": int((~possible).sum()),
        "predicted": value,
        "measured": measured,
    }


def _ceilings(suite: Suite, replays: Mapping[int, Replay | None]) -> dict[str, Any]:
    """Test-retest correlations and the noise floor of regret over pairs of seeds."""
    longest = max((replay.longest for replay in replays.values() if replay is not None), default=1)
    pairs = [(a, b) for a in suite.seeds for b in suite.seeds if a != b]
    ranks = [ceiling(suite, a, b, longest) for a, b in pairs]
    floors = [noise_floor(suite, a, b) for a, b in pairs]
    return {
        "overall": bootstrap([r.overall for r in ranks]),
        "useful": bootstrap([r.useful for r in ranks]),
        "worst": bootstrap([r.worst for r in ranks]),
        "noise_floor": bootstrap(floors),
    }


def _plot(folder: Path, suite: Suite, units: Sequence[Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    curves: dict[str, list[Any]] = {}
    defaults: dict[str, list[tuple[float, float]]] = {}
    for unit in units:
        for name, found in unit["search"]["curves"].items():
            curves.setdefault(name, []).extend(found)
        for name, point in unit["search"]["defaults"].items():
            defaults.setdefault(name, []).append(point)
    plot_regret(folder / f"regret-{suite.name}.png", suite.name, curves, defaults)
    known = [unit for unit in units if "predicted" in unit]
    if known:
        plot_predictions(
            folder / f"predicted-{suite.name}.png",
            suite.name,
            np.concatenate([unit["predicted"] / unit["initial"] for unit in known]),
            np.concatenate([unit["measured"] / unit["initial"] for unit in known]),
            np.array([unit["initial"] for unit in known]),
            np.array([unit["best"] for unit in known]),
        )


def commit() -> str:
    """The commit that is checked out, with a plus sign where files differ from it."""
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True)
        changed = subprocess.run(
            ["git", "status", "--porcelain", "--", "advisor", "estimators"],
            cwd=HERE.parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("+" if changed.stdout.strip() else "")


def development_suites() -> list[Path]:
    """Folders of the stored development suites."""
    roles = yaml.safe_load((HERE / "suites.yaml").read_text())
    found = [HERE / "suites" / name for name in roles["development"]]
    stored = [path for path in found if (path / "suite.json").exists()]
    if not stored:
        raise ValueError(f"no development suite of {[path.name for path in found]} is stored; make one first")
    return stored


def log_held_out(figures: Mapping[str, Any], log: Path = LOG) -> list[str]:
    """Append a line for every held-out suite that was judged; returns their names."""
    roles = yaml.safe_load((HERE / "suites.yaml").read_text())
    names = [name for name in figures["suites"] if name in roles["held_out"]]
    for name in names:
        suite = figures["suites"][name]
        append_json_line(
            log,
            {
                "suite": name,
                "commit": figures["commit"],
                "regret": suite["regret"]["value"],
                "rank": {key: suite["rank"][key]["value"] for key in ("overall", "useful", "worst")},
                "coverage": suite["calibration"]["coverage"]["value"],
            },
        )
    return names


def plain(value: Any) -> Any:
    """NumPy values as plain ones; what is not finite becomes ``None``."""
    if isinstance(value, Mapping):
        return {str(key): plain(cell) for key, cell in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(cell) for cell in value]
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not math.isfinite(value) else value


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suites", type=Path, nargs="*", help="default: the stored development suites")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--plots", type=Path, default=None)
    parser.add_argument("--cache", type=Path, default=HERE / "work" / "baselines")
    parser.add_argument("--sampler-seeds", type=int, default=SAMPLER_SEEDS)
    options = parser.parse_args(arguments)
    paths = options.suites or development_suites()
    figures = judge_suites(
        [load_suite(path) for path in paths],
        sampler_seeds=options.sampler_seeds,
        cache=options.cache,
        plots=options.plots,
    )
    write_json(options.out, plain(figures))
    for name in log_held_out(figures):
        print(f"{name} is held out: logged in {LOG.name}")


if __name__ == "__main__":
    main()
