"""Hand-made values of advice, plausible and small, for tests of what shows them."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from advisor.advice import Alternative, Caveat, Measured, Predicted, Recommendation, Validation
from advisor.curves import Curve, Surface
from advisor.observations import DisplacementTrace, MergeObservation, ProbeData
from advisor.plan import Plan
from estimators.constants import Constants, Estimate, TaskConstants
from estimators.recipe import Recipe

NAMES = ("low", "high", "turned", "mirrored")
EVIL = "<script>alert(1)</script><b>x</b>"


def predicted(value: float, width: float = 0.1) -> Predicted:
    return Predicted(value=value, low=value * (1 - width), high=value * (1 + 1.5 * width))


def plan(names: Sequence[str] = NAMES, *, rate: float = 0.012, steps: int = 320) -> Plan:
    recipe = Recipe(learning_rate=rate, batch_size=32, steps=steps, schedule="warmup_cosine")
    return Plan.uniform(names, recipe, 0.35)


def recommendation(names: Sequence[str] = NAMES, **changes: Any) -> Recommendation:
    advised = plan(names)
    cheap = plan(names, steps=80)
    values: dict[str, Any] = {
        "status": "advise",
        "answer": "train_and_merge",
        "sentence": "Train every task with SGD at learning rate 0.012 and merge with coefficient 0.35.",
        "plan": advised,
        "tasks": {name: predicted(0.3 + 0.05 * k) for k, name in enumerate(names)},
        "goal": predicted(0.375),
        "initial_tasks": {name: 0.8 + 0.1 * k for k, name in enumerate(names)},
        "initial_goal": 0.95,
        "floor": dict.fromkeys(names, 0.1),
        "terms": {
            name: {"initial risk": 0.8 + 0.1 * k, "progress": -0.6 - 0.05 * k, "interference": 0.07, "noise": 0.03}
            for k, name in enumerate(names)
        },
        "edges": {"sgd": predicted(0.019, 0.2)},
        "displacement": dict.fromkeys(names, 0.61),
        "turning_point": 500,
        "elasticities": {"learning_rate": Predicted(value=-0.2, low=-0.3, high=-0.1)},
        "reasons": (
            "Learning rate 0.012: the stability edge was measured at 0.019; above it training becomes unstable.",
            "Batch size 32: doubling it would change the predicted risk by -0.004 at twice the cost.",
        ),
        "caveats": (
            Caveat(name="extrapolation", text="The plan trains 8 times longer than the longest probe."),
            Caveat(name="not_identified", text="The gradient Gram matrix was not identified.", weight="warning"),
        ),
        "alternatives": (
            Alternative(label="cheapest near-optimal", plan=cheap, goal=predicted(0.39), cost=cheap.training_cost()),
        ),
        "pareto": tuple(
            Alternative(
                label="front", plan=plan(names, steps=k), goal=predicted(g), cost=plan(names, steps=k).training_cost()
            )
            for k, g in ((20, 0.7), (80, 0.39), (320, 0.375))
        ),
        "extrapolation": 8.0,
        "cost": {"heads": 300.0, "constants": 4000.0, "probes": 12000.0},
        "full_fine_tune": 81920.0,
        "training_cost": float(advised.training_cost()),
        "seconds": 41.5,
    }
    return Recommendation(**{**values, **changes})


def validation(names: Sequence[str] = NAMES) -> Validation:
    def measured(name: str, kind: Any, base: float, goal: bool = True) -> Measured:
        risks = {task: base + 0.02 * k for k, task in enumerate(names)}
        return Measured(
            name=name,
            kind=kind,
            risks=risks,
            accuracies={task: max(0.0, 1 - risk / 2) for task, risk in risks.items()},
            goal=sum(risks.values()) / len(risks) if goal else None,
            cost=1000.0,
            note="made by hand",
        )

    experts = [
        Measured(name=f"expert: {task}", kind="expert", risks={task: 0.2}, accuracies={task: 0.94}, goal=None, cost=0.0)
        for task in names
    ]
    return Validation(
        models=(
            measured("advised merge", "advised", 0.36),
            measured("pretrained", "pretrained", 0.92),
            *experts,
            measured("joint training", "joint", 0.3),
            measured("average: FusionBench", "baseline", 0.7),
        ),
        predicted={name: predicted(0.3 + 0.05 * k) for k, name in enumerate(names)},
        predicted_goal=predicted(0.375),
        validation_risks=dict.fromkeys(names, 0.37),
        verdicts=(
            ("interval", "pass", "measured 0.390, predicted 0.375 [0.338, 0.431]"),
            ("baselines", "warn", "advised 0.390; best default at equal cost: best lambda 0.380"),
        ),
        cost={"validation": 5000.0},
    )


def estimate(value: float, **changes: Any) -> Estimate:
    values: dict[str, Any] = {"value": value, "low": value * 0.8, "high": value * 1.25, "num_samples": 64, "cost": 64.0}
    return Estimate(**{**values, **changes})


def constants(names: Sequence[str] = NAMES) -> Constants:
    tasks = {
        name: TaskConstants(
            initial_risk=estimate(0.8 + 0.1 * k),
            gradient_variance=estimate(220.0 * (k + 1) ** 3),
            top_curvature=estimate(48.0 + 30 * k),
            heterogeneity=Estimate(value=0.4, low=0.0, high=2.0, identifiable=False, note="few samples"),
        )
        for k, name in enumerate(names)
    }
    gram = tuple(
        tuple(Estimate(value=1.0 if i == j else 0.1 * (i - j), low=-1, high=2) for j in range(len(names)))
        for i in range(len(names))
    )
    return Constants(
        tasks=tasks,
        num_samples=dict.fromkeys(names, 500),
        num_classes=dict.fromkeys(names, 10),
        num_parameters=33_000,
        gradient_gram=gram,
        relative_sharpness=gram,
        cost=4000.0,
    )


def traces(names: Sequence[str] = NAMES) -> tuple[DisplacementTrace, ...]:
    steps = np.arange(1, 301)
    out = []
    for k, name in enumerate(names):
        for rate in (0.004, 0.012):
            losses = 0.5 + 0.4 * np.exp(-steps * rate)
            if k == 0 and rate > 0.01:
                losses = np.where(steps > 200, math.inf, losses)
            recipe = Recipe(learning_rate=rate, batch_size=8, steps=300)
            moved = rate * steps.astype(float)
            out.append(
                DisplacementTrace(
                    task=name, recipe=recipe, seed=0, steps=steps, squared_displacements=moved, losses=losses
                )
            )
    return tuple(out)


def merges(names: Sequence[str] = NAMES) -> tuple[MergeObservation, ...]:
    out = []
    for rate in (0.004, 0.012):
        for coefficient in (0.25, 1.0, 4.0):
            risk = 0.5 + (coefficient - 1) ** 2 * rate * 10
            out.append(
                MergeObservation(
                    plan=Plan.uniform(names, Recipe(learning_rate=rate, batch_size=8, steps=40), coefficient),
                    risks=dict.fromkeys(names, risk),
                    initial_risks=dict.fromkeys(names, 0.9),
                    num_samples=100,
                    noise=dict.fromkeys(names, 0.01),
                )
            )
    return tuple(out)


def probe_data(names: Sequence[str] = NAMES) -> ProbeData:
    return ProbeData(constants=constants(names), merges=merges(names), traces=traces(names))


def curve(knob: Any = "learning_rate", names: Sequence[str] = NAMES) -> Curve:
    values = np.geomspace(0.001, 0.1, 21) if knob != "coefficient" else np.linspace(0, 1, 21)
    centre = 0.012 if knob != "coefficient" else 0.35
    risks = [0.375 + 0.1 * (v / centre - 1) ** 2 for v in values]
    return Curve(
        knob=knob,
        values=tuple(float(v) for v in values),
        goal=tuple(predicted(risk) for risk in risks),
        tasks={name: tuple(risk * (1 + 0.05 * k) for risk in risks) for k, name in enumerate(names)},
        at=centre,
    )


def surface() -> Surface:
    x = np.geomspace(0.001, 0.1, 9)
    y = np.linspace(0, 1, 7)
    goal = tuple(tuple(0.375 + 0.1 * np.log(a / 0.012) ** 2 + (b - 0.35) ** 2 for a in x) for b in y)
    return Surface(x_knob="learning_rate", y_knob="coefficient", x=tuple(x), y=tuple(y), goal=goal, at=(0.012, 0.35))
