"""The seam between merge operators and the engines that feed them.

An operator maps task vectors to one merged task vector, tensor by tensor:

    x_avg = x₀ + Π(c₁, τ₁, ..., c_N, τ_N),        τ_t = x_t − x₀        (docs/merging.md)

| symbol | code word | shape |
|---|---|---|
| x₀ | `base` | `[n]` (one tensor, or one block of it, flattened) |
| τ_t | `vectors` | `[N, n]` |
| c_t | `coefficients` | `[N]` |

Working on τ makes two invariants exact: zero coefficients return the base bit for bit, and equal experts
give back their own task vector. An operator is a frozen value with one function; nothing is inherited.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from advisor.merging.number_formats import FloatArray

Coefficients = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorVectors:
    """One tensor (or, for elementwise operators, one block of it) as an operator sees it.

    `vectors` belongs to the operator, which may overwrite it; `base` must be left alone.
    `key` names the source of chance: tied tensors share it, so that they stay equal.
    """

    name: str
    key: str
    shape: tuple[int, ...]
    base: FloatArray
    vectors: FloatArray
    coefficients: Coefficients
    labels: tuple[str, ...]
    seed: int

    def scaled(self) -> FloatArray:
        """c_t τ_t, shape [N, n], in place of `vectors`."""
        factors = self.coefficients.astype(self.vectors.dtype)[:, None]
        return np.multiply(self.vectors, factors, out=self.vectors)

    def weighted_sum(self) -> FloatArray:
        """Σ c_t τ_t, shape [n], in place of `vectors`: fresh memory would cost more time than the sum itself.

        Added term by term, so that results equal those of other tools to the last bit.
        """
        total: FloatArray = self.scaled()[0]
        for vector in self.vectors[1:]:
            total += vector
        return total

    def weighted_mean(self) -> FloatArray:
        """(1/N) Σ c_t τ_t, shape [n]."""
        total = self.weighted_sum()
        total /= total.dtype.type(len(self.labels))
        return total

    def generator(self, label: str) -> np.random.Generator:
        """Chance for (seed, tensor, expert): the same for any order of experts and any number of workers."""
        digest = hashlib.sha256(f"{self.seed}\0{self.key}\0{label}".encode()).digest()
        return np.random.Generator(np.random.SFC64(list(digest)))


Blocks = Callable[[], Iterator[TensorVectors]]
WeightRule = Literal["scale", "normalize", "equal"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One merge operator with its options bound.

    Attributes:
        name: the name in `OPERATORS`.
        merge: merged task vector [n] of one tensor.
        weights: "scale": c_t multiplies τ_t; "normalize": only c_t / Σ c matters; "equal": takes none.
        default_coefficient: c_t where the caller gives none (source: the operator's module).
        rest: the linear rule for tensors outside the operator's reach (BatchNorm statistics, and
            non-matrix tensors of matrix methods): "sum" is Σ c_t τ_t, "mean" is (1/N) Σ c_t τ_t.
        elementwise: `merge` may be called on blocks of a tensor.
        passes: how often the inputs are read.
        survey: for `passes` > 1: reads all blocks and returns the operator with what it learned bound.
        options: the bound options, as they appear in the model card.
    """

    name: str
    merge: Callable[[TensorVectors], FloatArray]
    weights: WeightRule = "scale"
    default_coefficient: float = 1.0
    rest: Literal["sum", "mean"] = "sum"
    elementwise: bool = False
    passes: int = 1
    survey: "Callable[[Blocks], Operator] | None" = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if (self.passes > 1) != (self.survey is not None):
            raise ValueError(f"passes={self.passes}: a survey is given exactly when more than one pass is needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorEntry:
    """A row of `OPERATORS`: what a reader needs before options are bound."""

    name: str
    summary: str
    reference: str
    build: Callable[..., Operator]
    needs_data: bool = False


def resolve_coefficients(
    operator: Operator,
    labels: Sequence[str],
    coefficients: Sequence[float] | Mapping[str, float] | float | None,
) -> Coefficients:
    """Coefficients [N] in the order of `labels`, with the operator's default and rule applied.

    Raises:
        ValueError: wrong names or count, a value that is not finite, or weights that do not sum to more than zero.
    """
    count = len(labels)
    if operator.weights == "equal" and coefficients is not None:
        raise ValueError(
            f"coefficients={coefficients!r}: method={operator.name!r} weighs all experts alike; "
            "leave coefficients out or choose another method"
        )
    values: list[float]
    if coefficients is None:
        values = [operator.default_coefficient] * count
    elif isinstance(coefficients, Mapping):
        if set(coefficients) != set(labels):
            raise ValueError(
                f"coefficients for {sorted(coefficients)}, experts are {sorted(labels)}: name each expert once"
            )
        values = [float(coefficients[label]) for label in labels]
    elif isinstance(coefficients, (int, float)):
        values = [float(coefficients)] * count
    else:
        values = [float(value) for value in coefficients]
    if len(values) != count:
        raise ValueError(f"coefficients={values}: {len(values)} given for {count} experts; give one for each expert")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"coefficients={values}: every coefficient must be finite")
    resolved = np.array(values, dtype=np.float64)
    if operator.weights == "scale":
        return resolved
    if not (resolved.sum() > 0 and bool(np.all(resolved >= 0))):
        raise ValueError(
            f"coefficients={values}: method={operator.name!r} takes shares: none below 0, and a sum above 0"
        )
    normalized: Coefficients = resolved / resolved.sum()
    return normalized
