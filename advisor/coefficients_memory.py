r"""What a tuning measured, kept on disk as it is measured, so that a stopped tuning goes on and measures nothing twice.

One safetensors file an answer in one folder, ``<key>.safetensors``, with the SHA-256 of its numbers; the key is a
digest of what was asked (who the experts and samples are, the operator, the coefficients).  The search is
deterministic: started again it asks the same questions, and those that were answered cost nothing.  A file that is
damaged or was not finished is measured again, and that is said.

    logits of a merge          S numbers, float32 where that loses nothing (they are computed so)
    a step over layer groups   goal and its G N derivatives
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from estimators.files import write_bytes_atomic

FloatArray = NDArray[np.float64]
Answer = Mapping[str, FloatArray]


@dataclass(slots=True, kw_only=True)
class MeasuredMemory:
    """Answers by question, in memory and, with a folder, on disk.

    Attributes:
        folder: where they are kept; ``None`` keeps them while the process runs.
        answers: what is known in this process.
        reused: how many came from the folder.
        damaged: names of files that could not be used.
    """

    folder: Path | None = None
    answers: dict[str, Answer] = field(default_factory=dict)
    reused: int = 0
    damaged: list[str] = field(default_factory=list)

    def find(self, key: str) -> Answer | None:
        """An answer, or ``None`` where there is none yet (or it cannot be used)."""
        if key not in self.answers and self.folder is not None:
            found = self._read(self.folder / f"{key}.safetensors")
            if found is not None:
                self.answers[key] = found
                self.reused += 1
        return self.answers.get(key)

    def keep(self, key: str, answer: Answer) -> None:
        """Keep an answer.

        Raises:
            StorageFailed: the folder cannot be written; the answers before it are kept.
        """
        self.answers[key] = answer
        if self.folder is None:
            return
        numbers = {name: _narrow(np.ascontiguousarray(values)) for name, values in answer.items()}
        data = safetensors.numpy.save(numbers, metadata={"sha256": _digest(numbers)})
        write_bytes_atomic(self.folder / f"{key}.safetensors", data)

    def _read(self, path: Path) -> Answer | None:
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="numpy") as file:
                numbers = {name: file.get_tensor(name) for name in sorted(file.keys())}
                whole = (file.metadata() or {}).get("sha256") == _digest(numbers)
        except (SafetensorError, OSError):
            whole = False
        if not whole:
            self.damaged.append(path.name)
            return None
        return {name: values.astype(np.float64) for name, values in numbers.items()}


def key_of(*parts: object) -> str:
    """Digest of a question; numbers count with all their digits.

    >>> key_of("ties", np.array([0.1, 0.2])) == key_of("ties", np.array([0.1, 0.2 + 1e-12]))
    False
    """
    digest = hashlib.sha256()
    for part in parts:
        data = np.asarray(part, dtype=np.float64).tobytes() if isinstance(part, np.ndarray) else str(part).encode()
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()[:40]


def _narrow(values: NDArray[np.floating]) -> NDArray[np.floating]:
    """The same numbers as float32 where they are."""
    with np.errstate(over="ignore"):
        short = values.astype(np.float32)
    return short if np.array_equal(short.astype(np.float64), values, equal_nan=True) else values


def _digest(numbers: Mapping[str, NDArray[np.floating]]) -> str:
    digest = hashlib.sha256()
    for name in sorted(numbers):
        digest.update(f"{name} {numbers[name].dtype} {numbers[name].shape}\0".encode())
        digest.update(numbers[name].tobytes())
    return digest.hexdigest()
