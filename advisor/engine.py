r"""Where independent jobs run: in this process, in local processes (loky, the pool of joblib), or on a Ray cluster.

A pool is opened around what all jobs share (backbone, heads, data); each worker makes that ready once, on its own
share of the devices, and then does one job after another.  Results come back to the caller as they are finished, who is
the one that writes.  A job is a pure function of what is shared and of itself, so where and when it ran changes
nothing; a job whose worker died is given to another.
"""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, Self, get_args

EngineKind = Literal["in-process", "processes", "ray"]
POLL_SECONDS = 0.2
MOST_LOSSES = 3  # a job whose worker died so often is not tried again

Job = Callable[[Any, Any], Any]  # (what was made ready on the worker, the job) -> its result


class WorkerLost(RuntimeError):
    """Workers died again and again on the same jobs."""


class Shared(Protocol):
    """What all jobs share; it travels to each worker once."""

    def on(self, device: str) -> Any:
        """Make it ready on a worker's device."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Which engine, and how many workers.

    Attributes:
        kind: ``in-process``, ``processes`` or ``ray``.
        workers: how many; by default one a device, or one a core.
        devices: devices of local processes, taken in turn; by default every CUDA device, or the CPU.
        address: of a Ray cluster; by default a local one is started.
        gpus: GPUs that one job takes on Ray, may be a fraction.
    """

    kind: EngineKind = "in-process"
    workers: int | None = None
    devices: tuple[str, ...] = ()
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.kind not in get_args(EngineKind):
            raise ValueError(
                f"engine={self.kind!r} is not one of {', '.join(get_args(EngineKind))}; choose one of them"
            )
        if self.workers is not None and not self.workers >= 1:
            raise ValueError(f"workers={self.workers} must be at least 1; leave it out for one a device or core")
        if not self.gpus >= 0:
            raise ValueError(f"gpus={self.gpus} must be at least 0; 0.5 lets two jobs share a GPU")
        for name, kind in (("address", "ray"), ("gpus", "ray"), ("devices", "processes")):
            if getattr(self, name) and self.kind != kind:
                raise ValueError(f"{name}={getattr(self, name)!r} needs engine={kind!r}, not {self.kind!r}; add it")
        if self.kind == "in-process" and self.workers not in (None, 1):
            raise ValueError(f"workers={self.workers} needs engine='processes' or 'ray'; add --engine processes")

    def slots(self, default_device: str) -> tuple[str, ...]:
        """The device of each local worker.

        >>> EngineSettings(kind="processes", workers=3, devices=("cuda:0", "cuda:1")).slots("cpu")
        ('cuda:0', 'cuda:1', 'cuda:0')
        """
        devices = self.devices or _all_of(default_device)
        default = len(devices) if devices != ("cpu",) else (os.cpu_count() or 1)
        count = self.workers if self.workers is not None else default
        return tuple(devices[number % len(devices)] for number in range(count))


class Pool(Protocol):
    """An open engine."""

    def run(self, function: Job, jobs: Sequence[Any], *, watch: Callable[[], None]) -> Iterator[tuple[int, Any]]:
        """Positions and results of jobs as they finish; ``watch`` is called while waiting and may raise to stop."""
        ...

    def close(self) -> None:
        """End the workers."""
        ...


