from dataclasses import replace

from advisor.report_figures import report_figures
from tests.advisor import advice_samples as samples


def test_figures_are_those_that_the_run_has_values_for() -> None:
    bare = report_figures(samples.recommendation(terms={}), samples.constants(), None, cost={})
    assert set(bare) == {"risk_against_cost", "constants", "gradient_cosines", "relative_sharpness"}
    probes = replace(samples.probe_data(), traces=(), merges=())
    with_probes = report_figures(samples.recommendation(), samples.constants(), None, cost={}, probes=probes)
    assert "probe_traces" not in with_probes


def test_the_edge_belongs_to_the_learning_rate_of_the_advised_optimizer() -> None:
    curves = [samples.curve(knob) for knob in ("learning_rate", "steps")]
    drawn = report_figures(samples.recommendation(), samples.constants(), None, cost={}, curves=curves)
    assert "stability edge" in drawn["risk_against_learning_rate"].alt
    assert "stability edge" not in drawn["risk_against_steps"].alt
    other = report_figures(samples.recommendation(edges={}), samples.constants(), None, cost={}, curves=curves)
    assert "stability edge" not in other["risk_against_learning_rate"].alt
