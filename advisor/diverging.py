r"""Advised experts that diverged although they were predicted not to: kept in the run, learned from, advised anew.

The outcome enters the next fit as a merge of infinite risk, and the search leaves out the rates around it
(``advisor.narrowing``), so the same advice is never given twice.  What the attempt cost is counted.
"""

from __future__ import annotations

from typing import Any

from advisor.plan import Plan
from advisor.runs import RunDirectory
from advisor.unfinished import clear_unfinished
from advisor.workspace import DIVERGED_NAME, EXPERTS_NAME, Workspace

DIVERGED_PURPOSE = "diverged experts"
MOST_RETRIES = 3  # the search loses half of its rates each time; more would be probing by full fine-tunes


class AdviceWithdrawn(ValueError):  # noqa: N818 - an outcome, named after what happened
    """An advised expert diverged, and with that known nothing can be advised."""


def diverged_experts(run: RunDirectory) -> list[tuple[str, Plan]]:
    """(task, plan) of the advised experts that diverged, oldest first."""
    if not run.has(DIVERGED_NAME):
        return []
    return [(cell["task"], Plan.from_json(cell["plan"])) for cell in run.read_json(DIVERGED_NAME)["experts"]]


def note_divergence(ws: Workspace, plan: Plan) -> None:
    """Keep that the expert that was just trained diverged, with what it and its finished siblings cost."""
    last = next(r for r in reversed(ws.run.events().records) if r["kind"] in ("cut_off", "thrown_away"))
    task = str(last["what"]).removeprefix("expert ")
    units, seconds = float(last["units"]), float(last["seconds"])
    known: list[dict[str, Any]] = []
    if ws.run.has(DIVERGED_NAME):
        stored = ws.run.read_json(DIVERGED_NAME)
        known = list(stored["experts"])
        units += stored["spent"][DIVERGED_PURPOSE]["units"]
        seconds += stored["spent"][DIVERGED_PURPOSE]["seconds"]
    units += ws.costs().get("experts", 0.0)
    seconds += ws.seconds().get("experts", 0.0)
    ws.run.write_json(
        DIVERGED_NAME,
        {
            "experts": [*known, {"task": task, "plan": plan.to_json()}],
            "spent": {DIVERGED_PURPOSE: {"units": units, "seconds": seconds}},
        },
    )
    clear_unfinished(ws, f"expert {task}")
    ws.run.discard(EXPERTS_NAME)  # the finished siblings belong to a plan that is not advised any more
    ws.run.event("expert_diverged", task=task, recipe=plan.recipes[task].describe())
