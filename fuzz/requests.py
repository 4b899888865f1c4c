"""HTTP requests as clients, browsers, scanners and attackers send them: lying heads, bodies cut short."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

from fuzz import images, prompts
from fuzz.harness import Case
from fuzz.mutate import damaged, damaged_json, value

TOKEN = "a-token-of-the-fuzzer"
MAX_BYTES = 2**20
"""The largest body that the fuzzed server accepts."""
_POSTS = ("/v1/score", "/v1/score", "/v1/score", "/v1/compare", "/v1/download", "/v1/explain")
_GETS = ("/", "/docs", "/v1/info", "/metrics", "/healthz", "/readyz", "/openapi.json", "/static/page.css", "/swagger/x")
_PATHS = (
    "/healthz/",
    "/static",
    "/static/../app.py",
    "/static/\0",
    "/static/" + "a" * 5000,
    "//",
    "/v1/score/",
    "/static/%2e%2e/x",
    "*",
    "",
)
_TYPES = ("", "application/json", "application/x-www-form-urlencoded", "multipart/form-data", "multipart/mixed", "a/b")
_CHARSETS = (
    "latin-1",
    "idna",
    "punycode",
    "undefined",
    "unicode_escape",
    "utf-7",
    "hex",
    "zlib",
    "a\0b",
    "utf-16",
    "x",
)
_LENGTHS = ("0", "-1", "1e9", "99999999999", "9" * 5000, "\xb2", "", " 7", "0x10", str(MAX_BYTES + 1))
_HOSTS = ("evil.example", "[", "[::1", "localhost:99999999", "", "127.0.0.1@evil.example", "\xff", "a" * 5000)
_NAMES = ("a.png", "", "../../etc/passwd", "\x1b[31m", '"', "=1+1", "a" * 1001, "\u202e", "é.png", "a\\", "%00", "\0")
_EDGES = ("x", "--", "", " ", "a" * 70, "a" * 5000, "é", "\0", "\r\n", "x\ty")


def make(dice: random.Random) -> Case:
    """Return one request, usually a complete one with one fault."""
    head: dict[str, Any] = {"method": "POST", "path": dice.choice(_POSTS), "query": "", "headers": {}, "end": "whole"}
    body = b""
    if dice.random() < 0.08:
        head |= {"method": "GET", "path": dice.choice(_GETS)}
    elif head["path"] == "/v1/download":
        body = _json(_rows(dice), head, dice)
    elif dice.random() < 0.5:
        body = _json(_asked(head["path"], dice), head, dice)
    else:
        body = _form(head, dice)
    if dice.random() < 0.3:
        head["headers"]["authorization"] = f"Bearer {TOKEN}"
    if dice.random() < 0.02:
        body += b" " * dice.choice((MAX_BYTES, 2 * MAX_BYTES))
    for _ in range(dice.choice((0, 0, 0, 1, 1, 3))):
        body = _bent(head, body, dice)
    head["cuts"] = sorted(dice.randrange(len(body) + 1) for _ in range(dice.choice((0, 0, 1, 3, 40))))
    return {"head": json.dumps(head).encode(), "body": body}


def _bent(head: dict[str, Any], body: bytes, dice: random.Random) -> bytes:
    """Put one fault into a request, in its head or body; return the body."""
    headers = head["headers"]
    match dice.randrange(12):
        case 0:
            head["method"] = dice.choice(("GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE", "x", ""))
        case 1:
            head["path"] = dice.choice((*_PATHS, _text(dice)[:200]))
        case 2:
            head["query"] = dice.choice(("a=b", "%", "&&&", "\xff", "a" * 5000, "%00"))
            head["path"] = dice.choice((head["path"], *_PATHS))
        case 3:
            headers["content-type"] = dice.choice(_TYPES) + dice.choice(("", ";", "; boundary", "; charset=utf-8"))
        case 4:
            headers["content-type"] = headers.get("content-type", "") + f"; charset={dice.choice(_CHARSETS)}"
        case 5:
            headers["content-length"] = dice.choice(_LENGTHS)
        case 6:
            headers["host"] = dice.choice(_HOSTS)
        case 7:
            headers[dice.choice(("origin", "authorization", "accept", "range", "if-none-match"))] = _latin(dice)
        case 8:
            head["end"] = dice.choices(("hung up", "stalled"), (12, 1))[0]
        case _:
            return damaged(body, dice, dice.choice((b"", images.seeds()[0])))
    return body


def _image(dice: random.Random) -> bytes:
    """Return an image, damaged half of the time."""
    return dice.choice(images.seeds()) if dice.random() < 0.5 else images.make(dice)["image"]


def _text(dice: random.Random) -> str:
    """Return a prompt, a strange one half of the time."""
    return "a red ball" if dice.random() < 0.5 else prompts.make(dice)["prompt"].decode("utf-8", "surrogatepass")


def _latin(dice: random.Random) -> str:
    some = ("http://evil.example", "null", "Bearer ", f"Bearer {TOKEN}", "bytes=0-", "bytes=9-1,,", "\xe9", "a" * 5000)
    return dice.choice(some)


def _count(path: str, dice: random.Random) -> int:
    usual = {"/v1/compare": 2, "/v1/explain": 1}.get(path, dice.choice((1, 1, 2, 3)))
    return usual if dice.random() < 0.9 else dice.choice((0, 1, 2, 5, 40))


def _asked(path: str, dice: random.Random) -> Any:
    """Return the JSON of a request for scores."""
    some = []
    for _ in range(_count(path, dice)):
        data = base64.b64encode(_image(dice)).decode()
        one: dict[str, Any] = {
            "data": dice.choices(("", "data:image/png;base64,", "data:", "!"), (20, 5, 1, 1))[0] + data
        }
        if dice.random() < 0.3:
            one["name"] = dice.choice(_NAMES)
        if dice.random() < 0.2:
            one["prompt"] = _text(dice)
        some.append(one)
    tree: dict[str, Any] = {"images": some}
    if dice.random() < 0.5:
        tree["prompt"] = _text(dice)
    if dice.random() < 0.2:
        tree["prompts"] = [_text(dice) for _ in range(dice.choice((0, 1, 2, len(some))))]
    return tree


def _rows(dice: random.Random) -> Any:
    """Return the JSON of a request for a file."""
    row = {"file": "a.png", "prompt": "a red ball", "quality": 3.1, "correspondence": 2.0, "gate": 0.5}
    row |= {"status": "ok", "reason": None, "width": 24, "height": 17, "model": "toy"}
    rows = [{**row, "quality": dice.random() * 5, "prompt": _text(dice)} for _ in range(dice.choice((1, 2, 5, 30)))]
    tree: dict[str, Any] = {"format": dice.choice(("csv", "html")), "rows": rows}
    if dice.random() < 0.5:
        webp = base64.b64encode(b"RIFF\0\0\0\0WEBP").decode()
        tree["thumbnails"] = [dice.choice(("", webp, "!", "AAAA")) if dice.random() < 0.3 else webp for _ in rows]
    return tree | {"title": _text(dice)} if dice.random() < 0.3 else tree


def _json(tree: Any, head: dict[str, Any], dice: random.Random) -> bytes:
    """Return JSON as a body: damaged as values or as bytes, or far too deep or long."""
    head["headers"]["content-type"] = "application/json"
    if dice.random() < 0.03:
        return (dice.choice(("[", '{"images":', '{"rows":[{"a":', '"', "9")) * dice.choice((1000, 100_000))).encode()
    if dice.random() < 0.05:
        return json.dumps(value(dice)).encode()
    while dice.random() < 0.4:
        tree = damaged_json(tree, dice)
    return json.dumps(tree, ensure_ascii=dice.random() < 0.7).encode("utf-8", "surrogatepass")


def _form(head: dict[str, Any], dice: random.Random) -> bytes:
    """Return multipart/form-data, sometimes with parts that no client would send."""
    edge = "edge" if dice.random() < 0.9 else dice.choice(_EDGES)
    head["headers"]["content-type"] = f"multipart/form-data; boundary={edge}"
    parts = []
    for _ in range(_count(head["path"], dice)):
        name = dice.choice(_NAMES) if dice.random() < 0.3 else "a.png"
        parts.append(
            (_field("image", dice) + f'; filename{dice.choices(("", "*"), (15, 1))[0]}="{name}"', _image(dice))
        )
    for _ in range(dice.choice((0, 1, 1, 1, 2, 3) if dice.random() < 0.98 else (70,))):
        parts.append((_field("prompt", dice), _text(dice).encode("utf-8", "surrogatepass")))
    dice.shuffle(parts)
    between = b"--" + edge.encode("latin-1") + b"\r\n"
    body = b"".join(between + said.encode() + b"\r\n\r\n" + data + b"\r\n" for said, data in parts)
    return body + b"--" + edge.encode("latin-1") + b"--\r\n"


def _field(name: str, dice: random.Random) -> str:
    if dice.random() < 0.1:
        name = dice.choice(("", "images", "prompts", "file", "\0", "a" * 5000, _text(dice)[:50]))
    shown = name.encode("utf-8", "replace").decode()
    more = dice.choice(("\r\nContent-Type: a/b", "\r\nContent-Transfer-Encoding: base64", "\r\n\r\n", "\r\nx" * 300))
    return f'Content-Disposition: form-data; name="{shown}"' + (more if dice.random() < 0.05 else "")
