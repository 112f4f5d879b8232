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
from estimators.datasets import shortened

SHOWN = 3  # of a list in a caveat; the others are counted
FEW_MERGES = 8  # measured merges below which an advice rests on the priors more than on the probes
RANGE_TEST_DISAGREEMENT = 10.0  # factor between the advised rate and the range test's


def find_caveats(
    plan: Plan,
    *,
    constants: Constants,
    probes: Sequence[Probe],
    gain: Predicted,
    extrapolation: float,
    edges_of_space: Iterable[tuple[str, str]],
    range_suggestion: float | None,
    notes: Sequence[str] = (),
    left_out: Sequence[Caveat] = (),
    broken_assumptions: Sequence[tuple[str, str]] = (),
) -> tuple[Caveat, ...]:
    """All caveats of an advice, warnings first.

    Args:
        plan: the advised plan.
        constants: measured constants.
        probes: the probes that were run.
        gain: predicted fall of the goal risk below x_0.
        extrapolation: factor beyond the longest probe.
        edges_of_space: (knob, low|high) of knobs on the edge of the search space.
        range_suggestion: learning rate of the range test, or ``None``.
        notes: what was noted while data and backbone were prepared.
        left_out: what of the search space was left out, and why.
        broken_assumptions: (name, sentence) of the theorem's broken conditions.
    """
    found = [
        *_edges(edges_of_space),
        *_extrapolation(extrapolation),
        *_identifiability(constants),
        *_interval(gain),
        *_few_merges(probes),
        *_probes(probes),
        *left_out,
        *_range_test(plan, range_suggestion),
        *(Caveat(name="preparation", text=note) for note in notes),
        *(Caveat(name=f"theorem: {name}", text=text) for name, text in broken_assumptions),
    ]
    return tuple(sorted(found, key=lambda caveat: caveat.weight != "warning"))


def _edges(edges: Iterable[tuple[str, str]]) -> list[Caveat]:
    found = list(edges)
    caveats = []
    for side, end in (("low", "smallest"), ("high", "largest")):
        knobs = [knob.replace("_", " ") for knob, where in found if where == side]
        if knobs:
            verb = "is" if len(knobs) == 1 else "are"
            text = f"The best {_listed(knobs)} found {verb} the {end} that the search allows"
            caveats.append(Caveat(name="optimum_on_the_edge", text=f"{text}: a wider range could hold a better plan."))
    return caveats


def _listed(words: Sequence[str]) -> str:
    """Words in a sentence.

    >>> _listed(["a", "b", "c"])
    'a, b and c'
    """
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


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
    missing: dict[tuple[str, str], list[str]] = {}
    for task, values in constants.tasks.items():
        for name, estimate in values.measured().items():
            if not estimate.identifiable:
                reason = estimate.note or "interval too wide"
                missing.setdefault((name.replace("_", " "), reason), []).append(task)
    if not missing:
        return []
    every = len(constants.tasks)
    # the gradient variance first: it alone is a warning
    listed = sorted(missing.items(), key=lambda item: item[0][0] != "gradient variance")
    texts = [
        f"{name} of {'every task' if len(tasks) == every > 1 else shortened(tasks)} ({reason})"
        for (name, reason), tasks in listed[:SHOWN]
    ]
    more = f"; and {len(listed) - SHOWN} more, marked in the table of constants" if len(listed) > SHOWN else ""
    variance = any(name == "gradient variance" for name, _ in missing)
    return [
        Caveat(
            name="constants_not_identified",
            text=f"Not determined by the samples that the budget paid for: {'; '.join(texts)}{more}.",
            weight="warning" if variance else "info",
        )
    ]


def _interval(gain: Predicted) -> list[Caveat]:
    if gain.low > 0:
        return []
    return [
        Caveat(
            name="gain_uncertain",
            text=f"The interval of the gain [{gain.low:.3f}, {gain.high:.3f}] reaches 0: the merge may be no "
            "better than the pretrained model.",
            weight="warning",
        )
    ]


def _few_merges(probes: Sequence[Probe]) -> list[Caveat]:
    count = sum(not merge.diverged for probe in probes for merge in probe.merges)
    if not probes or count >= FEW_MERGES:
        return []
    return [
        Caveat(
            name="few_measurements",
            text=f"The advice rests on {count} measured merges of {len(probes)} short probe{'s' * (len(probes) > 1)}, "
            f"fewer than {FEW_MERGES}: what other projects taught weighs more than this one's figures. A larger "
            "budget.probe_share, or longer runs in the search, pay for more.",
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
    more = f"; and {len(diverged) - SHOWN} more" if len(diverged) > SHOWN else ""
    text = f"{len(diverged)} probe runs diverged: {'; '.join(diverged[:SHOWN])}{more}."
    return [Caveat(name="probes_diverged", text=text)]


def _range_test(plan: Plan, suggestion: float | None) -> list[Caveat]:
    rates: Mapping[str, float] = {
        name: recipe.learning_rate
        for name, recipe in plan.recipes.items()
        if recipe.optimizer == "sgd" and plan.coefficients[name] > 0
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
