r"""Jobs as Ray tasks (extra ``ray``): on a cluster by its address, or on a local one that is started for them.

What all jobs share is put into the object store once; a worker makes it ready when its first job comes.  Ray itself
gives a job whose worker or node died to another one, and sees to it that each has its share of the GPUs.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, Self

from advisor.engine import MOST_LOSSES, POLL_SECONDS, EngineSettings, Job, Shared, WorkerLost


class RayPool:
    """A Ray cluster as a pool; a context that ends what it started.

    Args:
        shared: what all jobs share.
        settings: address, workers and GPUs a job.
        threads: torch threads of each worker, which sums round by.
        on_gpu: whether workers compute on the GPU that Ray gives them.

    Raises:
        ValueError: if Ray is not installed or the cluster does not answer.
    """

    def __init__(self, shared: Shared, settings: EngineSettings, *, threads: int, on_gpu: bool) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise ValueError(
                "engine='ray' needs the package ray; install it with pip install 'merge-advisor[ray]'"
            ) from None
        self._ray: Any = ray
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, settings)
        self._key = uuid.uuid4().hex
        self._shared = ray.put(shared)
        self._threads, self._device = threads, "cuda" if on_gpu else "cpu"
        self._remote = ray.remote(
            num_cpus=1, num_gpus=settings.gpus, max_retries=MOST_LOSSES, scheduling_strategy="SPREAD"
        )(_call)
        self._most = settings.workers

    def run(self, function: Job, jobs: Sequence[Any], *, watch: Callable[[], None]) -> Iterator[tuple[int, Any]]:
        """Positions and results of jobs as they finish.

        Raises:
            WorkerLost: if a job's worker died more than ``MOST_LOSSES`` times.
        """
        ray, waiting = self._ray, list(range(len(jobs)))
        pending: dict[Any, int] = {}
        try:
            while waiting or pending:
                while waiting and len(pending) < (self._most or len(jobs)):
                    place = waiting.pop(0)
                    handle = [self._shared]  # inside a list it is fetched only where it is not ready yet
                    ref = self._remote.remote(handle, self._key, self._device, self._threads, function, jobs[place])
                    pending[ref] = place
                watch()
                done, _ = ray.wait(list(pending), num_returns=1, timeout=POLL_SECONDS)
                for ref in done:
                    place = pending.pop(ref)
                    yield place, self._result(ref)
        except BaseException:
            for ref in pending:
                with suppress(Exception):
                    ray.cancel(ref, force=True)
            raise

    def close(self) -> None:
        """Leave the cluster, if this pool joined it."""
        if self._started:
            self._ray.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Leave the cluster."""
        self.close()

    def _result(self, ref: Any) -> Any:
        errors = self._ray.exceptions
        deaths = (errors.WorkerCrashedError, errors.NodeDiedError, errors.OutOfMemoryError, errors.ObjectLostError)
        try:
            return self._ray.get(ref)
        except errors.RayTaskError as error:  # what the job itself raised
            raise error.cause from None
        except deaths as error:
            raise WorkerLost(
                f"a job's worker died more than {MOST_LOSSES} times ({type(error).__name__}); give the workers more "
                "memory and run the command again: everything finished is kept"
            ) from None


def _connect(ray: Any, settings: EngineSettings) -> None:
    local = {} if settings.address is not None else {"num_cpus": settings.workers or os.cpu_count()}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        ray.init(address=settings.address, log_to_driver=False, include_dashboard=None, **local)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"address={settings.address!r}: the Ray cluster does not answer ({' '.join(str(error).split())[:160]}); "
            "start it with ray start --head, or leave --address out for a local one"
        ) from error
    finally:
        for number, handler in handlers.items():  # Ray takes them; interruptions are ours to hear
            with suppress(ValueError):
                signal.signal(number, handler)


_READY: dict[str, Any] = {}


def _call(handle: Sequence[Any], key: str, device: str, threads: int, function: Job, job: Any) -> Any:
    """One job on a worker, which is made ready first where it is not."""
    if key not in _READY:
        import ray
        import torch

        torch.set_num_threads(threads)
        _READY.clear()  # of an earlier pool
        _READY[key] = ray.get(handle[0]).on(device)
    return function(_READY[key], job)
