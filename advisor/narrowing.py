r"""What of the project's search space advice may really use: optimizers that were probed, rates that were not seen to
diverge.

    rate of optimizer o <= DIVERGED_SHARE * min(rates at which an advised expert of o diverged)

A caveat names everything that is left out, so that nobody takes the advice for one over the whole space.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from advisor.advice import Caveat
from advisor.plan import Plan
from advisor.project_search import OptimizerName, SearchSettings

DIVERGED_SHARE = 0.5  # a rate just below one that diverged is no advice


class NothingToSearch(ValueError):  # noqa: N818 - an outcome, named after what happened
    """Neither optimizer nor learning rate is left that advice could choose."""


def narrow_search(
    search: SearchSettings,
    *,
    predictable: Collection[str],
    probed: Collection[str] | None = None,
    diverged: Mapping[str, float] | None = None,
) -> tuple[SearchSettings, tuple[Caveat, ...]]:
    """The part of the search space that can be predicted and may be trained, and a caveat for each part left out.

    Args:
        search: the project's search settings.
        predictable: optimizers whose family the fitted model knows.
        probed: optimizers of the probes; ``None`` where that is not known.
        diverged: optimizer -> lowest learning rate at which an advised expert diverged.

    Raises:
        NothingToSearch: if nothing is left.
    """
    rates: dict[OptimizerName, tuple[float, float]] = {}
    caveats: list[Caveat] = []
    for name, (low, high) in search.learning_rate.items():
        most = DIVERGED_SHARE * (diverged or {}).get(name, float("inf"))
        if name not in predictable:
            caveats.append(_unprobed(name))
        elif most < low:
            caveats.append(_diverged(name, (diverged or {})[name], "all rates"))
        else:
            rates[name] = (low, min(high, most))
            if most < high:
                caveats.append(_diverged(name, (diverged or {})[name], f"rates above {most:.3g}"))
            if probed is not None and name not in probed:
                caveats.append(_borrowed(name, probed))
    if not rates:
        raise NothingToSearch(
            f"search.learning_rate={dict(search.learning_rate)}: nothing is left to choose from; "
            + " ".join(caveat.text for caveat in caveats)
        )
    return search.model_copy(update={"learning_rate": rates}), tuple(caveats)


def diverged_rates(plans: Sequence[tuple[str, Plan]]) -> dict[str, float]:
    """Optimizer -> lowest learning rate that diverged, of (task, plan) pairs whose expert for that task diverged."""
    found: dict[str, float] = {}
    for task, plan in plans:
        recipe = plan.recipes[task]
        found[recipe.optimizer] = min(recipe.learning_rate, found.get(recipe.optimizer, float("inf")))
    return found


def _unprobed(name: str) -> Caveat:
    return Caveat(
        name="optimizer_not_probed",
        text=f"No probe used {name}: the budget ended before, so {name} was left out of the search.  A larger "
        f"budget.probe_share, or a search without {name}, settles it.",
    )


def _borrowed(name: str, probed: Collection[str]) -> Caveat:
    return Caveat(
        name="optimizer_not_probed",
        text=f"No probe used {name}: its predictions rest on the probes of {', '.join(sorted(probed))}.",
    )


def _diverged(name: str, rate: float, left_out: str) -> Caveat:
    return Caveat(
        name="expert_diverged",
        text=f"An expert that was advised before diverged with {name} at learning rate {rate:.3g}, so {left_out} of "
        f"{name} are left out of the search.",
    )
