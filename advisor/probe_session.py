r"""Running probes: train every task with one short recipe, merge at several coefficients, keep what was measured.

One line of ``probes.jsonl`` is one finished probe; a session that was stopped or killed goes on inside the probe at
work (``advisor.unfinished``): with the training step after its last snapshot, or the next merge to measure.
Whether a deadline ended probing early is a decision by wall clock: it is kept in the log and replayed.  So is that the
advice has settled, unless the project asks for a number of probes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from advisor.dispatching import evaluating_of, training_of
from advisor.interrupts import RunInterrupted
from advisor.live_probe import LiveWriter, forget_live
from advisor.merged_risks import MergedRisks, displacement_trace
from advisor.observations import DisplacementTrace, MergeObservation
from advisor.plan import Plan
from advisor.probing import MergePoint, Probe, ProbeDesign, measured_gain, next_probe
from advisor.run_log import mend_log
from advisor.unfinished import clear_unfinished, measured_once, piece_name, unfinished
from advisor.workspace import PROBES_NAME, Spending, Workspace
from estimators.cost import FORWARD_UNITS, CostMeter
from estimators.fine_tuning import FineTuned, Run, Watcher
from estimators.recipe import Recipe
from estimators.sampling import stable_seed
from estimators.snapshot_folder import Pieces

DEADLINE_DECISION = "deadline ended probing"
SETTLED_DECISION = "advice has settled"
UNCHANGED_ADVICE = "the last probes did not change the advice"
ENOUGH_PROBES = 2  # with fewer, a deadline interrupts instead of ending probing


def run_probes(
    ws: Workspace, design: ProbeDesign, settled: Callable[[Sequence[Probe]], bool] | None = None
) -> list[Probe]:
    """Run probes until the design has no more, and return all that are stored, in order.

    Args:
        ws: the workspace.
        design: what probing may do.
        settled: whether some probes have settled the advice, so that no more are run; not asked where the project names
            a number of probes.

    Raises:
        RunInterrupted: on a signal, a stop request, or a deadline that leaves fewer than ``ENOUGH_PROBES`` probes.
    """
    known, decisions = _numbered_probes(ws)
    limit = ws.project.budget.probes
    if limit is not None:
        settled = None
        decisions.discard(SETTLED_DECISION)
    done: list[Probe] = []
    risks = merged_risks(ws, design.evaluation_samples)
    # x_0 is evaluated once for all probes; the first probe carries the cost, also where a session is taken up again.
    risks.initial()
    first_cost = len(design.tasks) * design.evaluation_samples * FORWARD_UNITS
    weights = ws.goal.weights
    last = max(known, default=-1) + 1
    while not decisions or len(done) < last:
        if len(done) in known:  # a damaged one in between is done again in its place
            done.append(known[len(done)])
            continue
        spent = sum(probe.cost for probe in done) + (0.0 if done else first_cost)
        recipe = next_probe(design, done, weights, spent=spent)
        if recipe is None or (limit is not None and len(done) >= limit):
            break
        ws.progress("probes", spent, design.budget, probe=len(done) + 1, recipe=recipe.describe())
        what = f"probe {len(done)}"
        try:
            live = LiveWriter(ws.run.path, number=len(done), recipe=recipe)
            with ws.spending("probes") as spending, unfinished(ws, what, spending, deadline=False) as kept, live:
                first = all(probe.recipe.optimizer != recipe.optimizer for probe in done)
                probe = run_probe(
                    ws, design, recipe, risks, kept, number=len(done), first=first, spending=spending, watcher=live
                )
                ws.run.append(PROBES_NAME, probe_to_json(probe) | {"seconds": spending.seconds, "number": len(done)})
        except RunInterrupted as stopped:
            if stopped.reason != "deadline" or len(done) < max(ENOUGH_PROBES, last):
                raise
            decisions.add(_decided(ws, DEADLINE_DECISION))
        else:
            done.append(probe)
            if not decisions and settled is not None and settled(done):
                decisions.add(_decided(ws, SETTLED_DECISION))
                ws.run.event("probing_settled", probes=len(done), text=UNCHANGED_ADVICE)
    clear_unfinished(ws, "probe")
    forget_live(ws.run.path)
    why = {"ended": UNCHANGED_ADVICE} if decisions == {SETTLED_DECISION} else {}
    ws.progress("probes", design.budget, design.budget, probes=len(done), **why)
    return done


def _decided(ws: Workspace, decision: str) -> str:
    """The decision, kept in the log."""
    ws.run.append(PROBES_NAME, {"decision": decision, "cost": 0.0, "seconds": 0.0})
    return decision


def merged_risks(ws: Workspace, samples: int) -> MergedRisks:
    """Evaluates merges on the first ``samples`` validation samples of every task."""
    return MergedRisks(
        objectives=ws.objectives,
        splits={name: task.validation.head(samples) for name, task in ws.tasks.items()},
        elsewhere=evaluating_of(ws),
    )


def run_probe(
    ws: Workspace,
    design: ProbeDesign,
    recipe: Recipe,
    risks: MergedRisks,
    kept: Pieces,
    *,
    number: int,
    first: bool,
    spending: Spending,
    watcher: Watcher | None = None,
) -> Probe:
    """Train every task with ``recipe`` and measure its merges.

    Args:
        ws: the workspace.
        design: says what to merge.
        recipe: the probe's recipe.
        risks: evaluates merges.
        kept: where training and measured merges are kept on the way.
        number: position of the probe, which sets its seed.
        first: whether it is the first of its optimizer.
        spending: counts what it takes.
        watcher: shown the traces as they grow.
    """
    seed = stable_seed(ws.project.seed, "probe", number) % 2**31
    runs = [Run(task=name, recipe=recipe, seed=seed, checkpoints=design.checkpoints(recipe)) for name in ws.tasks]
    trained: dict[str, FineTuned] = {}
    trains = {name: task.train for name, task in ws.tasks.items()}
    control = ws.interrupts.control
    for group in training_of(ws)(
        ws.objectives, trains, runs, meter=spending.meter, control=control, watcher=watcher, snapshots=kept
    ):
        trained |= {result.run.task: result for result in group}
    halted = [result for result in trained.values() if result.outcome in ("deadline", "stopped")]
    if halted or len(trained) < len(runs):
        raise ws.interrupts.interruption(ws.interrupts.reason or "stop")
    if number == 0:
        spending.meter.add(forwards=sum(len(split) for split in risks.splits.values()))
    merges: list[MergeObservation] = []
    done: list[tuple[MergePoint, float]] = []
    while (point := design.next_merge(recipe, done, number=number, first=first)) is not None:
        merges.append(_measured_once(kept, spending.meter, risks, trained, recipe, point, seed=seed))
        done.append((point, measured_gain(merges[-1], ws.goal.weights)))
    traces = [trace for result in trained.values() if (trace := displacement_trace(result)) is not None]
    return Probe(
        recipe=recipe,
        traces=tuple(traces),
        merges=tuple(merges),
        outcomes={name: result.outcome for name, result in trained.items()},
        cost=spending.meter.units,
    )


def _measured_once(
    kept: Pieces,
    meter: CostMeter,
    risks: MergedRisks,
    trained: Mapping[str, FineTuned],
    recipe: Recipe,
    point: MergePoint,
    *,
    seed: int,
) -> MergeObservation:
    """The merge that a point describes, measured now or before the session was cut off."""

    def measure(own: CostMeter) -> dict[str, Any]:
        risks.meter = own
        return measure_at(risks, trained, recipe, point, seed=seed).to_json()

    samples = {name: len(split) for name, split in risks.splits.items()}
    name = piece_name("merge", recipe.to_json(), asdict(point), seed, samples)
    return MergeObservation.from_json(measured_once(kept, name, meter, measure))


def measure_at(
    risks: MergedRisks, trained: Mapping[str, FineTuned], recipe: Recipe, point: MergePoint, *, seed: int
) -> MergeObservation:
    """The merge that a point describes."""
    plan = Plan(
        recipes=dict.fromkeys(trained, recipe.replace(steps=point.step)),
        coefficients={n: point.coefficient if point.alone in (None, n) else 0.0 for n in trained},
        method=point.method,
    )
    experts = {name: result.checkpoints.get(point.step) for name, result in trained.items()}
    return risks.measure(plan, experts, seed=seed)


def stored_probes(ws: Workspace) -> list[Probe]:
    """Finished probes of the run, in order."""
    if not ws.run.path_of(PROBES_NAME).exists():
        return []
    return [probe for _, probe in _by_number(ws.run.read_log(PROBES_NAME).records)]


def _numbered_probes(ws: Workspace) -> tuple[dict[int, Probe], set[str]]:
    """Number -> finished probe, and what was decided, for the run's writer: damaged lines are told and dropped."""
    for line in mend_log(ws.run.path_of(PROBES_NAME)):
        ws.run.event(
            "damaged_line", file=PROBES_NAME, text=f"line {line.number} {line.reason}; that probe is run again"
        )
    if not ws.run.path_of(PROBES_NAME).exists():
        return {}, set()
    records = ws.run.read_log(PROBES_NAME).records
    return dict(_by_number(records)), {str(record["decision"]) for record in records if "decision" in record}


def _by_number(records: Sequence[Mapping[str, Any]]) -> list[tuple[int, Probe]]:
    """Probes with their numbers, in order; logs of older versions have them in order and no numbers."""
    probes = [record for record in records if "recipe" in record]
    return sorted(
        ((int(record.get("number", place)), probe_from_json(record)) for place, record in enumerate(probes)),
        key=lambda pair: pair[0],
    )


def probe_to_json(probe: Probe) -> dict[str, Any]:
    """Plain values of a probe."""
    return {
        "recipe": probe.recipe.to_json(),
        "traces": [trace.to_json() for trace in probe.traces],
        "merges": [merge.to_json() for merge in probe.merges],
        "outcomes": dict(probe.outcomes),
        "cost": probe.cost,
    }


def probe_from_json(data: Mapping[str, Any]) -> Probe:
    """The inverse of :func:`probe_to_json`."""
    return Probe(
        recipe=Recipe.from_json(data["recipe"]),
        traces=tuple(DisplacementTrace.from_json(item) for item in data["traces"]),
        merges=tuple(MergeObservation.from_json(item) for item in data["merges"]),
        outcomes=dict(data["outcomes"]),
        cost=float(data["cost"]),
    )
