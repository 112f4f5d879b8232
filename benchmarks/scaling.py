r"""What the engine costs and gains, and how the counted cost grows.

    python -m benchmarks.scaling [--only overhead speed-up cluster counts paper] [--out benchmarks/results/scaling.json]

overhead    sleeping jobs of one second (so that two cores do not lie): wall time beside the ideal, workers ready before
speed-up    probing 8 tasks on 1 and 2 local workers: the training jobs of one probe, and whether every bit is equal
            (``-waiting``: jobs that only wait, as the parent does for GPUs)
cluster     a simulated Ray cluster (``ray.cluster_utils.Cluster``) that loses a node in the middle: jobs and advice
counts-*    per-sample gradients before advice, counted, against tasks (2 to 32), parameters and samples
paper       what these counts mean for 100 tasks of 7 B parameters: arithmetic, nothing of it was run

Each part is stored as it is finished, with the load of the machine while it ran.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from advisor import pipeline
from advisor.dispatching import snapshot_name, train_ahead
from advisor.engine import EngineSettings, LocalPool, Pool
from advisor.project import Project
from advisor.workspace import open_workspace
from estimators.cost import FORWARD_UNITS
from estimators.files import write_json
from estimators.fine_tuning import Run
from estimators.recipe import Recipe
from estimators.snapshot_folder import SnapshotFolder

RESULTS = Path(__file__).parent / "results" / "scaling.json"
SLEEP = 1.0
JOBS = 12
REPEATS = 3
CLOCK_FIELDS = ("seconds", "created", "time", "check", "id", "version")
FLOPS_A_GRADIENT = 6  # a parameter and token, forward and backward
TOKENS = 512
GPU_FLOPS = 4e14  # bf16, about 40 % of an H100's peak
DISK = 2e9  # bytes a second


SEARCH = {"learning_rate": {"sgd": [1e-5, 1e-2]}, "batch_size": [4, 8], "steps": [4, 24], "schedule": ["constant"]}


class Nothing:
    """Nothing to share."""

    def on(self, device: str) -> None:
        """Ready at once."""


def sleep(_: None, seconds: float) -> str:
    """One job; where it ran."""
    time.sleep(seconds)
    try:
        import ray

        return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else "here"
    except ImportError:
        return "here"


def overhead() -> dict[str, Any]:
    """Sleeping jobs on two local workers and on Ray with two."""
    found: dict[str, Any] = {"jobs": JOBS, "seconds_a_job": SLEEP, "workers": 2, "ideal_seconds": JOBS * SLEEP / 2}
    with LocalPool(Nothing(), slots=("cpu", "cpu"), threads=1) as pool:
        found["processes"] = _slept(pool)
    with _cluster() as cluster, _ray_pool(cluster.address) as pool:
        found["ray"] = _slept(pool)
    return found


def _slept(pool: Pool) -> dict[str, Any]:
    began = time.perf_counter()
    list(pool.run(sleep, [0.5, 0.5], watch=lambda: None))  # both workers have begun
    ready = time.perf_counter() - began
    walls = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = list(pool.run(sleep, [SLEEP] * JOBS, watch=lambda: None))
        walls.append(time.perf_counter() - began)
        if len(done) != JOBS:
            raise ValueError(f"{len(done)} results of {JOBS} jobs; the engine lost some")
    wall = min(walls)  # what the engine takes; the rest is the machine's other work
    ideal = JOBS * SLEEP / 2
    return {"first_jobs_seconds": ready, "wall_seconds": walls, "overhead_share": wall / ideal - 1}


def speed_up() -> dict[str, Any]:
    """The training jobs of one probe of 8 tasks on 1 and 2 workers."""
    recipe = Recipe(learning_rate=1e-3, batch_size=8, steps=400)
    found: dict[str, Any] = {"tasks": 8, "recipe": recipe.describe(), "wall_seconds": {}}
    kept: dict[int, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        made = open_workspace(_project(8, Path(scratch)), Path(scratch) / "run")
        with made.session("prepare"):
            runs = [Run(task=name, recipe=recipe, seed=1) for name in made.tasks]
        for workers in (1, 2):
            ws = open_workspace(made.run.path, engine=EngineSettings(kind="processes", workers=workers))
            store = SnapshotFolder(Path(scratch) / f"kept-{workers}")
            with ws.session("probe"):
                first = [Run(task=name, recipe=recipe.replace(steps=1), seed=1) for name in list(ws.tasks)[:2]]
                train_ahead(ws, first, store)  # the workers are ready
                began = time.perf_counter()
                train_ahead(ws, runs, store)
                found["wall_seconds"][str(workers)] = time.perf_counter() - began
                kept[workers] = {run.task: store.load(snapshot_name(ws, run)) for run in runs}
    one, two = kept[1], kept[2]
    found["speed_up"] = found["wall_seconds"]["1"] / found["wall_seconds"]["2"]  # says nothing where others compute
    found["every_bit_equal"] = all(
        all(torch.equal(one[task].tensors[name], two[task].tensors[name]) for name in one[task].tensors) for task in one
    )
    return found


def cluster() -> dict[str, Any]:
    """A node is lost while jobs run on it; then the whole path to advice, again with a node lost."""
    found: dict[str, Any] = {"jobs": JOBS}
    with _cluster() as made, tempfile.TemporaryDirectory() as scratch:
        nodes: dict[int, str] = {}
        with _ray_pool(made.address) as pool:
            for place, node in pool.run(sleep, [SLEEP] * JOBS, watch=lambda: None):
                nodes[place] = node
                if len(nodes) == 3:
                    made.remove_node(made.workers.pop(), allow_graceful=False)
        found |= {"lost_after": 3, "results": len(nodes), "nodes_used": len(set(nodes.values()))}
        made.workers.append(made.add_node(num_cpus=1))
        project = _project(2, Path(scratch))
        here = pipeline.advise(project, Path(scratch) / "here")
        ws = open_workspace(
            project, Path(scratch) / "ray", engine=EngineSettings(kind="ray", address=made.address, workers=2)
        )

        def lose(stage: str, done: int, total: int, **info: object) -> None:
            if stage == "jobs" and len(made.workers) == 2:
                made.remove_node(made.workers.pop(), allow_graceful=False)

        ws.progress = lose
        there = pipeline.recommend(ws)
        found["node_lost_while_probing"] = len(made.workers) == 1
        found["same_advice"] = _without_clock(there.to_json()) == _without_clock(here.to_json())
    return found


def counts_tasks() -> Iterator[dict[str, Any]]:
    """Units before advice against the number of tasks."""
    return _projects([{"tasks": number} for number in (2, 4, 8, 16, 32)])


def counts_parameters() -> Iterator[dict[str, Any]]:
    """The same against parameters."""
    return _projects([{"backbone": name} for name in ("test_resnet", "test_vit")])


def counts_samples() -> Iterator[dict[str, Any]]:
    """The same against samples of a task."""
    return _projects([{"limit": limit} for limit in (40, 80, 160)])


def _projects(options: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What has been counted so far, after each project."""
    found: list[dict[str, Any]] = []
    for given in options:
        found.append({"project": given, **_counted(**given)})
        yield {"projects": list(found)}


