r"""The meter of units: what everything costs, counted and not timed.

One unit is one per-sample gradient (forward and backward).  A forward pass counts 1/3 and a Hessian-vector product 4,
each per sample (``docs/protocol.md``), so the figure is the same on every machine.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

FORWARD_UNITS = 1.0 / 3.0
HESSIAN_PRODUCT_UNITS = 4.0
REFERENCE_BATCH = 32  # one full fine-tune of all tasks = N * K_max * 32 units


class CostMeter:
    """Counts samples times passes, split by purpose.

    >>> meter = CostMeter()
    >>> with meter.purpose("probes"):
    ...     meter.add(gradients=32)
    ...     meter.add(forwards=30)
    >>> meter.units
    42.0
    >>> meter.by_purpose()
    {'probes': 42.0}
    """

    def __init__(self) -> None:
        self._gradients: dict[str, float] = defaultdict(float)
        self._forwards: dict[str, float] = defaultdict(float)
        self._hessian_products: dict[str, float] = defaultdict(float)
        self._purpose = "other"

    @contextmanager
    def purpose(self, name: str) -> Iterator[CostMeter]:
        """Book what is counted inside the block under ``name``."""
        before, self._purpose = self._purpose, name
        try:
            yield self
        finally:
            self._purpose = before

    def add(self, *, gradients: float = 0, forwards: float = 0, hessian_products: float = 0) -> None:
        """Count samples that went through a gradient, a forward pass or a Hessian-vector product."""
        self._gradients[self._purpose] += gradients
        self._forwards[self._purpose] += forwards
        self._hessian_products[self._purpose] += hessian_products

    def add_units(self, purpose: str, units: float) -> None:
        """Book units that were counted elsewhere (another process, a stored probe)."""
        self._gradients[purpose] += units

    def counts(self) -> dict[str, float]:
        """Everything counted so far, as :meth:`add` takes it."""
        return {
            "gradients": sum(self._gradients.values()),
            "forwards": sum(self._forwards.values()),
            "hessian_products": sum(self._hessian_products.values()),
        }

    def to_json(self) -> dict[str, dict[str, float]]:
        """Everything counted so far, by purpose, for :meth:`absorb`."""
        return {
            "gradients": dict(self._gradients),
            "forwards": dict(self._forwards),
            "hessian_products": dict(self._hessian_products),
        }

    def absorb(self, counted: Mapping[str, Mapping[str, float]]) -> None:
        """Add what another meter counted, purpose by purpose."""
        for name, mine in (
            ("gradients", self._gradients),
            ("forwards", self._forwards),
            ("hessian_products", self._hessian_products),
        ):
            for purpose, count in counted[name].items():
                mine[purpose] += count

    @property
    def units(self) -> float:
        """Everything counted so far, in per-sample gradients."""
        return sum(self.by_purpose().values())

    def by_purpose(self) -> dict[str, float]:
        """Units for each purpose, in order of first use."""
        names = dict.fromkeys((*self._gradients, *self._forwards, *self._hessian_products))
        return {
            name: self._gradients[name]
            + FORWARD_UNITS * self._forwards[name]
            + HESSIAN_PRODUCT_UNITS * self._hessian_products[name]
            for name in names
        }


def full_fine_tune_units(num_tasks: int, max_steps: int) -> float:
    """Cost of one full fine-tune of all tasks, N * K_max * 32 units (``docs/protocol.md``).

    >>> full_fine_tune_units(4, 640)
    81920.0
    """
    if num_tasks < 1 or max_steps < 1:
        raise ValueError(f"num_tasks={num_tasks} and max_steps={max_steps} must be at least 1; check the project")
    return float(num_tasks * max_steps * REFERENCE_BATCH)
