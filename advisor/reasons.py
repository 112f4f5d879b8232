"""Why this advice: sentences that name numbers, each answering "why not another value?" from the fitted model.

Where the best plan found gains next to nothing, that is said first; where its coefficients are all 0, nothing that is
trained enters the model, so nothing is said of rates, batches, steps or data, which could be anything.
"""

from __future__ import annotations

from collections.abc import Mapping

from advisor.advice import Predicted
from advisor.plan import Plan
from advisor.status import MIN_GAIN
from advisor.what_if import WhatIf, map_recipes, with_coefficients
from estimators.recipe import Recipe


def give_reasons(
    plan: Plan,
    ask: WhatIf,
    *,
    goal: Predicted,
    edges: Mapping[str, Predicted],
    turning_point: int | None,
    steps_range: tuple[int, int],
    num_samples: Mapping[str, int],
    other_optimizers: Mapping[str, Predicted],
) -> tuple[str, ...]:
    """Sentences on learning rate, batch size, steps, coefficients, optimizer and data of the experts that are merged.

    Args:
        plan: the advised plan.
        ask: the fitted model under the project's goal.
        goal: prediction of the plan.
        edges: optimizer -> learning rate of the stability edge at the advised batch size.
        turning_point: from ``WhatIf.turning_point``.
        steps_range: fewest and most steps of the search.
        num_samples: task -> training samples.
        other_optimizers: optimizer -> best goal found with it, for those not advised.
    """
    if not _merged(plan):
        return (_nothing_merged(plan, ask, goal), *_optimizers(plan, goal, other_optimizers))
    return (
        *_small_gain(plan, ask, goal),
        _learning_rate(plan, ask, goal, edges),
        _batch_size(plan, ask, goal, num_samples),
        _steps(plan, ask, goal, turning_point, steps_range),
        _coefficients(plan, ask, goal),
        *_optimizers(plan, goal, other_optimizers),
        _data(plan, ask, goal, num_samples),
    )


def _range(values: list[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:.3g}" if high <= low * 1.001 else f"{low:.3g} to {high:.3g}"


def _merged(plan: Plan) -> list[Recipe]:
    """Recipes of the experts that enter the merge."""
    return [recipe for name, recipe in plan.recipes.items() if plan.coefficients[name] > 0]


def _small_gain(plan: Plan, ask: WhatIf, goal: Predicted) -> tuple[str, ...]:
    gain = ask.gain(plan).value
    initial = goal.value + gain
    if gain > MIN_GAIN * initial:
        return ()
    return (
        f"Gain {gain:.3f}: the best plan found is predicted at {goal.value:.3f}, the pretrained model at "
        f"{initial:.3f}; {100 * MIN_GAIN:g} % of that or less is not worth training for. What follows explains that "
        "plan.",
    )


def _nothing_merged(plan: Plan, ask: WhatIf, goal: Predicted) -> str:
    count = len(plan.names)
    average, tenth = ask.goals([with_coefficients(plan, value / count) for value in (1.0, 0.1)])
    return (
        f"Coefficients 0: no merge was found that is predicted below the pretrained model's {goal.value:.3f}. With "
        f"coefficients 1/{count} the plan's experts are predicted at {average.value:.3f} "
        f"[{average.low:.3f}, {average.high:.3f}], with a tenth of that at {tenth.value:.3f}."
    )


def _learning_rate(plan: Plan, ask: WhatIf, goal: Predicted, edges: Mapping[str, Predicted]) -> str:
    recipes = _merged(plan)
    double, half = ask.goals([_scale_rates(plan, 2.0), _scale_rates(plan, 0.5)])
    first = recipes[0]
    text = f"Learning rate {_range([r.learning_rate for r in recipes])}: predicted goal risk {goal.value:.3f}; "
    text += f"twice as large gives {double.value:.3f}, half as large {half.value:.3f}."
    edge = edges.get(first.optimizer)
    if edge is None:
        return text + " No stability edge was measured for this optimizer."
    side = "below" if first.learning_rate < edge.value else "above"
    return (
        text
        + f" The stability edge for {first.optimizer} at batch {first.batch_size} was measured at {edge.value:.3g}"
        + f" [{edge.low:.3g}, {edge.high:.3g}]: the advised rate lies {side} it"
        + (
            ", where risk first jumps before it heals."
            if side == "above"
            else ", above which training becomes unstable."
        )
    )


def _batch_size(plan: Plan, ask: WhatIf, goal: Predicted, num_samples: Mapping[str, int]) -> str:
    double = map_recipes(plan, lambda n, r: r.replace(batch_size=min(2 * r.batch_size, num_samples[n])))
    half = map_recipes(plan, lambda _, r: r.replace(batch_size=max(1, r.batch_size // 2)))
    larger, smaller = ask.goals([double, half])
    sizes = _range([float(r.batch_size) for r in _merged(plan)])
    return (
        f"Batch size {sizes}: doubling it would change the predicted risk by {larger.value - goal.value:+.3f} at twice "
        f"the cost, halving it by {smaller.value - goal.value:+.3f} at half the cost."
    )


def _steps(plan: Plan, ask: WhatIf, goal: Predicted, turning_point: int | None, steps_range: tuple[int, int]) -> str:
    steps = [r.steps for r in _merged(plan)]
    halved = ask.goals([map_recipes(plan, lambda _, r: r.replace(steps=max(1, r.steps // 2)))])[0]
    text = f"Steps {_range([float(k) for k in steps])}: half as many would change the predicted risk by "
    text += f"{halved.value - goal.value:+.3f}; "
    if turning_point is None:
        return text + f"at these coefficients it still falls at {steps_range[1]} steps, the most that was searched."
    return text + f"at these coefficients it turns at about {turning_point} steps: further training hurts the merge."


def _coefficients(plan: Plan, ask: WhatIf, goal: Predicted) -> str:
    count = len(plan.names)
    average = ask.goals([with_coefficients(plan, 1.0 / count)])[0]
    values = _range(list(plan.coefficients.values()))
    total = sum(plan.coefficients.values())
    return (
        f"Coefficients {values} (sum {total:.2f}): the simple average (1/{count} each) of these experts is predicted "
        f"at {average.value:.3f} instead of {goal.value:.3f}."
    )


def _optimizers(plan: Plan, goal: Predicted, others: Mapping[str, Predicted]) -> tuple[str, ...]:
    chosen = next(iter(plan.recipes.values())).optimizer
    return tuple(
        f"Optimizer {chosen}: the best plan found with {name} is predicted at {value.value:.3f} "
        f"[{value.low:.3f}, {value.high:.3f}], against {goal.value:.3f}."
        for name, value in others.items()
    )


def _data(plan: Plan, ask: WhatIf, goal: Predicted, num_samples: Mapping[str, int]) -> str:
    halves = [_halve_data(plan, task, num_samples[task]) for task in plan.names]
    losses = {name: value.value - goal.value for name, value in zip(plan.names, ask.goals(halves), strict=True)}
    neediest = max(losses, key=lambda name: losses[name])
    return (
        f"Data: halving the samples of one task would cost most for {neediest} "
        f"({num_samples[neediest]} samples): {losses[neediest]:+.3f} on the goal."
    )


def _scale_rates(plan: Plan, factor: float) -> Plan:
    return map_recipes(plan, lambda _, r: r.replace(learning_rate=factor * r.learning_rate))


def _halve_data(plan: Plan, task: str, num_samples: int) -> Plan:
    def change(name: str, recipe: Recipe) -> Recipe:
        if name != task:
            return recipe
        return recipe.replace(num_samples=max(recipe.batch_size, num_samples // 2))

    return map_recipes(plan, change)