def _counted(tasks: int = 2, **options: Any) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as scratch:
        ws = open_workspace(_project(tasks, Path(scratch), **options), Path(scratch) / "run")
        data = pipeline.probe(ws)
        costs = ws.costs()
        return {
            "parameters": ws.prepared.backbone.num_parameters,
            "units": costs,
            "units_before_advice": sum(costs.values()),
            "share_of_a_full_fine_tune": sum(costs.values()) / ws.full_fine_tune,
            "units_a_task": sum(costs.values()) / tasks,
            "merges": len(data.merges),
        }


def paper(tasks: int = 100, parameters: float = 7e9, steps: int = 640, probes: int = 5) -> dict[str, Any]:
    """100 tasks of 7 B parameters at the default budget, a quarter of the full fine-tunes."""
    units = 0.25 * tasks * steps * 32
    merges = probes * 5
    evaluation = merges * tasks * 96 * FORWARD_UNITS
    seconds = units * FLOPS_A_GRADIENT * parameters * TOKENS / GPU_FLOPS
    checkpoint = 2 * parameters  # bytes in bfloat16
    return {
        "assumed": {
            "tasks": tasks, "parameters": parameters, "longest_run_steps": steps, "probes": probes,
            "tokens_a_sample": TOKENS, "gpu_flops": GPU_FLOPS, "disk_bytes_a_second": DISK,
        },
        "units_before_advice": units,
        "of_which_merged_evaluations": evaluation,
        "gpu_hours_before_advice": seconds / 3600,
        "gpu_hours_of_one_full_fine_tune_of_all": 4 * seconds / 3600,
        "hours_on_64_gpus": seconds / 3600 / 64,
        "checkpoints_terabytes": probes * tasks * 2 * checkpoint / 1e12,
        "one_merge_reads_terabytes": (tasks + 1) * checkpoint / 1e12,
        "one_merge_hours_on_one_disk": (tasks + 1) * checkpoint / DISK / 3600,
        "all_merges_hours_on_one_disk": merges * (tasks + 1) * checkpoint / DISK / 3600,
        "gigabytes_of_one_float32_vector": 4 * parameters / 1e9,
        "own_loop_gigabytes_sgd": 4 * 4 * parameters / 1e9,
    }  # fmt: skip


