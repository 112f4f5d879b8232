from pathlib import Path

import pytest
import torch

from estimators.backbone_files import DamagedBackbone, load_backbone, store_backbone
from estimators.backbone_loading import BackboneSource, backbone_fingerprint, build_backbone, resolve

SOURCE = resolve(BackboneSource(name="test_resnet", image_size=32, seed=3, frozen=("conv1",)))[0]


def test_weights_come_back_bit_for_bit_and_ready_to_use(tmp_path: Path) -> None:
    assert load_backbone(tmp_path, SOURCE, basis="b") is None
    backbone, notes = build_backbone(SOURCE)
    store_backbone(tmp_path, SOURCE, backbone, notes, basis="b")
    loaded = load_backbone(tmp_path, SOURCE, basis="b")
    assert loaded is not None
    again, said = loaded
    assert said == notes
    assert torch.equal(again.initial, backbone.initial)
    assert again.names == backbone.names
    assert again.feature_dim == backbone.feature_dim
    assert backbone_fingerprint(again) == backbone_fingerprint(backbone)


@pytest.mark.parametrize("damage", ["truncated", "gone", "other model", "other settings", "description"])
def test_damaged_weights_are_refused_by_name(tmp_path: Path, damage: str) -> None:
    backbone, notes = build_backbone(SOURCE)
    store_backbone(tmp_path, SOURCE, backbone, notes, basis="b")
    basis = "b"
    weights, source, said = tmp_path / "backbone.safetensors", SOURCE, "backbone.safetensors.*SHA-256 differs"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-5])
    elif damage == "gone":
        weights.unlink()
        said = "backbone.json.*cannot be read back"
    elif damage == "other model":
        source, said = resolve(BackboneSource(name="test_resnet", image_size=64))[0], "describes another model"
    elif damage == "other settings":
        basis, said = "c", "made from other settings"
    else:
        (tmp_path / "backbone.json").write_text("{")
        said = "backbone.json.*cannot be read back"
    with pytest.raises(DamagedBackbone, match=said):
        load_backbone(tmp_path, source, basis=basis)
