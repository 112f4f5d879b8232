from advisor.figures import cost_by_purpose, risk_against_cost
from tests.advisor import advice_samples as samples


def test_the_front_the_alternatives_and_the_advice_stand_in_one_plane() -> None:
    recommendation = samples.recommendation()
    figure, alt = risk_against_cost(recommendation)
    front, alternatives, advised = figure.data
    assert list(front.x) == sorted(plan.cost for plan in recommendation.pareto)
    assert (alternatives.x[0], advised.x[0]) == (10240, 40960)
    assert "0.375 at 40,960 per-sample gradients" in alt


def test_advice_without_alternatives_is_drawn_too() -> None:
    figure, _ = risk_against_cost(samples.recommendation(alternatives=(), pareto=()))
    assert [trace.name for trace in figure.data] == ["advised"]


def test_costs_are_compared_with_a_full_fine_tune() -> None:
    _, alt = cost_by_purpose({"heads": 300.0, "probes": 12_000.0}, 24_600.0)
    assert "heads 300, probes 12,000; 12,300 in all, 0.5 full fine-tunes" in alt
