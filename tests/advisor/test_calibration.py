"""Coverage against draws from the predictive distribution itself."""

import dataclasses
import math

import numpy as np
import pytest

from advisor.calibration import Z90, calibrate
from advisor.goal import Goal
from advisor.risk_model import RiskModel
from advisor.what_if import WhatIf
from tests.advisor.quadratic_merges import QuadraticWorld


def test_measurements_drawn_from_the_predictions_are_covered_as_promised() -> None:
    world = QuadraticWorld.drawn()
    probes = world.probes()
    ask = WhatIf(model=RiskModel().fit(probes), goal=Goal(weights=dict.fromkeys(world.names, 1.0)))
    cells = ask.goals([merge.plan for merge in probes.merges])
    generator = np.random.default_rng(1)
    drawn = []
    for merge, cell in list(zip(probes.merges, cells, strict=True)) * 5:
        z = generator.standard_normal()
        width = math.log(cell.high / cell.value) if z > 0 else math.log(cell.value / cell.low)
        value = cell.value * math.exp(z * width / Z90)
        drawn.append(dataclasses.replace(merge, risks=dict.fromkeys(world.names, value)))
    found = calibrate(ask, drawn)
    assert found is not None
    count = len(found.measured)
    for level, coverage in zip(found.levels, found.coverage, strict=True):
        assert abs(coverage - level) < 4 * math.sqrt(level * (1 - level) / count)


def test_merges_that_diverged_or_miss_a_task_are_left_out() -> None:
    world = QuadraticWorld.drawn()
    probes = world.probes()
    ask = WhatIf(model=RiskModel().fit(probes), goal=Goal(weights=dict.fromkeys(world.names, 1.0)))
    dead = dataclasses.replace(probes.merges[0], risks=dict.fromkeys(world.names, math.inf))
    found = calibrate(ask, [dead, probes.merges[1]])
    assert found is not None
    assert (len(found.measured), found.left_out) == (1, 1)
    assert found.predicted[0] == pytest.approx(ask.goals([probes.merges[1].plan])[0].value)
    assert calibrate(ask, [dead]) is None


def test_merges_measured_on_easy_samples_count_from_the_models_level() -> None:
    """The same ratios to x_0 on samples where every loss is a third: nothing changes."""
    world = QuadraticWorld.drawn()
    probes = world.probes()
    ask = WhatIf(model=RiskModel().fit(probes), goal=Goal(weights=dict.fromkeys(world.names, 1.0)))
    easy = [
        dataclasses.replace(
            merge,
            risks={name: risk / 3 for name, risk in merge.risks.items()},
            initial_risks={name: risk / 3 for name, risk in merge.initial_risks.items()},
        )
        for merge in probes.merges
    ]
    usual, found = calibrate(ask, probes.merges), calibrate(ask, easy)
    assert usual is not None
    assert found is not None
    np.testing.assert_allclose(found.measured, usual.measured)
    assert found.coverage == usual.coverage
