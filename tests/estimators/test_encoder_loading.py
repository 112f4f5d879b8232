import json
from pathlib import Path

import pytest
import safetensors.torch
import torch

from estimators.backbone import TorchBackbone
from estimators.backbone_files import DamagedBackbone, load_backbone, store_backbone
from estimators.backbone_kinds import blank_inputs, build_backbone, described, resolve, sample_form
from estimators.backbone_loading import backbone_fingerprint
from estimators.encoder_files import find_encoder
from estimators.encoder_loading import ENCODERS, EncoderSource, around_encoder
from estimators.tokenising import PADDING
from tests import small_encoders
from tests.small_encoders import CONFIG, write_encoder

transformers = pytest.importorskip("transformers", reason="needs the extra 'text'")


def source(folder: Path, **changes) -> EncoderSource:
    return EncoderSource(files=find_encoder(folder.name, folder), **({"max_length": 8} | changes))


def rewrite(folder: Path, change) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(safetensors.torch.save(change(safetensors.torch.load(path.read_bytes()))))


def rows() -> torch.Tensor:
    return torch.tensor([[2, 4, 9, 13, 3], [2, 5, 3, PADDING, PADDING]], dtype=torch.int32)


def test_features_are_those_of_the_library_with_its_own_mask(tmp_path: Path) -> None:
    backbone, notes = build_backbone(source(write_encoder(tmp_path / "m")))
    model = small_encoders.build()
    for row in rows():
        ids = row[row != PADDING].long()[None]
        alone = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state.mean(dim=1)
        torch.testing.assert_close(backbone.features(backbone.initial, row[None]), alone, atol=1e-5, rtol=1e-4)
    together = model(input_ids=rows().clamp(min=0).long(), attention_mask=(rows() >= 0).long()).last_hidden_state
    torch.testing.assert_close(
        backbone.features(backbone.initial, rows())[1], together[1, :3].mean(dim=0), atol=1e-5, rtol=1e-4
    )
    assert notes == ()


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_listed_type_is_read_and_does_not_look_at_padding(tmp_path: Path, kind: str) -> None:
    changes: dict[str, object] = {"model_type": kind, "pad_token_id": 1, "max_position_embeddings": 26}
    if kind == "distilbert":
        changes |= {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32}
    if kind in ("albert", "electra"):
        changes |= {"embedding_size": 16}
    folder = write_encoder(tmp_path / "m", CONFIG | changes)
    backbone, _ = build_backbone(source(folder))
    found = backbone.features(backbone.initial, rows())
    alone = backbone.features(backbone.initial, rows()[1:, :3])
    assert found.shape == (2, 16)
    torch.testing.assert_close(found[1:], alone, atol=1e-5, rtol=1e-4)
    assert not any(name.startswith("pooler.") for name in backbone.names)


def test_names_are_the_librarys_so_that_a_merge_goes_back(tmp_path: Path) -> None:
    backbone, _ = build_backbone(source(write_encoder(tmp_path / "m")))
    model = small_encoders.build(seed=1)
    model.load_state_dict(backbone.state_dict(backbone.initial), strict=True)
    assert torch.equal(backbone.flatten(model.state_dict()), backbone.initial)


def test_weights_of_a_model_with_a_head_are_taken_without_it(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "m")
    plain, _ = build_backbone(source(folder))
    rewrite(
        folder,
        lambda state: (
            {f"bert.{name}": value for name, value in state.items() if not name.startswith("pooler.")}
            | {"classifier.weight": torch.zeros(2, 16), "bert.embeddings.position_ids": torch.arange(24)}
        ),
    )
    found, notes = build_backbone(source(folder))
    assert torch.equal(found.initial, plain.initial)
    assert notes == ("backbone='m': model.safetensors: dropped what is not the encoder (classifier.weight)",)


def test_half_precision_is_computed_in_float32_and_said(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "m")
    rewrite(folder, lambda state: {name: value.half() for name, value in state.items()})
    backbone, notes = build_backbone(source(folder))
    assert backbone.initial.dtype == torch.float32
    assert "stored as torch.float16, computed in float32" in notes[0]


