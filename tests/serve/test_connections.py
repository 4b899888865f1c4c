"""What connections may do: how many are open, how slowly they send and take, and what is no usual request."""

from __future__ import annotations

import json
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress

import pytest

from mst_clipiqa.serve.settings import Limits, Settings
from tests.serving import png, running, toy_scorer

SLOW = Limits(seconds=0.4, max_connections=4)
LARGE = b"/swagger/swagger-ui-bundle.js"  # more than a megabyte


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> str:
    """Return the name of an event loop that is installed."""
    name: str = request.param
    pytest.importorskip(name)
    return name


@pytest.fixture(scope="module")
def slow_address(loop: str) -> Iterator[tuple[str, int]]:
    with running(toy_scorer(), Settings(port=0, limits=SLOW), loop) as where:
        yield address_of(where)


@pytest.fixture
def log() -> Iterator[list[str]]:
    """Collect what the server and its event loop log."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    with ExitStack() as stack:
        for name in ("uvicorn", "asyncio", "mst_clipiqa"):  # uvicorn's records do not reach the root
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            stack.callback(logger.removeHandler, handler)
        yield found


def address_of(where: str) -> tuple[str, int]:
    host, _, port = where.removeprefix("http://").partition(":")
    return host, int(port)


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


# ------------------------------------------------------------------------------------------------ answers nobody takes


def get(path: bytes, *headers: bytes) -> bytes:
    """Return a request."""
    return b"\r\n".join([b"GET %s HTTP/1.1" % path, b"Host: localhost", *headers, b"", b""])


def asking(address: tuple[str, int], request: bytes) -> socket.socket:
    """Return a connection on which a request was sent, and which takes little unless it reads."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**14)
    connection.settimeout(10)
    connection.connect(address)
    connection.sendall(request)
    return connection


