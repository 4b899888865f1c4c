"""Who may ask the server, from where, and how the command starts and stops it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from mst_clipiqa.cli import group
from mst_clipiqa.serve.app import create_app
from mst_clipiqa.serve.metrics import Metrics
from mst_clipiqa.serve.middleware import RequestMiddleware
from mst_clipiqa.serve.settings import Settings
from tests.serving import b64, png, toy_scorer

TOKEN = "correct-horse-battery"
IMAGE = [("image", ("a.png", png()))]


@pytest.fixture(scope="module")
def guarded() -> Iterator[TestClient]:
    with TestClient(create_app(toy_scorer(), Settings("0.0.0.0", token=TOKEN)), "http://scores.example") as opened:
        yield opened


@pytest.fixture(scope="module")
def local() -> Iterator[TestClient]:
    with TestClient(create_app(toy_scorer(), Settings()), "http://localhost:8000") as opened:
        yield opened


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer \xe9"]
)
def test_without_the_token_nothing_is_told(guarded: TestClient, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1")}
    for method, path in [("POST", "/v1/score"), ("GET", "/v1/info"), ("GET", "/metrics"), ("GET", "/v1/none")]:
        answer = guarded.request(method, path, headers=headers)  # type: ignore[arg-type]
        assert answer.status_code == 401
        assert answer.json()["error"].startswith("Expected the header 'Authorization: Bearer TOKEN'")
        assert answer.headers["www-authenticate"] == "Bearer"
        assert TOKEN not in answer.text


def test_with_the_token_all_is(guarded: TestClient) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    assert guarded.post("/v1/score", files=IMAGE, headers=headers).status_code == 200
    assert guarded.get("/metrics", headers=headers).status_code == 200


def test_page_and_probes_need_no_token(guarded: TestClient) -> None:
    for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json", "/static/main.js"):
        answer = guarded.get(path)
        assert answer.status_code == 200
        assert TOKEN not in answer.text


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8000", "[", ""])
def test_without_a_token_other_names_are_refused(local: TestClient, host: str) -> None:
    answer = local.get("/v1/info", headers={"host": host})
    assert answer.status_code == 403
    assert answer.json()["error"].startswith("Expected a request for localhost")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:80", "127.0.0.1:8000", "127.9.9.9", "[::1]:8000", "[::1]"])
def test_every_name_of_this_machine_is_answered(local: TestClient, host: str) -> None:
    assert local.get("/v1/info", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:9999"])
def test_pages_of_other_sites_may_not_post(local: TestClient, origin: str) -> None:
    answer = local.post("/v1/score", files=IMAGE, headers={"Origin": origin})
    assert answer.status_code == 403
    assert "another site" in answer.json()["error"]
    own = local.post("/v1/score", files=IMAGE, headers={"Origin": "http://localhost:8000"})
    assert own.status_code == 200
    assert "access-control-allow-origin" not in own.headers


def test_a_browser_is_told_to_run_nothing_foreign(local: TestClient) -> None:
    for path in ("/", "/static/main.js", "/v1/info", "/no/such"):
        headers = local.get(path).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
    assert "script-src 'self';" in local.get("/docs").headers["content-security-policy"]
    page = local.get("/").text
    assert not re.search(r"\son\w+=|<script(?![^>]*src=)|style=|https?:", page)


def test_nothing_beside_the_page_is_given_out(local: TestClient) -> None:
    for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/..%2fapp.py", "/static//etc/passwd"):
        assert local.get(path).status_code == 404


def test_an_answer_that_has_begun_is_cut_off_by_a_defect() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise RuntimeError("half-way")

    middleware = RequestMiddleware(broken, Settings(), Metrics(), frozenset())
    with pytest.raises(RuntimeError, match="half-way"):
        TestClient(middleware, "http://localhost").get("/")


# ------------------------------------------------------------------------------------------------ export

ROW = {"file": "=cmd()", "prompt": "</script><b>x", "quality": 3.0, "correspondence": None, "status": "ok", "width": 8}


def test_a_table_of_what_the_page_shows(local: TestClient) -> None:
    ends = {"correspondence_high": 4, "correspondence_low": 1, "quality_high": 3.5, "quality_low": 2.5}
    answer = local.post("/v1/download", json={"format": "csv", "rows": [{**ROW, **ends, "beauty": 1}]})
    assert answer.headers["content-disposition"] == 'attachment; filename="scores.csv"'
    names, row = answer.text.splitlines()
    assert (
        names
        == "file,prompt,quality,correspondence,gate,familiarity,status,reason,width,height,model,beauty,"
        + ",".join(reversed(ends))
    )
    assert row == "'=cmd(),</script><b>x,3.0,,,,ok,,8,,,1.0,2.5,3.5,1.0,4.0"


def test_a_report_of_what_the_page_shows(local: TestClient) -> None:
    webp = b64(b"RIFF\x04\x00\x00\x00WEBPVP8 ")
    rows = [ROW, {**ROW, "file": "b.png", "quality": 4.0}]
    answer = local.post("/v1/download", json={"format": "html", "rows": rows, "thumbnails": ["", webp], "title": "T"})
    assert answer.status_code == 200
    assert answer.text.startswith("<!doctype html>")
    assert webp in answer.text
    assert "</script><b>x" not in answer.text


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"rows": []}, "'rows': list should have at least 1 item"),
        ({"format": "exe"}, "'format': input should be 'csv' or 'html'"),
        ({"thumbnails": [""] * 2}, "a thumbnail for each of 1 rows, got 2"),
        ({"thumbnails": ["</script>"]}, "thumbnails in base64"),
        ({"thumbnails": [b64(b"<svg/>")]}, "thumbnails in WebP"),
        ({"rows": [{**ROW, "quality": "a lot"}]}, "number"),
        ({"path": "/tmp/x"}, "'path': extra inputs"),
    ],
)
def test_what_cannot_be_exported(local: TestClient, change: dict[str, object], sentence: str) -> None:
    answer = local.post("/v1/download", json={"format": "html", "rows": [ROW], **change})
    assert answer.status_code == 422
    assert sentence in answer.json()["error"]


@pytest.mark.parametrize("kind", ["csv", "html"])
def test_a_column_for_every_row_is_too_many(local: TestClient, kind: str) -> None:
    def post(columns: int) -> Any:
        rows = [{"quality": 1.0, f"k{place}": 1} for place in range(columns)]
        return local.post("/v1/download", json={"format": kind, "rows": rows})

    answer = post(2000)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("Expected at most 200 columns, got 2,0")
    assert post(189).status_code == 200
    assert post(190).status_code == 422  # with the eleven of every table


# ------------------------------------------------------------------------------------------------ the command


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--host", "0.0.0.0"], "Expected a token to serve on '0.0.0.0', where others can reach it"),
        (["--host", "::"], "Expected a token to serve on '::'"),
        (["--host", "example.org"], "Expected a token"),
        (["--token", "short"], "Expected a token of at least 16 printable ASCII characters"),
        (["--token", "with spaces in the middle"], "without spaces"),
        (["--token", ""], "Expected a token of at least 16"),
        (["--host", "203.0.113.1", "--token", TOKEN], "Expected to listen on '203.0.113.1', port 8000, but:"),
        (
            ["--host", "0.0..0", "--token", TOKEN],
            "Expected to listen on '0.0..0', port 8000, but: Not a valid host name",
        ),
        (["--host", "x" * 64, "--token", TOKEN], "xxx', port 8000, but: Not a valid host name; name"),
        (["--max-mb", "inf"], "Expected a number up to 1e+12 for --max-mb, got inf: omit it for 32."),
        (["--max-mb", "nan"], "Expected a number up to 1e+12 for --max-mb, got nan"),
        (["--max-held-mb", "1e308"], "Expected a number up to 1e+12 for --max-held-mb, got 1e+308"),
        (["--max-megapixels", "nan"], "Expected a number up to 1e+12 for --max-megapixels, got nan"),
        (["--timeout", "inf"], "Expected a number up to 1e+12 for --timeout, got inf"),
        (["--model", "no-such-model", "--port", "0"], "or a model folder, got 'no-such-model'"),
    ],
)
def test_what_the_command_refuses(flags: list[str], sentence: str) -> None:
    result = CliRunner().invoke(group, ["serve", *flags])
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        result = CliRunner().invoke(group, ["serve", "--port", str(taken.getsockname()[1])])
    assert result.exit_code == 2
    assert "name another with --host or --port" in result.stderr


def test_without_the_extra_the_command_says_what_to_install() -> None:
    # In a separate process, so that other tests keep the modules they have imported.
    code = "import sys; sys.modules['uvicorn'] = None; from mst_clipiqa.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", code, "serve"], capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert 'Expected uvicorn, which is not installed: pip install "mst-clipiqa[serve]"' in result.stderr


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_told_to_stop(stop: signal.Signals) -> None:
    import httpx2

    command = [sys.executable, "-m", "mst_clipiqa", "serve", "--port", "0"]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "MST_CLIPIQA_TOKEN": TOKEN}
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            found = re.fullmatch(r"Serving mini at (http://127\.0\.0\.1:\d+) \(Ctrl-C stops it\)\.\n", line)
            assert found, line
            headers = {"Authorization": f"Bearer {TOKEN}"}
            answer = httpx2.post(f"{found[1]}/v1/score", files=IMAGE, headers=headers, timeout=60, trust_env=False)
            assert answer.status_code == 200
            process.send_signal(stop)
            out, errors = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, errors) == (0, "", "")
