import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from advisor.coefficients_hedging import hedged_coefficients
from tests.advisor.cli_fakes import FakePipeline, Ran, fake, project

__all__ = ["fake", "project"]


@pytest.fixture
def files(project: Path) -> Path:
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal((4, 3)).astype(np.float32), "b": rng.standard_normal(4).astype(np.float32)}
    save_file(base, "base.safetensors")
    for number, name in enumerate("ab", start=1):
        save_file({key: value + np.float32(0.1 * number) for key, value in base.items()}, f"{name}.safetensors")
    return project.parent


BY_FILE = ["merge", "--base", "base.safetensors", "--experts", "a=a.safetensors", "b=b.safetensors", "--out", "merged"]


def test_experts_by_file_are_merged_as_the_formula_says(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, *BY_FILE, "--coefficients", "a=0.5,b=0.25", "--json")
    value = json.loads(ran.out)
    assert ran.code == 0
    base, merged = load_file("base.safetensors"), load_file("merged/model.safetensors")
    for key in base:
        np.testing.assert_allclose(merged[key], base[key] + 0.5 * 0.1 + 0.25 * 0.2, rtol=1e-6)
    assert value["coefficients"] == {"a": 0.5, "b": 0.25}
    assert value["norms"]["a"] == pytest.approx(0.1 * 4, rel=1e-5)
    assert value["cosines"][0][1] == pytest.approx(1.0)


def test_a_method_with_options_and_text_output(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, *BY_FILE, "--method", "ties", "--coefficients", "0.4", "--option", "density=0.5")
    assert ran.code == 0
    assert "Merged by ties into merged" in ran.out
    again = Ran(capsys, *BY_FILE)
    assert again.code == 2
    assert Ran(capsys, *BY_FILE, "--overwrite").code == 0


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["merge"], "must be one run directory or project file; or give --base and --experts"),
        (["merge", "--base", "base.safetensors", "--experts", "a=a.safetensors"], "--out is missing"),
        (["merge", "--experts", "a=a.safetensors", "--out", "x"], "--base is missing"),
        ([*BY_FILE[:3], "--out", "x"], "must name at least one"),
        ([*BY_FILE, "c.safetensors"], "expert='c.safetensors' must read name=file"),
        ([*BY_FILE, "a=b.safetensors"], "names 'a' twice"),
        ([*BY_FILE, "--coefficients", "a=x,b=1"], "must hold numbers; write a=0.3,b=0.2"),
        ([*BY_FILE, "--coefficients", "a=1"], "name each expert once"),
        ([*BY_FILE, "--method", "magic"], "method='magic' is unknown"),
        ([*BY_FILE, "--option", "densty=1", "--method", "ties"], "densty"),
        ([*BY_FILE, "--option", "densty=1", "--method", "ties"], "its options: density, scope, aggregate"),
        ([*BY_FILE, "--method", "regmean"], "needs grams=, one map for each expert, which a model and data give"),
        ([*BY_FILE, "--option", "keep_base=head*"], "is none of the method's; write --keep-base"),
        ([*BY_FILE, "--keys", "some"], "keys='some' must be 'strict' or 'common'"),
        ([*BY_FILE, "--coefficients", "auto", "--keys", "common"], "tuned on checkpoints that fit as they are"),
        ([*BY_FILE, "--data", "project.yaml"], "is used by --coefficients auto alone"),
        ([*BY_FILE, "--labels", "5"], "go with --coefficients auto alone"),
        ([*BY_FILE, "--method", "auto"], "go with --coefficients auto alone"),
        ([*BY_FILE, "--coefficients", "auto", "--labels", "5"], "chosen on data; add --data PROJECT"),
        ([*BY_FILE, "--coefficients", "auto", "--method", "ties"], "chosen on data; add --data PROJECT"),
        ([*BY_FILE, "--coefficients", "auto", "--option", "density=0.5"], "leave --option out"),
        (
            [*BY_FILE, "--coefficients", "auto", "--data", "project.yaml", "--labels", "few"],
            "must be 'all' or a whole number a class",
        ),
        (
            [*BY_FILE, "--coefficients", "auto", "--data", "project.yaml"],
            "tasks ['low', 'high'] of the project have no expert of that name",
        ),
    ],
)
def test_what_does_not_fit_is_explained_and_nothing_is_written(
    arguments: list[str], text: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, *arguments)
    assert ran.code == 2
    assert text in ran.said
    assert not Path("merged").exists()
    assert not Path("x").exists()


