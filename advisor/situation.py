r"""What an advice starts from: everything about a project that the fitted model does not hold itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from advisor.advice import Caveat
from advisor.plan import Plan
from advisor.probing import Probe
from advisor.project_search import SearchSettings
from estimators.constants import Constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What an advice starts from.

    Attributes:
        search: the project's search settings.
        methods: merge methods to choose from.
        constants: measured constants.
        probes: the probes that were run.
        num_samples: task -> training samples.
        range_suggestion: learning rate of the range test, or ``None``.
        notes: what was noted while data and backbone were prepared.
        broken_assumptions: plan -> (name, sentence) of the theorem's broken conditions.
        cost: purpose -> units spent so far.
        seconds: wall seconds spent so far.
        full_fine_tune: units of one full fine-tune of all tasks.
        affordable: units left for training, or ``None``.
        left_out: what of the search space was left out, and why.
    """

    search: SearchSettings
    methods: tuple[str, ...]
    constants: Constants
    probes: Sequence[Probe]
    num_samples: Mapping[str, int]
    range_suggestion: float | None
    notes: Sequence[str]
    broken_assumptions: Callable[[Plan], Sequence[tuple[str, str]]]
    cost: Mapping[str, float]
    seconds: float
    full_fine_tune: float
    affordable: float | None = None
    left_out: tuple[Caveat, ...] = ()
