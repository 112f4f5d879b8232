import pytest

from advisor.narrowing import DIVERGED_SHARE, NothingToSearch, diverged_rates, narrow_search
from advisor.plan import Plan
from advisor.project_search import SearchSettings
from estimators.recipe import Recipe

SEARCH = SearchSettings(learning_rate={"sgd": (1e-3, 1.0), "adamw": (1e-5, 1e-2)})


def test_a_search_whose_optimizers_were_all_probed_stays_whole_and_says_nothing():
    search, caveats = narrow_search(SEARCH, predictable={"sgd", "adamw"}, probed={"sgd", "adamw"})
    assert (search, caveats) == (SEARCH, ())


def test_an_optimizer_that_cannot_be_predicted_is_left_out_and_named():
    search, (caveat,) = narrow_search(SEARCH, predictable={"sgd"}, probed={"sgd"})
    assert search.learning_rate == {"sgd": (1e-3, 1.0)}
    assert search.steps == SEARCH.steps
    assert caveat.name == "optimizer_not_probed"
    assert "adamw was left out of the search" in caveat.text


def test_an_optimizer_predicted_from_anothers_probes_says_so():
    search, (caveat,) = narrow_search(SEARCH, predictable={"sgd", "adamw"}, probed={"sgd"})
    assert search == SEARCH
    assert caveat.text == "No probe used adamw: its predictions rest on the probes of sgd."


def test_rates_around_one_that_diverged_are_left_out():
    search, (caveat,) = narrow_search(SEARCH, predictable={"sgd", "adamw"}, diverged={"sgd": 0.1})
    assert search.learning_rate == {"sgd": (1e-3, DIVERGED_SHARE * 0.1), "adamw": (1e-5, 1e-2)}
    assert caveat.name == "expert_diverged"
    assert "sgd at learning rate 0.1" in caveat.text


def test_where_nothing_is_left_the_outcome_has_a_name():
    with pytest.raises(NothingToSearch, match=r"nothing is left to choose from; .*sgd at learning rate 0.001, so all"):
        narrow_search(SEARCH, predictable={"sgd"}, diverged={"sgd": 1e-3})


def test_the_lowest_rate_that_diverged_counts_for_each_optimizer():
    plans = [
        ("a", Plan.uniform(("a", "b"), Recipe(learning_rate=rate, batch_size=8, steps=5, optimizer=optimizer), 0.5))
        for rate, optimizer in ((0.1, "sgd"), (0.05, "sgd"), (0.01, "adamw"))
    ]
    assert diverged_rates(plans) == {"sgd": 0.05, "adamw": 0.01}
    assert diverged_rates([]) == {}
