import dataclasses
from pathlib import Path

import pytest
import torch

from estimators.cost import CostMeter
from estimators.head_files import DamagedHead, head_path, load_head, store_head
from estimators.heads import fit_head
from tests.estimators.test_heads import Identity, task


def test_a_stored_head_comes_back_with_how_it_was_fitted(tmp_path: Path) -> None:
    fit = fit_head(Identity(5), task([20, 20, 20]), seed=0, meter=CostMeter())
    store_head(tmp_path, "a", fit, basis="x0|data")
    again = load_head(tmp_path, "a", basis="x0|data")
    assert torch.equal(again.head.weight, fit.head.weight)
    assert torch.equal(again.head.bias, fit.head.bias)
    assert (again.strength, again.cross_validated_risk, again.units) == (
        fit.strength,
        fit.cross_validated_risk,
        fit.units,
    )
    assert again.caveats == fit.caveats
    assert torch.equal(again.held_out_losses, fit.held_out_losses)


def test_a_head_stored_without_held_out_losses_is_read(tmp_path: Path) -> None:
    fit = dataclasses.replace(fit_head(Identity(5), task([20, 20]), seed=0, meter=CostMeter()), held_out_losses=None)
    store_head(tmp_path, "a", fit, basis="x0|data")
    assert load_head(tmp_path, "a", basis="x0|data").held_out_losses is None


def test_a_head_of_other_weights_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    fit = fit_head(Identity(5), task([20, 20]), seed=0, meter=CostMeter())
    store_head(tmp_path, "a", fit, basis="x0|data")
    with pytest.raises(DamagedHead, match="fitted on other weights or samples; fit it again"):
        load_head(tmp_path, "a", basis="x1|data")
    path = head_path(tmp_path, "a")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedHead, match="a.safetensors.*SHA-256 differs"):
        load_head(tmp_path, "a", basis="x0|data")
    path.write_bytes(data[:-9])
    with pytest.raises(DamagedHead, match="a.safetensors.*fit it again"):
        load_head(tmp_path, "a", basis="x0|data")
    with pytest.raises(DamagedHead, match="b.safetensors.*fit it again"):
        load_head(tmp_path, "b", basis="x0|data")
