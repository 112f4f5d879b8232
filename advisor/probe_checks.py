"""Whether probes can determine a risk model: refuse those that cannot, and say what would be enough."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from advisor.observations import MergeObservation, ProbeData

MIN_MERGES = 3  # fewest usable merges that a fit starts from


class TooFewProbes(ValueError):  # noqa: N818 - an outcome, named after what happened
    """The probes cannot determine the model; the message says what would be enough."""


class ProbesDiverged(ValueError):  # noqa: N818
    """Every probe diverged or was thrown far above the initial risk."""


class ContradictoryProbes(ValueError):  # noqa: N818
    """Two measurements of the same merge disagree by far more than their noise."""


def check_probes(probes: ProbeData) -> None:
    """Refuse probes that cannot determine the model, saying what would be enough."""
    if len(probes.merges) == 0:
        raise TooFewProbes(
            f"merges=[] hold no measured merge; {MIN_MERGES} merges of one probe at different coefficients are enough "
            "to start"
        )
    usable = [merge for merge in probes.merges if any(np.isfinite(risk) for risk in merge.risks.values())]
    rates = [recipe.learning_rate for merge in probes.merges for recipe in merge.plan.recipes.values()]
    if not usable or all(_thrown(merge) for merge in usable):
        raise ProbesDiverged(
            f"all {len(probes.merges)} probe merges diverged or more than doubled every task's risk "
            f"(learning rates {min(rates):.3g} to {max(rates):.3g}); probe at {min(rates) / 10:.3g} and below, warm "
            "up, or change the optimizer"
        )
    coefficients = {tuple(merge.plan.coefficients.values()) for merge in usable}
    if len(usable) < MIN_MERGES or len(coefficients) < 2:
        raise TooFewProbes(
            f"{len(usable)} usable merges at {len(coefficients)} different coefficients; at least {MIN_MERGES} merges "
            "at 2 or more coefficients are needed: merge each probe at, say, 0.5, 1, 2 and 3"
        )
    unseen = [
        name
        for name in probes.constants.names
        if sum(np.isfinite(merge.risks.get(name, np.inf)) for merge in usable) < 2
    ]
    if unseen:
        raise TooFewProbes(
            f"tasks {unseen} were evaluated on fewer than 2 merges; evaluate each task on at least 2, at different "
            "coefficients"
        )
    _check_repeats(usable)


def _thrown(merge: MergeObservation) -> bool:
    return all(risk > 2 * merge.initial_risks[name] for name, risk in merge.risks.items())


def _check_repeats(merges: Sequence[MergeObservation]) -> None:
    seen: dict[tuple[Any, ...], float] = {}
    noises: dict[tuple[Any, ...], float] = {}
    for merge in merges:
        plan = merge.plan
        key = (tuple(plan.recipes.items()), tuple(plan.coefficients.items()), plan.method, merge.seed)
        for name, risk in merge.risks.items():
            change, noise = risk - merge.initial_risks[name], merge.noise[name]
            cell = (*key, name)
            if cell in seen and abs(change - seen[cell]) > 6 * np.hypot(noise, noises[cell]) + 1e-6:
                raise ContradictoryProbes(
                    f"task {name!r}: the same merge (seed {merge.seed}) changed the risk by {change:+.4g} and by "
                    f"{seen[cell]:+.4g}, standard error {noise:.2g}; measure it again or give the runs their own seeds"
                )
            seen[cell], noises[cell] = change, noise
