from typing import Any

import numpy as np
import pytest
import yaml

from advisor.merging import merge_with_result
from advisor.merging.mergekit_recipe import MergekitRecipe, write_recipe
from advisor.merging.results import MergeResult
from tests.advisor.merging.checkpoints import State, needed_options, parameters, random_base, random_experts


def weights_only(seed: int = 0) -> State:
    base = random_base(seed)
    return {name: base[name] for name in parameters(base)}


def finished(method: str, count: int = 3, base: State | None = None, **settings: Any) -> MergeResult:
    base = weights_only() if base is None else base
    experts = random_experts(base, count)
    options = needed_options(method, base, count)
    return merge_with_result(base, experts, method=method, **options, **settings)[1]


def recipe_of(result: MergeResult) -> MergekitRecipe:
    places = {label: f"/models/{label}.safetensors" for label in result.labels}
    return write_recipe(result, base="/models/base.safetensors", experts=places, dtypes={"F32"})


def test_task_arithmetic_translates_weight_by_weight() -> None:
    config = yaml.safe_load(recipe_of(finished("task_arithmetic", coefficients=[0.1, 0.2, 0.3])).text)
    assert config["merge_method"] == "task_arithmetic"
    assert config["base_model"] == "/models/base.safetensors"
    assert [model["parameters"]["weight"] for model in config["models"]] == [0.1, 0.2, 0.3]
    assert config["parameters"] == {"normalize": False}
    assert config["dtype"] == "float32"


def test_averages_ties_slerp_and_metagpt_translate() -> None:
    linear = yaml.safe_load(recipe_of(finished("weighted_average", coefficients=[1, 1, 2])).text)
    assert "base_model" not in linear
    assert [model["parameters"]["weight"] for model in linear["models"]] == [0.25, 0.25, 0.5]
    ties = yaml.safe_load(recipe_of(finished("ties", scope="tensor", density=0.3, coefficients=0.7)).text)
    assert ties["parameters"] == {"normalize": True, "lambda": 0.7}
    assert ties["models"][0]["parameters"] == {"weight": 1.0, "density": 0.3}
    summed = yaml.safe_load(recipe_of(finished("ties", scope="tensor", aggregate="sum")).text)
    assert summed["parameters"] == {"normalize": False}
    slerp = yaml.safe_load(recipe_of(finished("slerp", 2, coefficients=[0.25, 0.75])).text)
    assert slerp["base_model"] == "/models/expert0.safetensors"
    assert slerp["parameters"] == {"t": 0.75}
    metagpt = finished("metagpt")
    config = yaml.safe_load(recipe_of(metagpt).text)
    shares = metagpt.norms**2 / (metagpt.norms**2).sum()
    np.testing.assert_allclose([model["parameters"]["weight"] for model in config["models"]], shares)


def test_model_stock_translates_only_without_the_clamp() -> None:
    base = weights_only()
    experts = random_experts(base, 2)
    experts[1] = {n: np.asarray(0.9 * experts[0][n] + 0.1 * experts[1][n]) for n in base}
    _, result = merge_with_result(base, experts, method="model_stock")
    assert yaml.safe_load(recipe_of(result).text)["merge_method"] == "model_stock"
    assert "needs our clamp" in recipe_of(finished("model_stock")).reason


@pytest.mark.parametrize(
    ("method", "settings", "reason"),
    [
        ("ties", {}, "scope='tensor' would match"),
        ("ties", {"scope": "tensor", "aggregate": "max"}, "no largest-magnitude merge"),
        ("ties", {"scope": "tensor", "coefficients": [1, 1, 2]}, "unequal coefficients"),
        ("dare", {}, "draws other masks"),
        ("breadcrumbs", {}, "rounds the number of dropped values"),
        ("model_stock", {"pairs": "angle"}, "averages cosines, not angles"),
        ("slerp", {}, "takes exactly two models"),
        ("tsv_m", {}, "has no tsv_m"),
        ("task_arithmetic", {"keep_base": ["scale"]}, "'scale' was kept from the base"),
        ("task_arithmetic", {"tensor_coefficients": {"scale": [1, 1, 1]}}, "coefficients, which mergekit's filters"),
    ],
)
def test_reasons_are_given_where_mergekit_would_differ(method: str, settings: dict[str, Any], reason: str) -> None:
    assert reason in recipe_of(finished(method, **settings)).reason


def test_statistics_counters_and_memory_are_reasons_too() -> None:
    base = random_base()
    assert "'bn.num_batches_tracked' was kept" in recipe_of(finished("task_arithmetic", base=base)).reason
    del base["bn.num_batches_tracked"]
    assert recipe_of(finished("task_arithmetic", base=base)).text
    assert "BatchNorm statistics such as" in recipe_of(finished("ties", base=base, scope="tensor")).reason
    assert "are averaged here" in recipe_of(finished("metagpt", base=base)).reason
    result = finished("average")
    in_memory = write_recipe(result, base="", experts=dict.fromkeys(result.labels, ""), dtypes={"F32"})
    assert "in memory" in in_memory.reason
    places = dict.fromkeys(result.labels, "/m")
    assert "writes one dtype" in write_recipe(result, base="/b", experts=places, dtypes=["F16", "F32"]).reason


def test_a_recipe_has_a_text_or_a_reason() -> None:
    with pytest.raises(ValueError, match="give exactly one"):
        MergekitRecipe()