class LocalPool:
    """Local processes; a context that ends them.

    Args:
        shared: what all jobs share.
        slots: the device of each worker.
        threads: torch threads of each, which sums round by.
    """

    def __init__(self, shared: Shared, *, slots: Sequence[str], threads: int) -> None:
        self._shared, self._slots, self._threads = shared, tuple(slots), threads
        self._leases = tempfile.TemporaryDirectory(prefix="merge-advisor-")
        self._executor: Any = None

    def run(self, function: Job, jobs: Sequence[Any], *, watch: Callable[[], None]) -> Iterator[tuple[int, Any]]:
        """Positions and results of jobs as they finish.

        Raises:
            WorkerLost: if workers died ``MOST_LOSSES`` times while the same jobs were left.
        """
        left, losses = list(range(len(jobs))), 0
        try:
            while left:
                try:
                    waiting = {self._submit(function, jobs[place]): place for place in left}
                    for place, result in _as_finished(waiting, watch):
                        left.remove(place)
                        losses = 0
                        yield place, result
                except BrokenExecutor:  # a worker died, and with it the pool: the jobs that are left get new workers
                    losses += 1
                    self._end()
                    if losses >= MOST_LOSSES:
                        raise WorkerLost(_lost(len(left), losses)) from None
        except BaseException:
            self._end()  # work that nobody waits for any more
            raise

    def close(self) -> None:
        """End the workers."""
        self._end()
        self._leases.cleanup()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers."""
        self.close()

    def _submit(self, function: Job, job: Any) -> Future[Any]:
        if self._executor is None:
            from joblib.externals.loky.process_executor import ProcessPoolExecutor

            self._executor = ProcessPoolExecutor(
                max_workers=len(self._slots),
                initializer=_begin_worker,
                initargs=(self._shared, self._slots, self._leases.name, self._threads),
                env={"OMP_NUM_THREADS": str(self._threads)},
            )
        found: Future[Any] = self._executor.submit(_call, function, job)
        return found

    def _end(self) -> None:
        if self._executor is not None:
            executor, self._executor = self._executor, None
            with suppress(OSError):
                executor.shutdown(wait=True, kill_workers=True)


def open_pool(settings: EngineSettings, shared: Shared, *, device: str, threads: int) -> Pool:
    """An engine's workers.

    Args:
        settings: which engine.
        shared: what all jobs share.
        device: where the caller computes.
        threads: torch threads of a worker: as many as the caller's, since sums round by their number.
    """
    if settings.kind == "ray":
        if device.startswith("cuda") and settings.gpus == 0:
            raise ValueError(
                "engine='ray' gives its jobs no GPU while this process computes on one, and numbers would differ; pass "
                "--gpus 1 (or a share of one), or --device cpu"
            )
        from advisor.engine_ray import RayPool

        return RayPool(shared, settings, threads=threads, on_gpu=settings.gpus > 0)
    if settings.kind == "processes":
        return LocalPool(shared, slots=settings.slots(device), threads=threads)
    raise ValueError(f"engine={settings.kind!r} needs no pool; call the function itself")


_READY: dict[str, Any] = {}


def _begin_worker(shared: Shared, slots: Sequence[str], leases: str, threads: int) -> None:
    """Make a worker ready: its threads, its device, what jobs share."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent hears it and ends the workers
    if "torch" in sys.modules:  # it came with what is shared
        sys.modules["torch"].set_num_threads(threads)
    _READY["state"] = shared.on(slots[_lease(Path(leases), len(slots))])


def _lease(folder: Path, count: int) -> int:
    """The first slot that no living worker holds; the system gives it back when this process ends."""
    for _ in range(50):
        for number in range(count):
            descriptor = os.open(folder / str(number), os.O_RDWR | os.O_CREAT, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(descriptor)
            else:
                _READY["lease"] = descriptor
                return number
        time.sleep(0.1)
    return os.getpid() % count


def _call(function: Job, job: Any) -> Any:
    return function(_READY["state"], job)


def _as_finished(waiting: Mapping[Future[Any], int], watch: Callable[[], None]) -> Iterator[tuple[int, Any]]:
    """Positions with results."""
    pending = set(waiting)
    while pending:
        watch()
        done, pending = wait(pending, timeout=POLL_SECONDS, return_when=FIRST_COMPLETED)
        for future in sorted(done, key=lambda one: waiting[one]):
            yield waiting[future], future.result()


def _all_of(device: str) -> tuple[str, ...]:
    if not device.startswith("cuda"):
        return (device,)
    import torch

    return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))


def _lost(left: int, losses: int) -> str:
    return (
        f"workers died {losses} times with {left} jobs left (out of memory, or killed from outside); give fewer "
        "--workers or more memory and run the command again: everything finished is kept"
    )


def in_order(results: Iterator[tuple[int, Any]], count: int) -> list[Any]:
    """All results by position."""
    found = dict(results)
    return [found[place] for place in range(count)]
