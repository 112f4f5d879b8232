r"""When a claim holds: parts, rules and level.

Every claim has *parts*; a part has one statistic, a number for each unit (network, seed), and a rule.  With [low, high]
the Student-t interval of the units' mean, ``ALPHA`` on either side:

    above t        holds: low > t;           does not hold: high < t;              otherwise not decidable
    below t        holds: high < t;          does not hold: low > t
    within (a, b)  holds: a < low, high < b; does not hold: high < a or low > b

A part is judged on all units together and on each network's own; where two networks contradict each other it is not
decidable.  A claim holds if all its parts of role ``claim`` hold, and does not hold if one of them does not.  Parts of
role ``prediction`` judge the fitted bound in the same way and make a verdict of their own; those of role ``side`` are
only shown.  Fewer than ``LEAST_SEEDS`` seeds of a network, or a statistic that is not a finite number, decide nothing.

Logarithms are natural unless the name says otherwise; N is the number of merged tasks, K steps, r risk in nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Rule = Literal["above", "below", "within"]
Role = Literal["claim", "prediction", "side"]

ALPHA = 0.05  # on either side of an interval
LEAST_SEEDS = 3
DIVERGED_RISK = 10.0  # nats that a merge counts with whose risk is larger or no number
TURN = 0.02  # log risk: a series has turned if its last point is so much above its best


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One measurable statement of a claim.

    Attributes:
        key: name, unique in its claim.
        statement: what is said, in words.
        statistic: what is computed for each unit, in words.
        rule: how the interval is compared.
        low: threshold of ``above`` and ``below``, lower end of ``within``.
        high: upper end of ``within``.
        role: what the part decides.
    """

    key: str
    statement: str
    statistic: str
    rule: Rule
    low: float
    high: float = math.nan
    role: Role = "claim"

    def __post_init__(self) -> None:
        """A band needs two ends."""
        if self.rule == "within" and not self.low < self.high:
            raise ValueError(f"low={self.low}, high={self.high} of part {self.key!r} must increase; give a band")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A claim of the theory.

    Attributes:
        number: as in ``docs/theory.md``.
        title: a few words.
        statement: what is claimed.
        parts: what is measured.
    """

    number: int
    title: str
    statement: str
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        """Keys are unique and something decides."""
        keys = [part.key for part in self.parts]
        if len(set(keys)) != len(keys) or not any(part.role == "claim" for part in self.parts):
            raise ValueError(f"parts={keys} of claim {self.number} must have unique keys and one of role 'claim'")
