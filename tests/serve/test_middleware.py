"""Who may ask the server, from where, and how the command starts and stops it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
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
from mst_clipiqa.serve.settings import Limits, Settings
from tests.serving import b64, png, running, toy_scorer

SLOW = Limits(seconds=0.4, max_connections=4)
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


# ------------------------------------------------------------------------------------------------ connections


@pytest.fixture(scope="module")
def slow_address() -> Iterator[tuple[str, int]]:
    with running(toy_scorer(), Settings(port=0, limits=SLOW)) as where:
        host, _, port = where.removeprefix("http://").partition(":")
        yield host, int(port)


def connected(address: tuple[str, int]) -> socket.socket:
    """Return a connection that gives up where a test would wait forever."""
    return socket.create_connection(address, timeout=10)


def everything(connection: socket.socket) -> bytes:
    """Return what comes until the other side closes."""
    return b"".join(iter(lambda: connection.recv(4096), b""))


def answer_on(connection: socket.socket) -> bytes:
    """Return one answer of /healthz."""
    found = b""
    while not found.endswith(b'{"status":"ok"}') and (more := connection.recv(4096)):
        found += more
    return found


HEAD = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize("sent", [b"", HEAD[:5], HEAD[:-2]])
@pytest.mark.parametrize("before", [b"", HEAD])
def test_a_head_that_never_ends_is_given_up(slow_address: tuple[str, int], before: bytes, sent: bytes) -> None:
    if before and not sent:
        pytest.skip("uvicorn keeps it alive for the next request")
    with connected(slow_address) as connection:
        if before:
            connection.sendall(before)
            assert b"200 OK" in answer_on(connection)
        began = time.monotonic()
        connection.sendall(sent)
        found = everything(connection)
        assert 0.3 < time.monotonic() - began < 5
    if not sent:
        assert found == b""
        return
    head, _, body = found.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408 ") and b"connection: close" in head
    assert json.loads(body)["error"].startswith("Expected a whole request within 0.4 seconds, got a part of it")


def test_a_head_that_trickles_in_is_given_up_too(slow_address: tuple[str, int]) -> None:
    with connected(slow_address) as connection:
        for byte in HEAD:
            time.sleep(0.05)  # more often than the deadline
            try:
                connection.sendall(bytes([byte]))
            except OSError:
                break
        else:
            pytest.fail("the whole head arrived")


def test_a_connection_lives_on_between_requests(slow_address: tuple[str, int]) -> None:
    with connected(slow_address) as connection:
        for _ in range(2):
            connection.sendall(HEAD)
            assert b"200 OK" in answer_on(connection)
            time.sleep(0.6)  # more than the deadline


def test_one_connection_too_many_is_refused(slow_address: tuple[str, int]) -> None:
    opened = [connected(slow_address) for _ in range(4)]
    try:
        time.sleep(0.1)
        with connected(slow_address) as further:
            head, _, body = everything(further).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in head
        assert json.loads(body)["error"].startswith("Expected at most 4 open connections, got one more")
        assert all(everything(one) == b"" for one in opened)  # they are closed at the deadline
    finally:
        for one in opened:
            one.close()
    with connected(slow_address) as connection:
        connection.sendall(HEAD)
        assert b"200 OK" in answer_on(connection)


def test_a_refused_client_that_is_uploading_reads_why(slow_address: tuple[str, int]) -> None:
    body = b"x" * (4 * 2**20)  # more than the buffers of both sides
    head = b"POST /v1/score HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    opened = [connected(slow_address) for _ in range(4)]
    try:
        time.sleep(0.1)
        with connected(slow_address) as further:
            further.sendall(head + body)  # as http.client and requests do: all of it, then the answer
            found = everything(further)
        assert found.startswith(b"HTTP/1.1 503 ") and b"Expected at most 4 open connections" in found
        opened.pop().close()
        with connected(slow_address) as one_of_four:  # the refused one takes no place
            one_of_four.sendall(HEAD)
            assert b"200 OK" in answer_on(one_of_four)
    finally:
        for one in opened:
            one.close()


def test_a_refused_request_is_not_read_without_end(slow_address: tuple[str, int]) -> None:
    opened = [connected(slow_address) for _ in range(4)]
    try:
        time.sleep(0.1)
        with connected(slow_address) as further, pytest.raises(ConnectionError):
            further.sendall(b"x" * 2**26)
    finally:
        for one in opened:
            one.close()
