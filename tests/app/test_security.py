"""The app serves this machine alone, trusts no name, no address and no file, and shows no traceback."""

import ast
import json
import pickle
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import safetensors.numpy

from advisor.runs import RunDirectory
from app import showing
from tests.advisor.advice_samples import EVIL, recommendation
from tests.app.app_server import HOME, ask, serving, status
from tests.app.conftest import Open, texts

WEBSOCKET = """GET /_stcore/stream HTTP/1.1
Host: {host}
Upgrade: websocket
Connection: Upgrade
Sec-WebSocket-Version: 13
Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="""


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with serving(tmp_path_factory.mktemp("server")) as found:
        yield found


def test_server_is_not_reachable_at_another_address(port: int) -> None:
    assert status(ask(port, "GET /_stcore/health HTTP/1.1\nHost: 127.0.0.1")) == 200
    # the whole of 127/8 is this machine; a server bound to all interfaces would answer at 127.0.0.2
    with pytest.raises(ConnectionRefusedError, match="refused"):
        ask(port, "GET /_stcore/health HTTP/1.1\nHost: 127.0.0.2", address="127.0.0.2")


def test_foreign_host_header_gets_no_session(port: int) -> None:
    assert status(ask(port, WEBSOCKET.format(host=f"127.0.0.1:{port}"))) == 101
    assert status(ask(port, WEBSOCKET.format(host="evil.example"))) == 403


def test_foreign_origin_gets_no_session(port: int) -> None:
    request = WEBSOCKET.format(host=f"127.0.0.1:{port}") + "\nOrigin: https://evil.example"
    assert status(ask(port, request)) == 403


def test_upload_without_token_is_refused_for_that_reason(port: int) -> None:
    """Uploads into a living session, and oversize ones, are in ``test_browser_sessions``."""
    health = ask(port, f"GET /_stcore/health HTTP/1.1\nHost: 127.0.0.1:{port}")
    (token,) = re.findall(r"_streamlit_xsrf=([^;]+)", health)
    request = f"PUT /_stcore/upload_file/session/file HTTP/1.1\nHost: 127.0.0.1:{port}\nContent-Length: 4"
    cookie = f"{request}\nCookie: _streamlit_xsrf={token}"
    assert status(ask(port, request, b"data")) == 403
    assert status(ask(port, cookie, b"data")) == 403  # what another site's page could make a browser send
    assert status(ask(port, f"{cookie}\nX-Xsrftoken: {token}", b"data")) == 400  # that gets further: no such session


@pytest.mark.parametrize("path", ["/media/../../../etc/passwd", "/static/%2e%2e/%2e%2e/etc/passwd", "/..%2f..%2fetc"])
def test_address_leads_to_no_file(port: int, path: str) -> None:
    answer = ask(port, f"GET {path} HTTP/1.1\nHost: 127.0.0.1:{port}")
    assert "root:" not in answer
    assert status(answer) in (200, 400, 403, 404)


