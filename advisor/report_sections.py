"""The report as plain values: sections of sentences, tables and figures, which Markdown, HTML and the terminal render.

Nothing here knows how it will look; names are raw text, for the renderer to escape.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from advisor.advice import Alternative, Recommendation, Validation
from advisor.plan import Plan
from advisor.wording import (
    ANSWER_WORDS,
    STATUS_WORDS,
    VERDICT_SIGNS,
    count_text,
    elasticity_text,
    interval_text,
    measured_text,
    risk_text,
    signed_text,
    term_text,
)
from estimators.constants import Constants

UNITS_SENTENCE = "Risks are cross-entropies in nats; costs are in per-sample gradients; intervals are 90 % predictive."

THEOREM = "theorem: "  # how the caveats of advisor.validity are named
THEOREM_SENTENCE = (
    "The worst-case bound is a theorem under conditions.  These are not met here; they inform and never decide the "
    "status, which rests on what was measured."
)
NEIGHBOURS = "Small changes around the advised plan move the predicted goal risk so:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table.

    Attributes:
        head: column titles.
        rows: cells as text, each row as long as the head.
        title: what it shows.
    """

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""

    def __post_init__(self) -> None:
        """Check widths."""
        if any(len(row) != len(self.head) for row in self.rows):
            raise ValueError(f"rows of table {self.title!r} must have {len(self.head)} cells like its head {self.head}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of the report.

    Attributes:
        title: its heading.
        sentences: paragraphs.
        bullets: a list.
        tables: tables.
        figures: names of figures that belong here (``advisor.report_figures``).
    """

    title: str
    sentences: tuple[str, ...] = ()
    bullets: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: tuple[str, ...] = ()


def recommendation_sections(recommendation: Recommendation) -> tuple[Section, ...]:
    """The advice: what, how good, why, its limits, alternatives, and where the worst-case theorem does not hold."""
    r = recommendation
    head = Section(
        title=f"{STATUS_WORDS[r.status]}: {ANSWER_WORDS[r.answer]}",
        sentences=(r.sentence, UNITS_SENTENCE),
        tables=(recipe_table(r.plan), prediction_table(r)),
        figures=("risk_against_learning_rate",),
    )
    reasons = Section(
        title="Why",
        bullets=r.reasons,
        tables=(term_table(r.terms),),
        figures=("term_shares", "risk_against_coefficient", "risk_against_steps"),
    )
    said = [c for c in r.caveats if not c.name.startswith(THEOREM)]
    caveats = Section(
        title="Caveats",
        sentences=() if said else ("None was found.",),
        bullets=tuple(f"{'Warning: ' if c.weight == 'warning' else ''}{c.text}" for c in said),
    )
    broken = tuple(c.text for c in r.caveats if c.name.startswith(THEOREM))
    theorem = Section(
        title="Where the theorem does not hold",
        sentences=(THEOREM_SENTENCE,) if broken else (),
        bullets=broken,
    )
    alternatives = Section(
        title="Alternatives",
        sentences=(NEIGHBOURS,) if r.elasticities else (),
        bullets=tuple(elasticity_text(knob, exponent) for knob, exponent in r.elasticities.items()),
        tables=(alternative_table("Near-optimal plans", r.alternatives), alternative_table("Pareto front", r.pareto)),
        figures=("risk_against_cost",),
    )
    return head, reasons, caveats, alternatives, theorem


def recipe_table(plan: Plan) -> Table:
    """The recipe and coefficient of each task; a column that says nothing is left out."""
    recipes = plan.recipes
    columns: dict[str, list[str]] = {
        "task": list(recipes),
        "learning rate": [f"{r.learning_rate:.3g}" for r in recipes.values()],
        "batch": [str(r.batch_size) for r in recipes.values()],
        "steps": [str(r.steps) for r in recipes.values()],
        "optimizer": [r.optimizer for r in recipes.values()],
        "momentum": [f"{r.momentum:g}" if r.momentum else "" for r in recipes.values()],
        "schedule": [r.schedule.replace("_", " + ") for r in recipes.values()],
        "samples": ["" if r.num_samples is None else str(r.num_samples) for r in recipes.values()],
        "alignment": ["" if r.alignment == "none" else r.alignment for r in recipes.values()],
        "coefficient": [f"{plan.coefficients[name]:.3g}" for name in recipes],
    }
    kept = {title: cells for title, cells in columns.items() if any(cells)}
    return Table(
        title=f"Recipes, merged by {plan.method.replace('_', ' ')}",
        head=tuple(kept),
        rows=tuple(zip(*kept.values(), strict=True)),
    )


def prediction_table(recommendation: Recommendation) -> Table:
    """Predicted risk of the goal and each task beside the pretrained model's."""
    r = recommendation
    rows = [("goal", risk_text(r.initial_goal), risk_text(r.goal.value), interval_text(r.goal), "")]
    rows += [
        (
            name,
            risk_text(r.initial_tasks.get(name)),
            risk_text(cell.value),
            interval_text(cell),
            risk_text(cell.value - r.floor[name]) if name in r.floor else "",
        )
        for name, cell in r.tasks.items()
    ]
    return Table(
        title="Predicted risk of the merged model",
        head=("", "pretrained", "predicted", "90 % interval", "above floor"),
        rows=tuple(rows),
    )


def term_table(terms: Mapping[str, Mapping[str, float]]) -> Table:
    """The signed parts of each task's predicted risk."""
    names = list(dict.fromkeys(term for parts in terms.values() for term in parts))
    rows = [
        (
            task,
            *(signed_text(parts[name]) if name in parts else "" for name in names),
            risk_text(sum(parts.values())),
        )
        for task, parts in terms.items()
    ]
    return Table(title="Parts of the predicted risk, nats", head=("", *map(term_text, names), "sum"), rows=tuple(rows))


def alternative_table(title: str, plans: tuple[Alternative, ...]) -> Table:
    """Plans with their predictions and costs."""
    rows = tuple(
        (
            plan.label,
            risk_text(plan.goal.value),
            interval_text(plan.goal),
            count_text(plan.cost),
            describe_plan(plan.plan),
        )
        for plan in plans
    )
    return Table(title=title, head=("", "goal", "90 % interval", "cost", "plan"), rows=rows)


def describe_plan(plan: Plan) -> str:
    """One line for a plan; recipes and coefficients that are equal are named once."""
    recipes = {name: recipe.describe() for name, recipe in plan.recipes.items()}
    texts = set(recipes.values())
    first = texts.pop() if len(texts) == 1 else "; ".join(f"{name}: {text}" for name, text in recipes.items())
    values = {f"{value:.3g}" for value in plan.coefficients.values()}
    if len(values) == 1:
        return f"{first}; coefficient {values.pop()}"
    return f"{first}; coefficients " + ", ".join(f"{name} {value:.3g}" for name, value in plan.coefficients.items())


def cost_section(
    costs: Mapping[str, float], seconds: Mapping[str, float], *, full_fine_tune: float, training_cost: float
) -> Section:
    """What everything cost so far."""
    rows = [
        (
            term_text(name),
            count_text(units),
            f"{units / full_fine_tune:.3f}",
            f"{seconds[name]:.1f}" if name in seconds else "",
        )
        for name, units in costs.items()
    ]
    total = sum(costs.values())
    rows.append(
        (
            "in all",
            count_text(total),
            f"{total / full_fine_tune:.3f}",
            f"{sum(seconds.values()):.1f}" if seconds else "",
        )
    )
    return Section(
        title="Cost",
        sentences=(
            f"One full fine-tune of all tasks is {count_text(full_fine_tune)} per-sample gradients; "
            f"training the advised plan takes {count_text(training_cost)}.",
        ),
        tables=(
            Table(
                title="What it cost",
                head=("purpose", "per-sample gradients", "full fine-tunes", "seconds"),
                rows=tuple(rows),
            ),
        ),
        figures=("cost_by_purpose",),
    )


def validation_section(validation: Validation, *, with_notes: bool = True) -> Section:
    """Predicted against measured, every model (``with_notes``: how each was made), and the verdicts."""
    advised = validation.models[0]
    cells = {"goal": validation.predicted_goal, **validation.predicted}
    rows = []
    for name, cell in cells.items():
        measured = advised.goal if name == "goal" else advised.risks.get(name)
        held = "–" if measured is None else "yes" if cell.holds(measured) else "no"
        accuracy = advised.accuracies.get(name) if name != "goal" else advised.mean_accuracy
        shown = "–" if accuracy is None or measured == math.inf else f"{100 * accuracy:.1f} %"
        rows.append((name, risk_text(cell.value), interval_text(cell), measured_text(measured), held, shown))
    return Section(
        title="Predicted against measured",
        sentences=("Measured on test data, which advice and refits never saw.",),
        bullets=tuple(
            f"{VERDICT_SIGNS[verdict]} {name} ({verdict}): {text}" for name, verdict, text in validation.verdicts
        ),
        tables=(
            Table(
                title="The advised merge",
                head=("", "predicted", "90 % interval", "measured", "interval holds", "accuracy"),
                rows=tuple(rows),
            ),
            model_table(validation, with_notes=with_notes),
        ),
        figures=("predicted_and_measured", "compared_models", "compared_accuracies"),
    )


def model_table(validation: Validation, *, with_notes: bool = True) -> Table:
    """Every measured model; an expert is measured on its own task alone."""
    tasks = list(validation.predicted)
    rows = [
        (
            model.name,
            measured_text(model.goal),
            *(measured_text(model.risks.get(task)) for task in tasks),
            measured_text(model.worst_risk) if model.kind != "expert" else "",
            "–" if model.diverged else f"{100 * model.mean_accuracy:.1f} %",
            count_text(model.cost) if model.cost else "",
            *([model.note] if with_notes else []),
        )
        for model in validation.models
    ]
    head = ("model", "goal", *tasks, "worst", "accuracy", "cost", *(["how it was made"] if with_notes else []))
    return Table(title="Risk of every model", head=head, rows=tuple(rows))


def constants_section(constants: Constants) -> Section:
    """Measured constants with intervals."""
    names = list(dict.fromkeys(field for task in constants.tasks.values() for field in task.measured()))
    rows = []
    for name in names:
        cells = [task.measured().get(name) for task in constants.tasks.values()]
        rows.append((term_text(name), *("" if cell is None else cell.describe() for cell in cells)))
    return Section(
        title="Measured constants",
        sentences=(
            f"Measured at the pretrained weights ({count_text(constants.num_parameters)} parameters may move), "
            "with 90 % intervals; units stand at the axes below.",
        ),
        bullets=tuple(
            f"{task}: {term_text(name)} was not measured: {why}"
            for task, values in constants.tasks.items()
            for name, why in values.failures.items()
        ),
        tables=(Table(title="Constants", head=("", *constants.names), rows=tuple(rows)),),
        figures=("constants", "gradient_cosines", "relative_sharpness"),
    )
