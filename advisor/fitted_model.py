r"""The risk model of a run: read back, or fitted again from the stored probes where that cannot be.

A fit is a function of ``probe_data.json``, ``measured_merges.json`` (what refits learned), the goal's weights and the
seed, so a model that is missing, damaged or of another version is no loss: the same program makes the same one again.
What was advised is kept as it is in ``recommendation.json``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from advisor.measured_on import MeasuredOn
from advisor.observations import MergeObservation, ProbeData
from advisor.risk_model import RiskModel
from advisor.run_reading import read_value
from advisor.runs import RunDirectory
from advisor.workspace import MERGES_NAME

if TYPE_CHECKING:
    from advisor.project import Project

MODEL_NAME = "risk_model.json"
PROBE_DATA_NAME = "probe_data.json"

# What reading a model of another shape can raise; damage is found by checksum before.
OTHER_SHAPE = (ValueError, KeyError, TypeError, IndexError, AttributeError)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FittedModel:
    """A run's fitted model.

    Attributes:
        model: the model.
        refitted: why the stored one could not be used; empty if it was.
    """

    model: RiskModel
    refitted: str = ""


def load_fitted(run: RunDirectory, project: Project) -> FittedModel:
    """The run's model as stored, else fitted again; nothing is written.

    Raises:
        ArtefactMissing: if the run has no advice yet.
        ProbesDiverged, TooFewProbes: if the run's probes allow no fit, which is why its advice is refused.
    """
    condition = run.condition(MODEL_NAME)
    why = f"{MODEL_NAME} is {condition}"
    if condition == "whole":
        try:
            return FittedModel(model=RiskModel.from_json(run.read_json(MODEL_NAME)))
        except OTHER_SHAPE as error:
            why = f"{MODEL_NAME} was written by another version ({' '.join(str(error).split())})"
    elif not run.has("recommendation.json"):
        run.require(MODEL_NAME)  # says which command makes it
    probes = read_value(run, PROBE_DATA_NAME, ProbeData.from_json).with_merges(stored_merges(run))
    return FittedModel(model=fit_model(run, probes, project.task_weights(), project.seed), refitted=why)


def fit_model(run: RunDirectory, probes: ProbeData, task_weights: Mapping[str, float], seed: int) -> RiskModel:
    """Fit; the same input gives the same model.  Its intervals are those of figures on the run's test samples."""
    total = sum(task_weights.values())
    model = RiskModel(
        task_weights={name: value / total for name, value in task_weights.items()},
        seed=seed,
        measured_on=MeasuredOn.of_run(run),
    )
    return model.fit(probes)


def stored_merges(run: RunDirectory) -> tuple[MergeObservation, ...]:
    """Full merges that refits of this run learned from."""
    if not run.has(MERGES_NAME):
        return ()
    return read_value(run, MERGES_NAME, lambda stored: tuple(map(MergeObservation.from_json, stored["merges"])))


def store_merges(run: RunDirectory, merges: Sequence[MergeObservation], spent: Mapping[str, Any]) -> None:
    """Keep what refits learned from, and what measuring it cost; nothing is kept where they learned nothing."""
    if merges:
        run.write_json(MERGES_NAME, {"merges": [merge.to_json() for merge in merges], "spent": dict(spent)})
    else:
        run.discard(MERGES_NAME)