def eventually(is_so: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether something becomes true in time."""
    end = time.monotonic() + seconds
    while not (found := is_so()) and time.monotonic() < end:
        time.sleep(0.05)
    return found


def test_clients_that_take_no_answers_lose_their_places(slow_address: tuple[str, int], log: list[str]) -> None:
    def is_answered() -> bool:
        with connected(slow_address) as one:
            one.sendall(HEAD)
            return b"200 OK" in answer_on(one)

    clients = [asking(slow_address, get(LARGE) * 30) for _ in range(4)]
    try:
        time.sleep(0.1)
        assert not is_answered()
        assert eventually(is_answered)
        assert log == []
    finally:
        for one in clients:
            one.close()


def test_a_client_that_takes_its_answers_slowly_gets_them_all(loop: str, log: list[str]) -> None:
    limits = Limits(seconds=2)  # a busy machine may keep the client waiting for half of that
    with running(toy_scorer(), Settings(port=0, limits=limits), loop) as where:
        with asking(address_of(where), get(LARGE, b"Connection: close")) as connection:
            once = everything(connection)
        with asking(address_of(where), get(LARGE) * 8 + get(LARGE, b"Connection: close")) as connection:
            began, found = time.monotonic(), 0
            while more := connection.recv(2**17):
                found += len(more)
                time.sleep(len(more) / 3.5e6)
            assert time.monotonic() - began > 1.5 * limits.seconds
    assert found == 9 * len(once) - 8 * len("connection: close\r\n")
    assert log == []


def test_a_client_that_goes_before_its_answers_leaves_no_trace(slow_address: tuple[str, int], log: list[str]) -> None:
    connection = asking(slow_address, get(LARGE) * 30)
    time.sleep(0.1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # reset, do not finish
    connection.close()
    time.sleep(0.5)
    assert log == []


def test_the_server_stops_whatever_its_clients_do(loop: str, log: list[str]) -> None:
    is_over = threading.Event()

    def take_slowly(connection: socket.socket) -> None:
        with suppress(ConnectionError):
            while connection.recv(2**12) and not is_over.wait(0.1):
                pass

    with ExitStack() as stack:
        with running(toy_scorer(), Settings(port=0, limits=Limits(seconds=0.4)), loop) as where:
            address = address_of(where)
            requests = [get(LARGE) * 30, get(LARGE) * 30, post(b"-", length=9), HEAD[:9], b"", HEAD]
            clients = [stack.enter_context(asking(address, request)) for request in requests]
            reader = threading.Thread(target=take_slowly, args=clients[:1])
            reader.start()
            time.sleep(0.2)
            began = time.monotonic()
        assert time.monotonic() - began < 8
        is_over.set()
        reader.join(10)
    assert log == []


def test_a_server_that_has_scored_stops_in_silence(loop: str, log: list[str]) -> None:
    with running(toy_scorer(), Settings(port=0, limits=SLOW), loop) as where, connected(address_of(where)) as client:
        client.sendall(post(FORM, b"Connection: close"))
        assert b'"status":"ok"' in everything(client)
    assert log == []


# ------------------------------------------------------------------------------------------------ unusual requests


def post(body: bytes, *headers: bytes, version: bytes = b"1.1", length: int | None = None) -> bytes:
    """Return a request to score a form."""
    lines = [
        b"POST /v1/score HTTP/" + version,
        b"Host: localhost",
        b"Content-Type: multipart/form-data; boundary=x",
        b"Content-Length: %d" % (len(body) if length is None else length),
    ]
    return b"\r\n".join([*lines, *headers, b"", body])


FORM = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + png() + b"\r\n--x--\r\n"


def test_a_body_that_trickles_in_is_given_up_once(slow_address: tuple[str, int]) -> None:
    found = []
    with connected(slow_address) as connection:
        connection.sendall(post(b"", length=len(FORM)))
        connection.settimeout(0.05)
        with suppress(ConnectionError):
            for place in range(len(FORM)):
                connection.sendall(FORM[place : place + 1])
                with suppress(TimeoutError):
                    found.append(connection.recv(4096))
                    if not found[-1]:
                        break
            else:
                pytest.fail("the whole body arrived")
    answer = b"".join(found)
    assert answer.startswith(b"HTTP/1.1 408 ") and b"Expected the whole body within 0.4 seconds" in answer
    assert answer.count(b"HTTP/1.1") == 1


def test_a_client_that_has_sent_everything_may_say_so(slow_address: tuple[str, int]) -> None:
    def answers(request: bytes) -> bytes:
        with connected(slow_address) as connection:
            connection.sendall(request)
            connection.shutdown(socket.SHUT_WR)
            return everything(connection)

    found = answers(post(FORM))
    assert found.startswith(b"HTTP/1.1 200 ") and b'"status":"ok"' in found
    assert answers(HEAD + HEAD).count(b"HTTP/1.1 200 ") == 2
    assert answers(post(FORM)[:-5]) == answers(HEAD[:-2]) == b""


@pytest.mark.parametrize("request_", [HEAD.replace(b"1.1", b"1.0"), post(FORM, version=b"1.0")])
def test_http_1_0(slow_address: tuple[str, int], request_: bytes) -> None:
    with connected(slow_address) as connection:
        connection.sendall(request_)
        head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert b" 200 OK" in head and b"connection: close" in head and b"transfer-encoding" not in head
    assert json.loads(body)


def test_who_asks_before_sending_a_body_is_answered_first(slow_address: tuple[str, int]) -> None:
    ask = b"Expect: 100-continue"
    with connected(slow_address) as connection:
        connection.sendall(post(b"", ask, length=len(FORM)))
        assert connection.recv(4096) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(FORM)
        assert connection.recv(4096).startswith(b"HTTP/1.1 200 ")
    with connected(slow_address) as connection:
        connection.sendall(post(b"", ask, length=SLOW.max_bytes + 1))
        head = everything(connection)  # which ends: another request must not be taken for the body
    assert head.startswith(b"HTTP/1.1 413 ") and b"connection: close" in head


@pytest.mark.parametrize("path", [b"/", b"/healthz", b"/readyz", b"/v1/info", b"/docs", b"/static/main.js", b"/none"])
def test_a_head_request_gets_the_head_of_the_answer(slow_address: tuple[str, int], path: bytes) -> None:
    def answer(request: bytes) -> tuple[list[bytes], bytes]:
        with connected(slow_address) as connection:
            connection.sendall(request)
            head, _, body = everything(connection).partition(b"\r\n\r\n")
        return [line for line in head.split(b"\r\n") if not line.startswith(b"date:")], body

    whole = get(path, b"Connection: close")
    head, body = answer(whole)
    assert body and (b" 404 " if path == b"/none" else b" 200 ") in head[0]
    assert answer(whole.replace(b"GET", b"HEAD")) == (head, b"")


@pytest.mark.parametrize("piece", [b"x" * 2**16, b"a: b\r\n" * 2**13])
def test_a_head_has_a_largest_size(slow_address: tuple[str, int], piece: bytes) -> None:
    with connected(slow_address) as connection:
        connection.sendall(HEAD[:-2] + b"X: " + b"x" * 30_000 + b"\r\n\r\n")
        assert b"200 OK" in answer_on(connection)
        connection.sendall(HEAD[:-2] + b"X: ")
        for _ in range(16):
            connection.sendall(piece)
        found = everything(connection)
    assert found.startswith(b"HTTP/1.1 431 ")
    assert b'"Expected a head of at most 65,536 bytes, got more: send fewer or shorter headers."' in found


@pytest.mark.parametrize("end", [b"0\r\nX: ", b"1;x="])
def test_what_surrounds_a_body_has_a_largest_size_too(loop: str, end: bytes) -> None:
    chunked = post(b"", b"Transfer-Encoding: chunked").replace(b"Content-Length: 0\r\n", b"")
    with running(toy_scorer(), Settings(port=0), loop) as where, connected(address_of(where)) as connection:
        connection.sendall(chunked + end)
        with pytest.raises(ConnectionError):
            connection.sendall(b"x" * 2**26)


def test_what_is_no_request_is_refused_in_json(slow_address: tuple[str, int]) -> None:
    with connected(slow_address) as connection:
        connection.sendall(b"\x16\x03\x01 hello over TLS\r\n\r\n")
        head, _, body = everything(connection).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 ") and b"connection: close" in head
    assert json.loads(body)["error"] == "Expected a request in HTTP/1.1, got other bytes: use an HTTP client."


def test_what_is_no_request_does_not_answer_another(slow_address: tuple[str, int]) -> None:
    with connected(slow_address) as connection:
        connection.sendall(post(FORM) + b"\x00 no request\r\n\r\n")
        with suppress(ConnectionError):
            assert everything(connection) == b""


UPGRADES = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),  # curl --http2
    (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: eA=="),
]


@pytest.mark.parametrize("headers", UPGRADES)
@pytest.mark.parametrize("size", [None, 7])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    slow_address: tuple[str, int], log: list[str], headers: tuple[bytes, ...], size: int | None
) -> None:
    requests = [get(b"/healthz", *headers), post(FORM, *headers), get(b"/healthz", *headers, b"Connection: close")]
    sent = b"".join(requests)
    with connected(slow_address) as connection:
        for place in range(0, len(sent), size or len(sent)):
            connection.sendall(sent[place : place + (size or len(sent))])
        found = everything(connection)
    assert found.count(b"HTTP/1.1 200 ") == found.count(b"HTTP/1.1 ") == 3
    assert found.count(b'{"status":"ok"}') == 2 and found.count(b'"results":') == 1
    assert not log


def test_many_questions_for_another_protocol_are_as_many_requests(slow_address: tuple[str, int]) -> None:
    with connected(slow_address) as connection:
        connection.sendall(get(b"/healthz", *UPGRADES[0]) * 500 + get(b"/healthz", b"Connection: close"))
        assert everything(connection).count(b"HTTP/1.1 200 ") == 501


@pytest.mark.parametrize("target", [b"localhost:443", b"/healthz"])
def test_a_tunnel_is_refused(slow_address: tuple[str, int], target: bytes) -> None:
    with connected(slow_address) as connection:
        connection.sendall(get(target, *UPGRADES[0], b"Connection: close").replace(b"GET", b"CONNECT"))
        assert everything(connection).startswith(b"HTTP/1.1 4")