def test_settings_beside_the_entry_are_the_safe_ones() -> None:
    settings = tomllib.loads((HOME / "app" / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    server = settings["server"]
    assert server["address"] == "127.0.0.1"
    assert set(server["allowedHosts"]) == {"127.0.0.1", "localhost"}
    assert server["enableXsrfProtection"] is True
    assert server["enableCORS"] is True
    assert server["maxUploadSize"] <= 64
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["client"]["showErrorDetails"] == "none"


@pytest.mark.parametrize("run_id", ["../finished", "..", "/etc", "a/b", "finished/../failed", "%2e%2e", "a\x00b"])
def test_run_id_that_is_no_plain_name_is_refused(open_page: Open, run_id: str) -> None:
    at = open_page("probe", run_id)
    assert not at.exception
    assert "is not the id of a run" in at.error[0].value


def test_link_among_the_runs_is_not_followed(open_page: Open, root: Path, tmp_path: Path) -> None:
    (root / "finished").rename(tmp_path / "elsewhere")
    (root / "link").symlink_to(tmp_path / "elsewhere")
    assert "There is no run" in texts(open_page("probe", "link"))


def test_markup_in_task_names_is_shown_as_text(open_page: Open, root: Path) -> None:
    run = RunDirectory.open(root / "finished")
    names = (EVIL, "![x](https://evil.example/p.png)", "[a](javascript:alert(1))", ":red[x] $x$ `y`")
    run.write_json("recommendation.json", recommendation(names).to_json())
    run.rename(EVIL)
    at = open_page("recommend", "finished")
    assert not at.exception
    for element in at.markdown:
        assert not element.proto.allow_html
        assert "<script" not in element.value.replace("\\<script", "")
    said = texts(at)
    assert "\\<script\\>" in said or "\\\\<script\\\\>" in said
    assert "![x](" not in said
    assert "[a](" not in said


def test_figures_escape_the_little_html_that_plotly_reads(open_page: Open, root: Path) -> None:
    run = RunDirectory.open(root / "finished")
    run.write_json("recommendation.json", recommendation((EVIL, "b", "c")).to_json())
    at = open_page("recommend", "finished")
    for chart in at.get("plotly_chart"):
        spec = json.loads(chart.proto.spec)
        spec.pop("config", None)
        assert "<script" not in json.dumps(spec)


def test_failure_of_a_page_shows_no_traceback(open_page: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    from app import session

    def fail(run: RunDirectory) -> None:
        raise ZeroDivisionError("secret path /home/someone")

    monkeypatch.setattr(session, "recommendation_of", fail)
    at = open_page("recommend", "finished")
    assert not at.exception
    said = texts(at)
    assert "Unexpected ZeroDivisionError" in said
    assert "secret" not in said
    assert "Traceback" not in said


def upload(open_page: Open, name: str, data: bytes) -> str:
    at = open_page("merge", "finished")
    at.radio(key="merge_source").set_value("Experts by file").run()
    good = safetensors.numpy.save({"w": __import__("numpy").ones(4, dtype="float32")})
    at.file_uploader(key="upload:base").set_value(("base.safetensors", good, "application/octet-stream"))
    at.file_uploader(key="upload:experts").set_value([(name, data, "application/octet-stream")])
    at.run()
    assert not at.exception
    return texts(at)


@pytest.mark.parametrize("name", ["weights.pt", "weights.bin", "weights.pkl", "weights.safetensors.zip"])
def test_upload_of_another_type_is_refused_by_name(open_page: Open, name: str) -> None:
    at = open_page("merge", "finished")
    at.radio(key="merge_source").set_value("Experts by file").run()
    at.file_uploader(key="upload:base").set_value((name, b"data", "application/octet-stream")).run()
    (refusal,) = at.exception  # the server's own, before any page sees the file; browsers do not send it at all
    assert "Invalid file extension" in refusal.message
    assert not at.slider


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.pt", "gone.safetensors", "{root}/finished/run.json"])
def test_path_that_is_no_safetensors_file_is_not_read(open_page: Open, root: Path, path: str) -> None:
    at = open_page("merge", "finished")
    at.radio(key="merge_source").set_value("Experts by file").run()
    at.text_area(key="path:base").set_value(path.format(root=root)).run()
    assert not at.exception
    assert "must be a .safetensors file that exists" in at.error[0].value.replace("\\", "")
    assert "root:" not in texts(at)


def test_nothing_in_the_program_unpickles() -> None:
    """Every call that could: modules that do, and ``torch.load`` or ``numpy.load`` without the switch against it."""
    for room in ("advisor", "app", "estimators", "studies"):
        for path in (HOME / room).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import | ast.ImportFrom):
                    names = {alias.name for alias in node.names} | {getattr(node, "module", "") or ""}
                    assert not names & {"cPickle", "dill", "shelve", "marshal", "Unpickler"}, path
                if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "pickle":
                    assert node.attr == "UnpicklingError", path  # torch's refusal may be named, nothing else
                if isinstance(node, ast.Call):
                    assert ast.unparse(node.func) not in ("joblib.load", "pandas.read_pickle"), path
                if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "np.load", "numpy.load"):
                    given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                    assert given.get("weights_only") == "True" or given.get("allow_pickle", "False") == "False", path
                    assert ast.unparse(node.func) != "torch.load" or given.get("weights_only") == "True", path


class Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return (Path.write_text, (Path("unpickled"), "gotcha"))


def test_pickle_in_a_safetensors_file_is_refused_and_not_run(
    open_page: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = upload(open_page, "expert.safetensors", pickle.dumps(Evil()))
    assert "Merged" not in said
    assert "safetensors" in said
    assert not (tmp_path / "unpickled").exists()


def test_upload_named_like_a_path_stays_in_its_folder(open_page: Open, tmp_path: Path) -> None:
    import numpy as np

    data = safetensors.numpy.save({"w": np.full(4, 1.1, dtype=np.float32)})
    said = upload(open_page, "../../evil.safetensors", data)
    assert "λ" in said or "Overlap" in said or "norms" in said
    assert not list(tmp_path.rglob("evil*"))


def test_markdown_escape_leaves_no_markup() -> None:
    text = "<b>*x* _y_ `z` [a](b) ![c](d) $e$ :red[f] ~~g~~ #h | i & j"
    escaped = showing.md(text)
    bare = escaped
    for sign in "\\`*_{}[]()<>#+-.!|~$:&^=\"'/@%":
        bare = bare.replace("\\" + sign, "")
    assert not set(bare) & set("`*_{}[]()<>#!|~$&")
