"""How long a slider takes to answer, and how long pages take with a huge run; measured on the server's side.

    python -m benchmarks.app_latency --out benchmarks/results/app_latency.json

Slider: a model fitted to 8 synthetic tasks (quadratics with exact risks) is asked about random settings; *values* is
everything that Explore computes (prediction with intervals, terms, contour, front, why not a larger rate), *figures*
builds its plots, and *rerun* is one rerun of the whole page, frame included, in Streamlit's own test runner, which is
more than the fragment that a browser makes run.  Pages: first run of every page on a run with 5 000 trials, events and
measured merges and 1 000 probes, nothing cached but the imports; then again.  CPU seconds are given beside wall seconds
because the machine may be shared; the least of several says what it takes where nothing else runs for a moment.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import streamlit as st
from streamlit.testing.v1 import AppTest

from advisor import figures
from advisor.exploring import Explorer
from advisor.figures.exploring import front_around
from advisor.goal import Goal
from advisor.risk_model import RiskModel
from advisor.setting import Setting
from tests.advisor.quadratic_merges import QuadraticWorld
from tests.app.run_samples import make_huge, write_finished

MAIN = Path(__file__).parents[1] / "app" / "main.py"
TASKS = 8
SETTINGS = 60
REPEATS = 5
PAGES = ("set_up", "probe", "recommend", "explore", "merge", "validate", "runs")
LIMITS = {"slider_ms": 150.0, "page_s": 2.0}


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - cpu


def summary(times: list[tuple[float, float]]) -> dict[str, float]:
    """Milliseconds."""
    wall, cpu = (1000 * np.array(column) for column in zip(*times, strict=True))
    return {
        "wall_ms_median": round(float(np.median(wall)), 1),
        "wall_ms_least": round(float(wall.min()), 1),
        "wall_ms_95": round(float(np.percentile(wall, 95)), 1),
        "cpu_ms_median": round(float(np.median(cpu)), 1),
        "cpu_ms_least": round(float(cpu.min()), 1),
        "cpu_ms_95": round(float(np.percentile(cpu, 95)), 1),
        "samples": len(times),
    }


def random_setting(names: tuple[str, ...], generator: np.random.Generator) -> Setting:
    """Where sliders may stand."""
    return Setting(
        learning_rate=float(np.exp(generator.uniform(np.log(1e-3), np.log(1e-1)))),
        batch_size=int(generator.choice([8, 16, 32, 64])),
        steps=int(generator.integers(10, 640)),
        schedule="warmup_cosine" if generator.random() < 0.5 else "constant",
        coefficients={name: float(generator.uniform(0, 1)) for name in names},
        weights={name: float(generator.choice([0.5, 1.0, 2.0])) for name in names},
        left_out=tuple(name for name in names if generator.random() < 0.1),
    )


def measure_values(explorer: Explorer, names: tuple[str, ...]) -> dict[str, Any]:
    """What Explore computes and draws for one position of the sliders."""
    generator = np.random.default_rng(0)
    values, drawn = [], []
    for k in range(SETTINGS + 3):
        setting = random_setting(names, generator)
        found: dict[str, Any] = {}

        def compute(setting: Setting = setting, found: dict[str, Any] = found) -> None:
            found["look"] = explorer.look(setting)
            found["larger"] = explorer.larger_rate(setting)
            found["surface"] = explorer.surface(setting, ("learning_rate", "coefficient"))
            found["front"] = explorer.front(setting, longest=1280)

        def draw(found: dict[str, Any] = found) -> None:
            look = found["look"]
            for figure, _ in (
                figures.term_shares(look.terms),
                figures.risk_contour(found["surface"], initial_goal=look.initial_goal),
                front_around(found["front"], (look.cost, look.goal), initial_goal=look.initial_goal),
            ):
                figure.to_json()

        first, second = timed(compute), timed(draw)
        if k >= 3:  # the first ones pay for what is set up once
            values.append(first)
            drawn.append(second)
    both = [(a[0] + b[0], a[1] + b[1]) for a, b in zip(values, drawn, strict=True)]
    return {"values": summary(values), "figures": summary(drawn), "values_and_figures": summary(both)}


def open_page(root: Path, page: str, run: str) -> AppTest:
    """A page that was not run yet."""
    at = AppTest.from_file(str(MAIN), default_timeout=300)
    at.session_state["root"] = root
    at.query_params["run"] = run
    if page != "set_up":
        at.switch_page(f"views/{page}.py")
    return at


def measure_rerun(root: Path, run: str) -> dict[str, float]:
    """A rerun of the whole Explore page after a slider has moved."""
    at = open_page(root, "explore", run).run()
    slider = next(s for s in at.select_slider if s.label.startswith("Learning rate"))
    times = []
    for k in range(23):
        slider = next(s for s in at.select_slider if s.label.startswith("Learning rate"))
        slider.set_value(float(slider.options[20 + 3 * k]))
        once = timed(at.run)
        if k >= 3:
            times.append(once)
    return summary(times)


def measure_pages(root: Path, run: str) -> dict[str, Any]:
    """First and second run of every page."""
    open_page(root, "set_up", "none").run()  # imports
    for page in PAGES:
        open_page(root, page, "small").run()
    found = {}
    for page in PAGES:
        first, again = [], []
        for _ in range(REPEATS):
            st.cache_resource.clear()
            at = open_page(root, page, run)
            first.append(timed(at.run))
            again.append(timed(at.run))
            assert not at.exception, page
        found[page] = {"first": summary(first), "again": summary(again)}
    return found


def main() -> None:
    """Measure and store."""
    parser = argparse.ArgumentParser(description="Latency of sliders and pages, on the server's side.")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/app_latency.json"))
    arguments = parser.parse_args()
    world = QuadraticWorld.drawn(tuple(f"task{k}" for k in range(TASKS)))
    model = RiskModel().fit(world.probes())
    explorer = Explorer(model, Goal(weights=dict.fromkeys(world.names, 1.0)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "runs"
        project = "backbone: test_resnet\ntasks: {" + ", ".join(f"{n}: builtin/digits" for n in world.names) + "}\n"
        for name in ("small", "huge"):
            run = write_finished(root / name, world, world.probes(), model)
            run.write_text("project.yaml", project)
        make_huge(run, world.probes())
        result = {
            "command": "python -m benchmarks.app_latency",
            "environment": {
                "python": platform.python_version(),
                "numpy": np.__version__,
                "streamlit": st.__version__,
                "machine": platform.machine(),
                "cores": os.cpu_count(),
                "threads": os.environ.get("OMP_NUM_THREADS", "unset"),
                "load": round(os.getloadavg()[0], 1),
                "niceness": os.nice(0),
            },
            "limits": LIMITS,
            "tasks": TASKS,
            "slider": measure_values(explorer, world.names) | {"rerun_of_the_page": measure_rerun(root, "small")},
            "pages_of_a_huge_run": measure_pages(root, "huge"),
        }
    arguments.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
