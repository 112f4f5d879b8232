import importlib
import json
import sys
import zipfile
from pathlib import Path

import huggingface_hub
import pytest

from estimators.encoder_files import EncoderFiles, find_encoder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Files of the right names; this module never looks into weights."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"model_type": "bert", "vocab_size": 7}))
    (place / "tokenizer.json").write_text("{}")
    (place / "model.safetensors").write_bytes(b"weights")
    return place


def packed(folder: Path, path: Path, inside: str = "") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for file in folder.iterdir():
            archive.write(file, inside + file.name)
    return path


def check(files: EncoderFiles) -> None:
    assert files.config()["vocab_size"] == 7
    assert files.tokenizer() == "{}"
    assert files.read("model.safetensors") == b"weights"


def test_a_folder_and_a_zip_of_it_hold_the_same_files(folder: Path, tmp_path: Path) -> None:
    check(find_encoder("m", folder))
    check(find_encoder("m.zip", packed(folder, tmp_path / "m.zip")))
    check(find_encoder("n.zip", packed(folder, tmp_path / "n.zip", "deep/inside/")))


@pytest.mark.parametrize("how", ["itself", "folder", "zip"])
def test_an_installed_package_is_found_and_not_imported(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    package = tmp_path / f"carrier_{how}"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    if how == "zip":
        packed(folder, package / "model.zip")
    else:
        target = package if how == "itself" else package / "weights"
        target.mkdir(exist_ok=True)
        for file in folder.iterdir():
            (target / file.name).write_bytes(file.read_bytes())
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    check(find_encoder(f"package/carrier_{how}", tmp_path / "nowhere"))
    assert f"carrier_{how}" not in sys.modules


def test_packages_without_one_model_are_refused(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("not_there_at_all", "no/identifier", "json.decoder"):
        with pytest.raises(ValueError, match="is installed; install it, or name a folder"):
            find_encoder(f"package/{name}", tmp_path)
    package = tmp_path / "carrier_of_two"
    package.mkdir()
    (package / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    with pytest.raises(ValueError, match="the package holds 0 models"):
        find_encoder("package/carrier_of_two", tmp_path)
    packed(folder, package / "one.zip")
    packed(folder, package / "two.zip")
    with pytest.raises(ValueError, match="the package holds 2 models .* unpack the model and name its folder"):
        find_encoder("package/carrier_of_two", tmp_path)


def test_nothing_is_fetched_unless_asked(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetch(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    with pytest.raises(ValueError, match=r"is neither a folder nor a .zip .* set backbone.pretrained: true"):
        find_encoder("owner/model", tmp_path / "owner/model")
    assert asked == []
    check(find_encoder("owner/model", tmp_path / "owner/model", from_hub=True))
    assert asked == [("owner/model", ["config.json", "tokenizer.json", "model.safetensors"])]


def test_a_hub_out_of_reach_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> str:
        raise ConnectionError("no route")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(ValueError, match=r"could not be fetched \(ConnectionError: no route\); check the connection"):
        find_encoder("owner/model", tmp_path, from_hub=True)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_missing_file_is_named(folder: Path, tmp_path: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    for place in (folder, packed(folder, tmp_path / "m.zip")):
        with pytest.raises(ValueError, match=rf"lacks .*{name}.*save it with save_pretrained \(safetensors"):
            find_encoder("m", place)


def test_files_that_are_far_too_large_are_not_read(folder: Path, tmp_path: Path) -> None:
    (folder / "config.json").write_text(" " * (2**20 + 1))
    for place in (folder, packed(folder, tmp_path / "m.zip")):
        with pytest.raises(ValueError, match="config.json has 1,048,577 bytes, at most 1,048,576 are read"):
            find_encoder("m", place).config()
    (folder / "config.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="config.json cannot be read"):
        find_encoder("m", folder).config()


def test_damaged_descriptions_are_refused(folder: Path, tmp_path: Path) -> None:
    files = find_encoder("m", folder)
    (folder / "tokenizer.json").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="tokenizer.json is not UTF-8"):
        files.tokenizer()
    for content, said in (("{", "config.json cannot be read"), ("[]", "names no model_type")):
        (folder / "config.json").write_text(content)
        with pytest.raises(ValueError, match=said):
            files.config()
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match="config.json cannot be read"):
        files.config()
    (tmp_path / "a.txt").write_text("no archive")
    with pytest.raises(ValueError, match="is neither a folder nor a .zip; name the folder that holds config.json"):
        find_encoder("a.txt", tmp_path / "a.txt")
