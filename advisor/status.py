r"""The rule behind *advise*, *caution* and *refuse* (written for users in ``docs/status.md``).

With gain = r(x_0) - predicted goal and its 90 % interval [gain_low, gain_high], which leaves out the error of r(x_0)
that merge and x_0 share:

    refuse    gain <= MIN_GAIN r(x_0): nothing found is predicted to beat the pretrained model by a useful amount
    advise    gain_low > 0, the plan lies at most EXTRAPOLATION_LIMIT times beyond the probes, no warning weighs on it
    caution   everything else

The answer goes with it: ``do_not_merge`` where the status is refuse and the experts alone are no better than the merge,
``train_jointly`` where interference is predicted to eat more than JOINT_SHARE of what the experts gain on their own
tasks, else ``train_and_merge``.
"""

from __future__ import annotations

from collections.abc import Sequence

from advisor.advice import Answer, Caveat, Predicted, Status

MIN_GAIN = 0.01  # share of the pretrained model's goal risk
EXTRAPOLATION_LIMIT = 32.0  # factor in effective training time beyond the longest probe
JOINT_SHARE = 0.75


def decide_status(initial_goal: float, gain: Predicted, *, extrapolation: float, caveats: Sequence[Caveat]) -> Status:
    """The status by the rule above.

    >>> decide_status(1.0, Predicted(value=0.5, low=0.3, high=0.6), extrapolation=4, caveats=())
    'advise'
    >>> decide_status(1.0, Predicted(value=0.1, low=-0.1, high=0.3), extrapolation=4, caveats=())
    'caution'
    >>> decide_status(1.0, Predicted(value=0.005, low=-0.1, high=0.3), extrapolation=4, caveats=())
    'refuse'
    """
    if gain.value <= MIN_GAIN * initial_goal:
        return "refuse"
    warned = any(caveat.weight == "warning" for caveat in caveats)
    if gain.low > 0 and extrapolation <= EXTRAPOLATION_LIMIT and not warned:
        return "advise"
    return "caution"


def decide_answer(status: Status, *, merged_gain: float, expert_gain: float) -> Answer:
    """What to do, from the predicted gain of the merge and of the experts alone (goal-weighted, nats).

    >>> decide_answer("advise", merged_gain=0.5, expert_gain=0.8)
    'train_and_merge'
    >>> decide_answer("caution", merged_gain=0.1, expert_gain=0.8)
    'train_jointly'
    >>> decide_answer("refuse", merged_gain=0.0, expert_gain=0.0)
    'do_not_merge'
    """
    lost = 1.0 - merged_gain / expert_gain if expert_gain > 0 else 0.0
    if expert_gain > 0 and lost > JOINT_SHARE:
        return "train_jointly"
    return "do_not_merge" if status == "refuse" else "train_and_merge"
