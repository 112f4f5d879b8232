"""Jobs on a simulated Ray cluster: a node is lost in the middle, and nothing is lost with it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from advisor import pipeline
from advisor.dispatching import open_workers
from advisor.engine import EngineSettings
from advisor.workspace import open_workspace
from estimators.recipe import Recipe
from estimators.stability import StabilityTwins
from tests.known_problems import QuadraticTask
from tests.quadratic_objectives import QuadraticObjective, split_of
from tests.reliability.tiny_project import numbers, write_project

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Ray's own notes on its sockets and forks


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head without workers, and two nodes of one core each, all on the loopback address."""
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # keeps every address on 127.0.0.1
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    made.nodes = [made.add_node(num_cpus=1), made.add_node(num_cpus=1)]
    try:
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


class Shared:
    def on(self, device: str) -> str:
        return device


def where(device: str, job: int) -> tuple[int, str, str]:
    import ray

    time.sleep(1.0)
    return job, device, ray.get_runtime_context().get_node_id()


def fail(device: str, job: int) -> None:
    raise KeyError(f"job {job} cannot be done")


def test_the_advice_on_a_cluster_that_loses_a_node_is_the_one_of_this_process(cluster, tmp_path: Path):
    project = write_project(tmp_path)
    here = open_workspace(project, tmp_path / "here")
    expected = pipeline.recommend(here)
    settings = EngineSettings(kind="ray", address=cluster.address, workers=2)
    ws = open_workspace(project, tmp_path / "ray", engine=settings)
    lost: list[object] = []

    def lose_a_node(stage: str, done: int, total: int, **info: object) -> None:
        if stage == "jobs" and not lost:
            lost.append(cluster.nodes[1])
            cluster.remove_node(cluster.nodes[1], allow_graceful=False)

    ws.progress = lose_a_node
    advice = pipeline.recommend(ws)
    assert len(lost) == 1
    assert numbers(advice.to_json()) == numbers(expected.to_json())
    for name in ("probe_data.json", "constants.json", "risk_model.json"):
        assert numbers(ws.run.read_json(name)) == numbers(here.run.read_json(name))
    cluster.nodes[1] = cluster.add_node(num_cpus=1)


def test_jobs_running_on_a_lost_node_are_done_elsewhere_and_errors_come_back(cluster):
    from advisor.engine_ray import RayPool

    settings = EngineSettings(kind="ray", address=cluster.address)
    with RayPool(Shared(), settings, threads=1, on_gpu=False) as pool:
        found: dict[int, Any] = {}
        for place, result in pool.run(where, list(range(6)), watch=lambda: None):
            found[place] = result
            if len(found) == 1:
                cluster.remove_node(cluster.nodes[1], allow_graceful=False)
        assert [found[n][:2] for n in range(6)] == [(n, "cpu") for n in range(6)]
        with pytest.raises(KeyError, match="job 3 cannot be done"):
            list(pool.run(fail, [3], watch=lambda: None))
    cluster.nodes[1] = cluster.add_node(num_cpus=1)


def test_stability_twins_on_the_cluster_are_those_of_this_process(cluster):
    import ray
    from joblib import parallel_config
    from ray.util.joblib import register_ray

    task, rng = QuadraticTask(hessian=np.eye(3), centre=np.zeros(3), covariance=np.eye(3)), np.random.default_rng(0)
    train, fresh = split_of(task.sample(20, rng)), split_of(task.sample(20, rng))
    recipe = Recipe(learning_rate=0.05, batch_size=4, steps=30, sampling="with_replacement")

    def measured(**where: Any) -> StabilityTwins:
        twins = StabilityTwins(recipe, num_pairs=4, **where)
        return twins.fit(QuadraticObjective(task, np.zeros(3)), train, fresh)

    here = measured()
    ray.init(address=cluster.address, ignore_reinit_error=True, log_to_driver=False)
    register_ray()
    with parallel_config("ray"):
        there = measured(n_jobs=2)
    assert there.squared_distances_.tolist() == here.squared_distances_.tolist()


def test_a_cluster_that_does_not_answer_is_named_with_the_next_step(tmp_path, monkeypatch):
    pytest.importorskip("ray", reason="the extra 'ray' is not installed")
    import ray

    ws = open_workspace(
        write_project(tmp_path), tmp_path / "run", engine=EngineSettings(kind="ray", address="127.0.0.1:1")
    )

    def refuse(**options: object) -> None:
        raise ConnectionError("Could not find any running Ray instance")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", refuse)
    with pytest.raises(ValueError, match=r"address='127.0.0.1:1': the Ray cluster does not answer .* ray start --head"):
        open_workers(ws)
