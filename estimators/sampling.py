"""Which samples each step sees: shuffled epochs, or draws with replacement (the theory's sampling).

The order is a pure function of (seed, task name, sampling, n, b, K): it does not depend on what ran before, on other
tasks, or on how runs are stacked.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from estimators.recipe import Sampling


def stable_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and in every process.

    >>> stable_seed(0, "a") == stable_seed(0, "a"), stable_seed(0, "a") == stable_seed(0, "b")
    (True, False)
    """
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def batch_indices(
    num_samples: int, batch_size: int, steps: int, *, sampling: Sampling, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Indices [K, B] of the training samples that each step sees.

    Shuffled epochs run on: a step may take the last samples of one epoch and the first of the next, so every sample is
    seen once before any is seen twice.

    Raises:
        ValueError: if a batch is larger than the data.
    """
    if batch_size > num_samples:
        raise ValueError(
            f"batch_size={batch_size} must not exceed the task's {num_samples} training samples; "
            "lower the batch size or add data"
        )
    total = steps * batch_size
    if sampling == "with_replacement":
        return generator.integers(0, num_samples, size=(steps, batch_size))
    epochs = -(-total // num_samples)
    order = np.concatenate([generator.permutation(num_samples) for _ in range(epochs)])
    return order[:total].reshape(steps, batch_size)
