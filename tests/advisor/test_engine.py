"""An engine gives every job to a living worker, streams results back, and changes nothing in them."""

import os
import signal
import time
from pathlib import Path

import pytest

from advisor.engine import EngineSettings, LocalPool, WorkerLost, open_pool


class Shared:
    """Something to share that notes on how many workers it was made ready."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on(self, device: str) -> "Shared":
        (self.folder / f"ready-{os.getpid()}").write_text(device)
        return self


def square(shared: Shared, job: int) -> int:
    return job * job


def square_once_all_are_ready(shared: Shared, job: int) -> int:
    """Else one quick worker may do all jobs before the other has started."""
    given_up = time.monotonic() + 120
    while len(list(shared.folder.glob("ready-*"))) < 2 and time.monotonic() < given_up:
        time.sleep(0.02)
    return job * job


def die_once(shared: Shared, job: int) -> int:
    """The first worker that gets job 2 is killed, as by the system when memory runs out."""
    mark = shared.folder / f"tried-{job}"
    (shared.folder / f"call-{job}-{time.monotonic_ns()}").touch()
    if job == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return job * job


def die(shared: Shared, job: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def fail(shared: Shared, job: int) -> int:
    if job == 1:
        raise KeyError(f"job {job} cannot be done")
    return job


def wait_long(shared: Shared, job: int) -> int:
    time.sleep(30)
    return job


def go_on() -> None:
    """Nobody asks to stop."""


@pytest.fixture
def pool(tmp_path):
    with LocalPool(Shared(tmp_path), slots=("cpu", "meta"), threads=1) as pool:
        yield pool


def test_every_job_is_done_once_and_workers_are_made_ready_once_each_on_their_device(pool, tmp_path):
    found = dict(pool.run(square_once_all_are_ready, list(range(12)), watch=go_on))
    assert found == {n: n * n for n in range(12)}
    assert dict(pool.run(square, [5], watch=go_on)) == {0: 25}
    ready = [path.read_text() for path in tmp_path.glob("ready-*")]
    assert sorted(ready) == ["cpu", "meta"]


def test_a_lost_worker_loses_no_job(pool, tmp_path):
    assert dict(pool.run(die_once, list(range(6)), watch=go_on)) == {n: n * n for n in range(6)}
    assert len(list(tmp_path.glob("call-2-*"))) == 2


def test_jobs_that_kill_every_worker_are_given_up_with_the_next_step(pool):
    with pytest.raises(WorkerLost, match=r"workers died 3 times with 2 jobs left .* give fewer --workers"):
        list(pool.run(die, [0, 1], watch=go_on))
    assert dict(pool.run(square, [3], watch=go_on)) == {0: 9}


def test_what_a_job_raises_reaches_the_caller(pool):
    with pytest.raises(KeyError, match="job 1 cannot be done"):
        list(pool.run(fail, [1], watch=go_on))


def test_a_request_to_stop_ends_the_workers_at_once(pool):
    began = time.monotonic()

    def stop() -> None:
        if time.monotonic() - began > 1:
            raise InterruptedError("asked to stop")

    with pytest.raises(InterruptedError, match="asked to stop"):
        list(pool.run(wait_long, [0, 1, 2], watch=stop))
    assert time.monotonic() - began < 25  # shorter than one job


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"kind": "cluster"}, "engine='cluster' is not one of in-process, processes, ray"),
        ({"kind": "processes", "workers": 0}, "workers=0 must be at least 1"),
        ({"workers": 2}, "workers=2 needs engine='processes' or 'ray'"),
        ({"kind": "processes", "address": "a:1"}, "address='a:1' needs engine='ray'"),
        ({"kind": "ray", "devices": ("cuda:0",)}, "devices=.* needs engine='processes'"),
        ({"kind": "ray", "gpus": -1.0}, "gpus=-1.0 must be at least 0"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, text):
    with pytest.raises(ValueError, match=text):
        EngineSettings(**settings)


def test_an_engine_in_this_process_needs_no_pool(tmp_path):
    with pytest.raises(ValueError, match="needs no pool"):
        open_pool(EngineSettings(), Shared(tmp_path), device="cpu", threads=1)


def test_ray_without_gpus_beside_a_parent_with_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="pass --gpus 1"):
        open_pool(EngineSettings(kind="ray"), Shared(tmp_path), device="cuda:0", threads=1)


def test_workers_take_devices_in_turn():
    assert EngineSettings(kind="processes", workers=2).slots("cpu") == ("cpu", "cpu")
    assert EngineSettings(kind="processes", devices=("cuda:0", "cuda:1")).slots("cpu") == ("cuda:0", "cuda:1")