def test_checkpoints_that_do_not_fit_are_merged_as_far_as_asked(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, expert = load_file("base.safetensors"), load_file("a.safetensors")
    save_file({**expert, "head": np.ones(3, np.float32)}, "a.safetensors")
    refused = Ran(capsys, *BY_FILE)
    assert refused.code == 2
    assert "--keys common" in refused.err.replace("\n", " ")
    assert Ran(capsys, *BY_FILE, "--keys", "common").code == 0
    assert list(load_file("merged/model.safetensors")) == list(base)
    save_file(base, "a.safetensors")
    equal = Ran(capsys, *BY_FILE, "--overwrite")
    assert equal.code == 2
    assert "--trust-base" in equal.err
    assert Ran(capsys, *BY_FILE, "--overwrite", "--trust-base", "--coefficients", "1").code == 0
    for name, value in load_file("merged/model.safetensors").items():
        np.testing.assert_allclose(value, base[name] + 0.2, rtol=1e-6)
    for number, name in enumerate(("base", "a", "b")):
        save_file(
            {**base, "w2": base["w"] + number, "head.bias": np.ones(3 + number, np.float32)}, f"{name}.safetensors"
        )
    assert "--keep-base" in Ran(capsys, *BY_FILE, "--overwrite").err
    assert Ran(capsys, *BY_FILE, "--overwrite", "--keep-base", "head.*", "--trust-base").code == 0
    assert np.array_equal(load_file("merged/model.safetensors")["head.bias"], np.ones(3, np.float32))
    save_file(base, "base.safetensors")
    save_file(expert, "b.safetensors")
    save_file({name: value.astype(np.float64) for name, value in expert.items()}, "a.safetensors")
    wider = Ran(capsys, *BY_FILE, "--overwrite")
    assert wider.code == 2
    assert "--mixed-dtypes" in wider.err
    assert Ran(capsys, *BY_FILE, "--overwrite", "--mixed-dtypes").code == 0


def test_lora_adapters_are_experts_like_any_other(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    base = {"layer.weight": rng.normal(size=(6, 4)).astype(np.float32)}
    save_file(base, "base.safetensors")
    save_file({"layer.weight": base["layer.weight"] + np.float32(0.1)}, "b.safetensors")
    down, up = rng.normal(size=(2, 4)).astype(np.float32), 0.1 * rng.normal(size=(6, 2)).astype(np.float32)
    Path("adapter").mkdir()
    factors = {"base_model.model.layer.lora_A.weight": down, "base_model.model.layer.lora_B.weight": up}
    save_file(factors, "adapter/adapter_model.safetensors")
    Path("adapter/adapter_config.json").write_text('{"peft_type": "LORA", "r": 2, "lora_alpha": 4}')
    parts = ["merge", "--base", "base.safetensors", "--experts", "a=adapter", "b=b.safetensors", "--out", "merged"]
    assert Ran(capsys, *parts, "--coefficients", "a=0.5,b=0.25").code == 0
    expected = base["layer.weight"] + 0.5 * 2 * up @ down + 0.25 * 0.1
    np.testing.assert_allclose(load_file("merged/model.safetensors")["layer.weight"], expected, rtol=1e-5)


def test_coefficients_from_weights_alone_are_merged_and_kept(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, *BY_FILE, "--coefficients", "auto", "--json")
    assert ran.code == 0
    value = json.loads(ran.out)
    chosen = value["coefficients"]
    norms = {"a": 0.1 * 4, "b": 0.2 * 4}  # parallel task vectors, 16 numbers each
    base, merged = load_file("base.safetensors"), load_file("merged/model.safetensors")
    total = np.sqrt(sum(np.square(part).sum() for part in base.values()))
    gram = np.outer(list(norms.values()), list(norms.values()))
    np.testing.assert_allclose(list(chosen.values()), hedged_coefficients(gram, float(total)), rtol=1e-3)
    for key in base:
        np.testing.assert_allclose(merged[key], base[key] + chosen["a"] * 0.1 + chosen["b"] * 0.2, rtol=1e-5)
    assert json.loads(Path("merged/coefficients.json").read_text()) == value["tuning"]
    assert value["tuning"]["source"] == "weights"
    assert not Path("merged/coefficients-study.log").exists()
    again = Ran(capsys, *BY_FILE, "--coefficients", "auto", "--overwrite")
    assert again.code == 0
    assert "Coefficients chosen from weights alone" in again.out
    assert "90 % interval" in again.out


def test_where_the_output_cannot_go_is_said_before_anything_is_tuned(
    files: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("tuned before the output was checked")

    monkeypatch.setattr("advisor.cli_tuning.tune", never)
    Path("full").mkdir()
    Path("full/notes.txt").write_text("mine")
    for out, text in (("full", "which no merge wrote"), ("a.safetensors", "would overwrite the input")):
        ran = Ran(capsys, *BY_FILE[:-1], out, "--coefficients", "auto")
        assert ran.code == 2
        assert text in ran.said
    with monkeypatch.context() as patched:
        patched.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 10})())
        ran = Ran(capsys, *BY_FILE, "--coefficients", "auto")
    assert ran.code != 0
    assert "bytes" in ran.said or "space" in ran.said
    assert sorted(path.name for path in Path().iterdir() if path.is_dir()) == ["full"]


def test_a_dry_run_tunes_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, *BY_FILE, "--coefficients", "auto", "--data", "no-such-project.yaml", "--dry-run")
    assert ran.code == 0
    assert not Path("merged").exists()


def test_a_dry_run_merges_nothing(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ran = Ran(capsys, *BY_FILE, "--dry-run")
    assert ran.code == 0
    assert "Would merge a, b into base.safetensors" in ran.out
    assert not Path("merged").exists()


def test_a_runs_experts_are_merged_as_advised(
    fake: FakePipeline, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ran = Ran(capsys, "merge", project, "--json")
    assert ran.code == 0
    assert fake.called == ["recommend", "merge"]
    assert json.loads(ran.out)["merged"].endswith("merged/model.safetensors")
