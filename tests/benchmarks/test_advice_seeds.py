"""Advice over seeds: the live path on a tiny project, and its summary by hand."""

import numpy as np
import pytest

from advisor.workspace import open_workspace
from benchmarks.advice_seeds import best_gain, judge_seed, summarise
from tests.advisor.tiny_path import write_project


def row(gain: float, rate: float, optimizer: str = "adamw", *, holds: bool = True) -> dict:
    recipe = {"learning_rate": rate, "optimizer": optimizer}
    return {"gain": gain, "recipe": recipe, "interval_holds": holds, "cost": 0.2}


def test_spread_and_rates_are_told_for_each_optimizer():
    rows = [row(0.10, 1e-4), row(0.06, 3e-4), row(-0.01, 1e-2, "sgd", holds=False)]
    found = summarise(rows, best=0.1)
    assert found["gain"]["mean"] == pytest.approx(0.05)
    assert found["gain"]["sd"] == pytest.approx(np.std([0.10, 0.06, -0.01], ddof=1))
    assert found["better_than_pretrained"] == 2
    assert found["interval_holds"] == 2
    assert found["rate_factor"] == {"adamw": pytest.approx(3.0), "sgd": 1.0}
    assert found["advised"] == {"adamw": 2, "sgd": 1}
    assert found["regret"]["mean"] == pytest.approx(np.mean([0.0, 0.4, 1.1]))


def test_a_project_without_a_suite_has_no_best_gain():
    assert best_gain("no-such-suite") is None
    assert "regret" not in summarise([row(0.1, 1e-4)], None)


def test_the_best_gain_is_that_of_the_stored_grid():
    """Every seed's best uniform, mixed or method merge; no merge of the tables is better."""
    from benchmarks.advice_seeds import SUITES
    from benchmarks.suite_format import load_suite

    suite = load_suite(SUITES / "vit-flipped")
    gains = []
    for seed in map(int, suite.seeds):
        kinds = ("uniform", "mixed", "method", "subset", "alone")
        rows = np.concatenate([suite.rows(seed, (kind,)) for kind in kinds])
        gains.append(1 - np.nanmin(suite.figures["test"][rows].mean(axis=1)) / suite.initial(seed, "test").mean())
    best = best_gain("vit-flipped")
    assert best is not None
    assert 0.05 < best <= np.mean(gains) + 1e-9


def test_the_live_path_is_judged_once_a_seed(tmp_path):
    write_project(tmp_path)
    ws = open_workspace(tmp_path / "project.yaml", tmp_path / "run", seed=3)
    found = judge_seed(ws)
    assert found["gain"] == pytest.approx(1 - found["advised"] / found["pretrained"])
    assert found["interval_holds"] == (found["low"] <= found["advised"] <= found["high"])
    assert found["probes"] >= 1
    assert 0 < found["cost"] < 10
    assert judge_seed(open_workspace(tmp_path / "run")) == found