def test_weights_that_do_not_fit_are_refused_by_name(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "m")
    whole = safetensors.torch.load((folder / "model.safetensors").read_bytes())
    key = "encoder.layer.1.output.dense.weight"
    for change, said in (
        ({key: None}, rf"1 tensors are missing \({key}\)"),
        ({"strange.weight": torch.zeros(2)}, r"1 are unexpected \(strange.weight\)"),
        ({key: torch.zeros(3, 3)}, r"has shape \(3, 3\), not \(16, 32\)"),
        ({key: torch.full((16, 32), torch.nan)}, "values that are not finite"),
    ):
        changed = {name: value for name, value in (whole | change).items() if value is not None}
        rewrite(folder, lambda _, changed=changed: changed)
        with pytest.raises(ValueError, match=said):
            build_backbone(source(folder))
    (folder / "model.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"model.safetensors is damaged .*; take an undamaged file"):
        build_backbone(source(folder))


def test_code_beside_a_model_is_not_run(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "m")
    (folder / "evil.py").write_text("raise RuntimeError('run')")
    named = {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}}
    (folder / "config.json").write_text(json.dumps(CONFIG | named))
    build_backbone(source(folder))
    (folder / "config.json").write_text(json.dumps(CONFIG | named | {"model_type": "evil"}))
    with pytest.raises(ValueError, match="is of type 'evil'; text encoders are albert, bert"):
        build_backbone(source(folder))


def test_lengths_follow_the_models_positions(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "m")
    assert resolve(source(folder, max_length=None))[0].max_length == 24
    with pytest.raises(ValueError, match="max_length=25 is beyond the 24 positions"):
        resolve(source(folder, max_length=25))
    (folder / "config.json").write_text(json.dumps(CONFIG | {"model_type": "roberta", "pad_token_id": 1}))
    assert resolve(source(folder, max_length=None))[0].max_length == 22
    with pytest.raises(ValueError, match="max_length is open; resolve the source first"):
        blank_inputs(source(folder, max_length=None), 2)


def test_a_configuration_that_cannot_be_built_is_refused(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"num_attention_heads": 3}))
    with pytest.raises(ValueError, match=r"backbone='m' could not be built \(ValueError"):
        build_backbone(source(folder))


def test_an_encoder_that_looks_at_padding_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from estimators import encoder_loading
    from estimators.token_reading import TokenReading

    class Careless(TokenReading):
        def arguments(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            given = super().arguments(inputs)
            return given | {"attention_mask": torch.zeros_like(given["attention_mask"])}

    monkeypatch.setattr(encoder_loading, "TokenReading", Careless)
    with pytest.raises(ValueError, match="other features when it is padded"):
        build_backbone(source(write_encoder(tmp_path / "m")))


def test_a_run_keeps_the_encoder_and_gives_it_back(tmp_path: Path) -> None:
    own = resolve(source(write_encoder(tmp_path / "m"), frozen=("embeddings",)))[0]
    backbone, notes = build_backbone(own)
    store_backbone(tmp_path, own, backbone, notes, basis="b")
    found = load_backbone(tmp_path, own, basis="b")
    assert found is not None
    assert backbone_fingerprint(found[0]) == backbone_fingerprint(backbone)
    assert found[0].names == backbone.names
    assert found[0].feature_dim == 16
    assert torch.equal(found[0].features(found[0].initial, rows()), backbone.features(backbone.initial, rows()))
    with pytest.raises(DamagedBackbone, match="describes another model"):
        load_backbone(tmp_path, resolve(source(tmp_path / "m", max_length=9))[0], basis="b")


def test_the_source_says_what_it_reads(tmp_path: Path) -> None:
    own = resolve(source(write_encoder(tmp_path / "m")))[0]
    assert described(own) == "texts of at most 8 tokens"
    assert blank_inputs(own, 3).shape == (3, 8)
    assert sample_form(own).about["max_length"] == 8


def test_a_backbone_around_another_module_reads_the_same_way(tmp_path: Path) -> None:
    own = resolve(source(write_encoder(tmp_path / "m")))[0]
    first: TorchBackbone = build_backbone(own)[0]
    second = first.around(small_encoders.build(seed=1))
    assert second.frozen == first.frozen
    assert torch.equal(
        second.features(second.initial, rows()),
        around_encoder(small_encoders.build(seed=1), own).features(second.initial, rows()),
    )
