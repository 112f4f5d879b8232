from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from advisor.merging import merge_state_dicts
from tests.advisor.merging.checkpoints import parameters, random_base, random_experts, random_fisher

COUNT = 3


@pytest.mark.parametrize("normalize", [True, False])
def test_fisher_merging_is_its_formula(normalize: bool) -> None:
    base = random_base()
    experts = random_experts(base, COUNT)
    fisher = [random_fisher(base, seed) for seed in range(COUNT)]
    shares = [0.5, 0.3, 0.2]
    merged = merge_state_dicts(
        base, experts, method="fisher", fisher=fisher, coefficients=shares, normalize=normalize, epsilon=1e-3
    )
    norms = [np.sqrt(sum(float((f[n] ** 2).sum()) for n in f)) if normalize else 1.0 for f in fisher]
    for name in parameters(base):
        weights = [s / n * (f[name] + 1e-3) for s, n, f in zip(shares, norms, fisher, strict=True)]
        expected = sum(w * e[name] for w, e in zip(weights, experts, strict=True)) / sum(weights)
        np.testing.assert_allclose(merged[name], expected, rtol=1e-4, atol=1e-5)
    variances = [e["bn.running_var"] for e in experts]
    np.testing.assert_allclose(merged["bn.running_var"], np.average(variances, axis=0, weights=shares), rtol=1e-5)


def test_equal_information_is_the_average_and_files_work_by_label(tmp_path: Path) -> None:
    base = random_base()
    experts = dict(zip("ab", random_experts(base, 2), strict=True))
    save_file(random_fisher(base, 0), tmp_path / "f.safetensors")
    merged = merge_state_dicts(base, experts, method="fisher", fisher=dict.fromkeys("ba", tmp_path / "f.safetensors"))
    average = merge_state_dicts(base, experts, method="average")
    for name in base:
        np.testing.assert_allclose(merged[name], average[name], rtol=1e-5, atol=1e-6)


def test_tensors_without_information_take_the_average() -> None:
    base = random_base()
    experts = random_experts(base, 2)
    fisher = [{n: f for n, f in random_fisher(base, seed).items() if n != "cls_token"} for seed in range(2)]
    merged = merge_state_dicts(base, experts, method="fisher", fisher=fisher)
    expected = (experts[0]["cls_token"] + experts[1]["cls_token"]) / 2
    np.testing.assert_allclose(merged["cls_token"], expected, rtol=1e-5, atol=1e-6)


def test_wrong_information_is_refused() -> None:
    base = random_base()
    experts = random_experts(base, 2)
    good = random_fisher(base, 0)
    with pytest.raises(ValueError, match=r"statistics for \[0\], experts are \['expert0', 'expert1'\]"):
        merge_state_dicts(base, experts, method="fisher", fisher=[good])
    with pytest.raises(ValueError, match="expert 1: tensor 'cls_token' holds negative or NaN"):
        merge_state_dicts(base, experts, method="fisher", fisher=[good, {**good, "cls_token": -good["cls_token"]}])
    with pytest.raises(ValueError, match=r"tensor 'cls_token' has shape \(8,\), expected \(1, 1, 8\)"):
        merge_state_dicts(
            base, experts, method="fisher", fisher=[good, {**good, "cls_token": good["cls_token"].ravel()}]
        )
    with pytest.raises(ValueError, match="expert 1: zero everywhere"):
        merge_state_dicts(base, experts, method="fisher", fisher=[good, {n: 0 * f for n, f in good.items()}])
    with pytest.raises(ValueError, match="epsilon=0 must be above 0"):
        merge_state_dicts(base, experts, method="fisher", fisher=[good, good], epsilon=0)
