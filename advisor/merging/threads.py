"""One computing thread a worker.

Two BLAS or torch threads on two busy cores were measured 50–100 times slower than one (small SVDs), so merging pins
every pool of this process to one thread while it runs and restores what it found.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]


@contextmanager
def single_threaded() -> Iterator[None]:
    """Pin BLAS, OpenMP and (if it is already loaded) torch to one thread; restore on the way out."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch is not None else 0
    with threadpool_limits(limits=1):
        if torch is not None:
            torch.set_num_threads(1)
        try:
            yield
        finally:
            if torch is not None:
                torch.set_num_threads(before)