def _project(number: int, folder: Path, *, backbone: str = "test_resnet", limit: int = 40) -> Project:
    names = ("builtin/digits-rotated-low", "builtin/digits-rotated-high")
    tasks = {f"task{k:02d}": {"data": names[k % 2], "limit": limit, "split": [0.5, 0.25, 0.25]} for k in range(number)}
    size = 16 if backbone == "test_resnet" else 32
    return Project.from_mapping(
        {
            "backbone": {"name": backbone, "in_chans": 1, "image_size": size},
            "tasks": tasks,
            "search": SEARCH,
            "budget": {"probe_share": 2.0, "probes": 2},
        },
        origin=folder,
    )  # fmt: skip


@contextmanager
def _cluster() -> Iterator[Any]:
    """A head without workers and two nodes of one core, on the loopback address."""
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.workers = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def _ray_pool(address: str) -> Any:
    from advisor.engine_ray import RayPool

    return RayPool(Nothing(), EngineSettings(kind="ray", address=address), threads=1, on_gpu=False)


def _without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_clock(item) for key, item in value.items() if key not in CLOCK_FIELDS}
    return [_without_clock(item) for item in value] if isinstance(value, list | tuple) else value


def speed_up_waiting() -> dict[str, Any]:
    """Eight jobs of one second, one a task of a probe, that wait as for a GPU: on 1 and 2 workers."""
    walls = {}
    for workers in (1, 2):
        with LocalPool(Nothing(), slots=("cpu",) * workers, threads=1) as pool:
            list(pool.run(sleep, [0.1] * workers, watch=lambda: None))
            began = time.perf_counter()
            list(pool.run(sleep, [SLEEP] * 8, watch=lambda: None))
            walls[str(workers)] = time.perf_counter() - began
    return {"jobs": 8, "wall_seconds": walls, "speed_up": walls["1"] / walls["2"]}


PARTS: dict[str, Callable[[], dict[str, Any] | Iterator[dict[str, Any]]]] = {
    "overhead": overhead,
    "speed-up": speed_up,
    "speed-up-waiting": speed_up_waiting,
    "cluster": cluster,
    "counts-samples": counts_samples,
    "counts-parameters": counts_parameters,
    "counts-tasks": counts_tasks,
    "paper": paper,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results = json.loads(arguments.out.read_text()) if arguments.out.exists() else {}
    results["environment"] = {"python": platform.python_version(), "torch": torch.__version__, "cores": os.cpu_count()}
    for name in arguments.only:
        began = time.perf_counter()
        made = PARTS[name]()
        for found in [made] if isinstance(made, dict) else made:
            results[name] = found | {"part_seconds": time.perf_counter() - began, "load_average": os.getloadavg()[0]}
            write_json(arguments.out, results)
        print(name, json.dumps(results[name], indent=1))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
