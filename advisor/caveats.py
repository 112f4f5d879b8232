r"""The limits of an advice, each as a named caveat with its numbers, warnings first.

A *warning* lowers the status from advise to caution; *info* only informs.  The theorem's broken assumptions
(``advisor.validity``) always inform: they never decide the status alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from advisor.advice import Caveat, Predicted
from advisor.plan import Plan
from advisor.probing import Probe
from advisor.status import EXTRAPOLATION_LIMIT
from estimators.constants import Constants

RANGE_TEST_DISAGREEMENT = 10.0  # factor between the advised rate and the range test's


def find_caveats(
    plan: Plan,
    *,
    constants: Constants,
    probes: Sequence[Probe],
    goal: Predicted,
    initial_goal: float,
    extrapolation: float,
    edges_of_space: Iterable[tuple[str, str]],
    range_suggestion: float | None,
    notes: Sequence[str] = (),
    broken_assumptions: Sequence[tuple[str, str]] = (),
) -> tuple[Caveat, ...]:
    """All caveats of an advice, warnings first.

    Args:
        plan: the advised plan.
        constants: measured constants.
        probes: the probes that were run.
        goal: prediction of the plan.
        initial_goal: goal risk of x_0.
        extrapolation: factor beyond the longest probe.
        edges_of_space: (knob, low|high) of knobs on the edge of the search space.
        range_suggestion: learning rate of the range test, or ``None``.
        notes: what was noted while data and backbone were prepared.
        broken_assumptions: (name, sentence) of the theorem's broken conditions.
    """
    found = [
        *_edges(edges_of_space),
        *_extrapolation(extrapolation),
        *_identifiability(constants),
        *_interval(goal, initial_goal),
        *_probes(probes),
        *_range_test(plan, range_suggestion),
        *(Caveat(name="preparation", text=note) for note in notes),
        *(Caveat(name=f"theorem: {name}", text=text) for name, text in broken_assumptions),
    ]
    return tuple(sorted(found, key=lambda caveat: caveat.weight != "warning"))


def _edges(edges: Iterable[tuple[str, str]]) -> list[Caveat]:
    return [
        Caveat(
            name="optimum_on_the_edge",
            text=f"The best {knob.replace('_', ' ')} found is the {'smallest' if side == 'low' else 'largest'} that "
            "the search allows: a wider range could hold a better one.",
        )
        for knob, side in edges
    ]


def _extrapolation(factor: float) -> list[Caveat]:
    if factor <= 1.0:
        return []
    far = factor > EXTRAPOLATION_LIMIT
    return [
        Caveat(
            name="extrapolation",
            text=f"The plan lies a factor {factor:.3g} beyond what the probes saw"
            + (f" (limit for unreserved advice: {EXTRAPOLATION_LIMIT:.0f})." if far else "."),
            weight="warning" if far else "info",
        )
    ]


def _identifiability(constants: Constants) -> list[Caveat]:
    missing = [
        f"{name.replace('_', ' ')} of {task} ({estimate.note or 'interval too wide'})"
        for task, values in constants.tasks.items()
        for name, estimate in values.measured().items()
        if not estimate.identifiable
    ]
    if not missing:
        return []
    shown = "; ".join(missing[:3]) + (f"; and {len(missing) - 3} more" if len(missing) > 3 else "")
    variance = any(text.startswith("gradient variance") for text in missing)
    return [
        Caveat(
            name="constants_not_identified",
            text=f"Not determined by the samples that the budget paid for: {shown}.",
            weight="warning" if variance else "info",
        )
    ]


def _interval(goal: Predicted, initial_goal: float) -> list[Caveat]:
    if goal.high < initial_goal:
        return []
    return [
        Caveat(
            name="gain_uncertain",
            text=f"The interval [{goal.low:.3f}, {goal.high:.3f}] reaches the pretrained model's {initial_goal:.3f}: "
            "the merge may be no better.",
            weight="warning",
        )
    ]


def _probes(probes: Sequence[Probe]) -> list[Caveat]:
    diverged = [
        f"{probe.recipe.describe()} on {task}"
        for probe in probes
        for task, outcome in probe.outcomes.items()
        if outcome == "diverged"
    ]
    if not diverged:
        return []
    return [Caveat(name="probes_diverged", text=f"{len(diverged)} probe runs diverged: {'; '.join(diverged[:3])}.")]


def _range_test(plan: Plan, suggestion: float | None) -> list[Caveat]:
    rates: Mapping[str, float] = {
        name: recipe.learning_rate for name, recipe in plan.recipes.items() if recipe.optimizer == "sgd"
    }
    if suggestion is None or not rates:
        return []
    ratios = [max(rate / suggestion, suggestion / rate) for rate in rates.values()]
    if max(ratios) <= RANGE_TEST_DISAGREEMENT:
        return []
    return [
        Caveat(
            name="range_test_disagrees",
            text=f"A learning-rate range test suggests {suggestion:.3g}, a factor {max(ratios):.0f} from the advised "
            "rate; the range test looks at the first steps of training alone, not at the merge.",
        )
    ]
