"""Why not a larger learning rate?  The answer in words, from the changes of the predicted terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advisor.advice import Predicted
from advisor.setting import Setting

SMALL = 5e-4  # nats: changes below are not named


@dataclass(frozen=True, slots=True, kw_only=True)
class Larger:
    """What a larger learning rate would do.

    Attributes:
        learning_rate: the larger rate.
        goal: predicted goal risk there.
        changes: term -> change of its part of the goal, nats, largest first.
        sentences: the answer in words.
    """

    learning_rate: float
    goal: Predicted
    changes: Mapping[str, float]
    sentences: tuple[str, ...]


def say_why_not(
    factor: float,
    rate: float,
    now: Predicted,
    then: Predicted,
    changes: Mapping[str, float],
    edge: Predicted,
    setting: Setting,
) -> tuple[str, ...]:
    """Sentences: what would change, which terms speak for and against it, and where the stability edge lies."""
    change = then.value - now.value
    goes, moved = ("rise", "raise") if change > 0 else ("fall", "lower")
    said = [
        f"At {factor:g} times the rate ({rate:.3g}) the predicted goal risk would {goes} by "
        f"{abs(change):.3f} nats, from {now.value:.3f} to {then.value:.3f} [{then.low:.3f}, {then.high:.3f}]."
    ]
    worse = [f"{term} {value:+.3f}" for term, value in changes.items() if value > SMALL]
    better = [f"{term} {value:+.3f}" for term, value in changes.items() if value < -SMALL]
    if worse:
        said.append(
            f"What speaks against it: {', '.join(worse)}." + (f"  For it: {', '.join(better)}." if better else "")
        )
    elif better:
        said.append(f"No term speaks against it: {', '.join(better)} {moved} the risk.")
    else:
        said.append("No term changes by more than 0.0005 nats: the rate hardly matters here.")
    where = f"the stability edge of {setting.optimizer} at batch {setting.batch_size}, {edge.value:.3g}"
    where += f" [{edge.low:.3g}, {edge.high:.3g}]"
    if setting.learning_rate > edge.value:
        said.append(f"The rate lies above {where}, already: training jumps at first and heals only with more steps.")
    elif rate > edge.value:
        said.append(f"It would cross {where}: above it training becomes unstable at first.")
    else:
        said.append(f"It would still lie below {where}.")
    return tuple(said)
