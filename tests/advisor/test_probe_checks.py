"""Probes that cannot determine the risk model are refused with what would be enough."""

from __future__ import annotations

import dataclasses
import math

import pytest

from advisor.observations import ProbeData
from advisor.probe_checks import ContradictoryProbes, ProbesDiverged, TooFewProbes, check_probes
from advisor.risk_model import RiskModel
from tests.advisor.quadratic_merges import QuadraticWorld


@pytest.fixture(scope="module")
def probes() -> ProbeData:
    return QuadraticWorld.drawn().probes(rates=(0.01,), steps=20)


def test_good_probes_pass(probes: ProbeData) -> None:
    assert check_probes(probes) is None


def test_no_merge_at_all_is_too_few(probes: ProbeData) -> None:
    with pytest.raises(TooFewProbes, match="no measured merge; 3 merges .* are enough"):
        RiskModel().fit(dataclasses.replace(probes, merges=()))


def test_two_merges_are_too_few(probes: ProbeData) -> None:
    with pytest.raises(TooFewProbes, match="2 usable merges at 2 different coefficients; at least 3"):
        check_probes(dataclasses.replace(probes, merges=probes.merges[:2]))


def test_one_coefficient_is_too_few(probes: ProbeData) -> None:
    same = tuple(merge for merge in probes.merges if merge.plan.coefficients["a"] == 1.0) * 3
    with pytest.raises(TooFewProbes, match="at 1 different coefficients"):
        check_probes(dataclasses.replace(probes, merges=same))


def test_a_task_that_was_hardly_evaluated_is_named(probes: ProbeData) -> None:
    blind = [
        dataclasses.replace(
            merge,
            **{
                f: {k: v for k, v in getattr(merge, f).items() if k != "b"} for f in ("risks", "initial_risks", "noise")
            },
        )
        for merge in probes.merges
    ]
    with pytest.raises(TooFewProbes, match=r"tasks \['b'\] were evaluated on fewer than 2 merges"):
        check_probes(dataclasses.replace(probes, merges=tuple(blind)))


@pytest.mark.parametrize("factor", [math.inf, 5.0])
def test_probes_that_all_diverged_are_refused_with_a_lower_rate(probes: ProbeData, factor: float) -> None:
    thrown = tuple(
        dataclasses.replace(merge, risks={name: factor * value for name, value in merge.initial_risks.items()})
        for merge in probes.merges
    )
    with pytest.raises(ProbesDiverged, match="probe at 0.001 and below"):
        check_probes(dataclasses.replace(probes, merges=thrown))


def test_some_diverged_probes_are_information(probes: ProbeData) -> None:
    merges = list(probes.merges)
    merges[-1] = dataclasses.replace(merges[-1], risks=dict.fromkeys(merges[-1].risks, math.inf))
    model = RiskModel().fit(dataclasses.replace(probes, merges=tuple(merges)))
    assert model.predict([merges[-1].plan]).goal[0] > model.predict([merges[0].plan]).goal[0]


def test_the_same_merge_measured_with_another_outcome_is_contradictory(probes: ProbeData) -> None:
    first = probes.merges[0]
    other = dataclasses.replace(first, risks={name: value + 0.05 for name, value in first.risks.items()})
    with pytest.raises(ContradictoryProbes, match="measure it again or give the runs their own seeds"):
        check_probes(dataclasses.replace(probes, merges=(*probes.merges, other)))


def test_another_seed_may_differ(probes: ProbeData) -> None:
    first = probes.merges[0]
    other = dataclasses.replace(first, risks={name: value + 0.05 for name, value in first.risks.items()}, seed=1)
    assert check_probes(dataclasses.replace(probes, merges=(*probes.merges, other))) is None
