"""HTTP requests through the whole application, in this process and without a socket."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from fuzz.harness import HANG_S, Case, Surface
from fuzz.models import seeds
from fuzz.requests import MAX_BYTES, TOKEN, make
from mst_clipiqa.encoders.mini.folder import load_mini_pair
from mst_clipiqa.errors import UsageError
from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.model_folder import load_model
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.app import create_app
from mst_clipiqa.serve.settings import Limits, Settings

LIMITS = Limits(
    max_bytes=MAX_BYTES, max_pixels=10**6, max_images=8, max_prompt=2000, max_held=4 * MAX_BYTES, seconds=0.3
)


class _Log(logging.Handler):
    """Keeps what the server logs as an error: a traceback is a defect even if no client sees it."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(logging.Formatter().format(record))


@dataclass
class Served:
    """One server of the toy model without a token and one with, in an event loop that is kept between cases."""

    loop: asyncio.AbstractEventLoop
    apps: dict[str | None, FastAPI]
    log: _Log


@dataclass
class Answer:
    """A response."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    is_whole: bool = False


@cache
def served() -> Served:
    """Return the servers."""
    with tempfile.TemporaryDirectory() as name:
        for file, data in seeds().items():
            (Path(name) / file).parent.mkdir(parents=True, exist_ok=True)
            (Path(name) / file).write_bytes(data)
        model, pair = load_model(Path(name)), load_mini_pair(Path(name) / "encoders")
    log = _Log()
    logging.getLogger().addHandler(log)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # as the command does
    apps: dict[str | None, FastAPI] = {
        token: create_app(Scorer(model, ImageEncoder(pair, batch_size=8)), Settings(token=token, limits=LIMITS))
        for token in (None, TOKEN)
    }
    return Served(asyncio.new_event_loop(), apps, log)


def feed(case: Case) -> None:
    """Send a request as its head says; a response that refuses it is raised as UsageError."""
    head, body = json.loads(case["head"]), case["body"]
    is_with_token = any(name == "authorization" for name in head["headers"])
    there = served()
    app = there.apps[TOKEN if is_with_token else None]
    try:
        answer = there.loop.run_until_complete(asyncio.wait_for(_asked(app, head, body), HANG_S))
    except BaseException:
        served.cache_clear()  # an interrupted case leaves a loop that must not be used again
        raise
    if there.log.said:
        raise TypeError(f"the log has errors: {there.log.said.pop(0)}")
    if app.state.server.memory.bytes or app.state.server.engine.waiting:
        raise TypeError("bytes or scores are still accounted for")
    if head["end"] != "hung up" or answer.is_whole:
        _check(answer, head["method"])


async def _asked(app: FastAPI, head: dict[str, Any], body: bytes) -> Answer:
    """Let the application answer one request whose body comes in pieces and ends as the head says."""
    answer, pieces = Answer(), _pieces(body, head["cuts"], head["end"])

    async def receive() -> dict[str, Any]:
        if (message := next(pieces, None)) is not None:
            return message
        if head["end"] != "hung up":
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            answer.status = message["status"]
            answer.headers = {name.decode(): text.decode("latin-1") for name, text in message["headers"]}
        else:
            answer.body += message.get("body", b"")
            answer.is_whole = not message.get("more_body", False)

    named = {"host": "localhost", "content-length": str(len(body)), **head["headers"]}
    path = head["path"].encode("utf-8", "surrogatepass")
    scope = {
        **{"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": head["method"]},
        **{"scheme": "http", "path": path.decode("utf-8", "replace"), "raw_path": path, "root_path": ""},
        "query_string": head["query"].encode("latin-1"),
        "headers": [(name.encode(), text.encode("latin-1")) for name, text in named.items()],
        **{"client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8000), "state": {}},
    }
    await app(scope, receive, send)  # type: ignore[arg-type]
    return answer


def _pieces(body: bytes, cuts: list[int], end: str) -> Iterator[dict[str, Any]]:
    ends = [0, *cuts, len(body)]
    chunks = [body[a:b] for a, b in pairwise(ends)]
    chunks = chunks if end == "whole" else chunks[:-1]
    for i, chunk in enumerate(chunks):
        yield {"type": "http.request", "body": chunk, "more_body": end != "whole" or i < len(chunks) - 1}


def _check(answer: Answer, method: str) -> None:
    """Raise TypeError for a response that no client should get, UsageError for a well-formed refusal."""
    status = answer.status
    if not answer.is_whole or not 200 <= status < 600:
        raise TypeError(f"no whole answer: {answer}")
    if status >= 500 and not (status == 503 and answer.headers.get("retry-after", "").isdecimal()):
        raise TypeError(f"a defect: {answer}")
    if answer.headers.get("x-content-type-options") != "nosniff":
        raise TypeError(f"an answer without its headers: {answer}")
    if b"Traceback" in answer.body:
        raise TypeError(f"a traceback: {answer}")
    if answer.headers.get("content-type") != "application/json" or method == "HEAD":
        return
    tree = json.loads(answer.body, parse_constant=_finite)
    if status >= 400:
        (sentence,) = tree.values()
        if not sentence.startswith("Expected"):
            raise TypeError(f"not a sentence: {sentence}")
        raise UsageError(sentence)
    for one in tree.get("results", []):
        numbers = [one[name] for name in ("quality", "correspondence") if one[name] is not None]
        if one["status"] not in ("ok", "error") or not all(map(math.isfinite, numbers)):
            raise TypeError(f"not a score: {one}")
        if one["status"] == "error" and not one["reason"]:
            raise TypeError(f"an error without a reason: {one}")
    for overlay in (one for some in tree.get("overlays", {}).values() for one in some.values()):
        base64.b64decode(overlay, validate=True)


def _finite(name: str) -> float:
    raise TypeError(f"a number that is none: {name}")


SURFACE = Surface("http", make, feed)
