"""The body of a request -> pictures and prompts, in memory and within the limits.

Two forms: ``multipart/form-data`` (fields picture, prompt; each may be repeated), and JSON with pictures in base64.
Nothing is spooled to disk, addresses are not fetched, and file names are only ever repeated in the answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mst_clipiqa.errors import shown
from mst_clipiqa.serve.settings import Limits, Refused

_LINGER_BYTES = 256 * 2**20  # of a body over the limit, read and dropped so that the client gets to hear the answer
_MAX_NAME = 1000  # characters of a file name
_Model = TypeVar("_Model", bound=BaseModel)


@dataclass(frozen=True)
class Upload:
    """One picture as it came: the name it was given, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class Ask:
    """What a client wants scored: pictures, and the prompts of each."""

    pictures: tuple[Upload, ...]
    prompts: tuple[tuple[str | None, ...], ...]

    @property
    def count(self) -> int:
        """How many scores that makes."""
        return sum(map(len, self.prompts))


class PictureIn(BaseModel):
    """One picture in a JSON body."""

    model_config = ConfigDict(extra="forbid")
    data: str = Field(description="The picture file in base64; a data: URL will do.", examples=["iVBORw0KGgo..."])
    name: str = Field("", description="Repeated in the answer.", examples=["ball.png"])
    prompt: str | None = Field(None, description="The picture's own prompt.", examples=["a red ball on a table"])


class ScoreIn(BaseModel):
    """A JSON body of /v1/score: pictures, and a prompt for all or one for each."""

    model_config = ConfigDict(extra="forbid")
    pictures: list[PictureIn]
    prompt: str | None = Field(None, description="The prompt of every picture that has none of its own.")
    prompts: list[str] | None = Field(None, description="A prompt for each picture, or several for one picture.")


class Held:
    """Counts the bytes of bodies in memory, of all clients together."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0

    @contextmanager
    def account(self) -> Iterator[_Account]:
        """Keep an account for one request; all it took is given back at the end."""
        account = _Account(self)
        try:
            yield account
        finally:
            self.bytes -= account.bytes


class _Account:
    def __init__(self, held: Held) -> None:
        self.held = held
        self.bytes = 0

    def take(self, count: int) -> None:
        """Take some bytes, or refuse where that would be too many for this machine's good."""
        if self.held.bytes + count > self.held.limit:
            raise Refused(503, "Expected room for the request's body, but others fill it now: try again soon.", 2)
        self.held.bytes += count
        self.bytes += count


async def read_ask(request: Request, limits: Limits, account: _Account) -> Ask:
    """Return what a request asks for.

    Raises:
        Refused: it is too large, too slow, malformed, or the server holds too much already.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        pictures, own, prompts = await _from_multipart(request, limits, account)
    elif kind == "application/json" or not kind:
        body = await read_json(request, ScoreIn, limits, account)
        pictures, own, prompts = await asyncio.to_thread(_from_json, body)
    else:
        raise Refused(415, f"Expected multipart/form-data or application/json, got {shown(kind)}: send one of these.")
    if not pictures:
        raise Refused(422, "Expected at least one picture, got none: send it in the field picture, or as JSON.")
    return _checked(Ask(tuple(pictures), _pair(len(pictures), own, prompts)), limits)


async def read_json(request: Request, model: type[_Model], limits: Limits, account: _Account) -> _Model:
    """Return a JSON body as a model; Refused names the first thing that is wrong with it."""
    body = bytearray()
    async for chunk in _chunks(request, limits, account):
        body += chunk
    try:
        return await asyncio.to_thread(model.model_validate_json, body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or "the body"
        what = first["msg"][0].lower() + first["msg"][1:]
        raise Refused(422, f"Expected JSON as /docs describes it, but in {shown(where)}: {what}.") from error


async def _chunks(request: Request, limits: Limits, account: _Account) -> AsyncGenerator[bytes, None]:
    """Yield the body; Refused once it is over the limits of size and time."""
    said = request.headers.get("content-length", "")
    if said.isdecimal() and int(said) > limits.max_bytes:
        await _linger(request, limits)
        raise _too_large(f"{int(said):,}", limits)
    total = 0
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                total += len(chunk)
                if total > limits.max_bytes:
                    await _linger(request, limits)
                    raise _too_large("more", limits)
                account.take(len(chunk))
                yield chunk
    except TimeoutError as error:
        raise Refused(
            408, f"Expected the whole body within {limits.seconds:g} seconds, got a part of it: send it faster."
        ) from error
    except ClientDisconnect as error:
        raise Refused(400, "Expected the whole body, but the client hung up: send it again.") from error


async def _linger(request: Request, limits: Limits) -> None:
    """Read on for a while and forget it: a client that is still sending does not hear an answer."""
    dropped = 0
    try:
        async with asyncio.timeout(min(5.0, limits.seconds)):
            while dropped < _LINGER_BYTES:
                message = await request.receive()
                dropped += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body"):
                    return
    except TimeoutError:
        return


def _too_large(got: str, limits: Limits) -> Refused:
    return Refused(
        413, f"Expected a body of at most {limits.max_bytes:,} bytes, got {got}: send fewer or smaller pictures."
    )


def _too_many(got: str, limits: Limits) -> Refused:
    return Refused(
        413, f"Expected at most {limits.max_pictures} pictures or prompts a request, got {got}: send several requests."
    )


class _InMemory(MultiPartParser):
    """The parser with its only road to the disk closed; ``_chunks`` bounds what it can hold."""

    spool_max_size = 0  # a spooled file of size 0 is never rolled over to the disk


async def _from_multipart(
    request: Request, limits: Limits, account: _Account
) -> tuple[list[Upload], list[str | None], list[str]]:
    parser = _InMemory(
        request.headers,
        _chunks(request, limits, account),
        max_files=limits.max_pictures,
        max_fields=limits.max_pictures,
        max_part_size=4 * limits.max_prompt + 4,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many"):
            raise _too_many("more", limits) from error
        raise Refused(
            400, f"Expected multipart/form-data, got a malformed body ({error.message.rstrip('.')})."
        ) from error
    pictures: list[Upload] = []
    prompts: list[str] = []
    for name, value in form.multi_items():
        match name, value:
            case "picture" | "pictures", UploadFile():
                if value.filename or value.size:  # a browser sends an empty part for a field left empty
                    account.take(value.size or 0)
                    pictures.append(Upload(value.filename or "", await value.read()))
            case "prompt" | "prompts", str():
                prompts.append(value)
            case _:
                expected = "the fields picture (a file) and prompt (text)"
                raise Refused(422, f"Expected {expected}, got {shown(name)}: check its name and kind.")
    return pictures, [None] * len(pictures), prompts


def _from_json(body: ScoreIn) -> tuple[list[Upload], list[str | None], list[str]]:
    if body.prompt is not None and body.prompts is not None:
        raise Refused(422, "Expected prompt or prompts, got both: keep one of them.")
    prompts = [body.prompt] if body.prompt is not None else body.prompts or []
    pictures = [Upload(one.name, _decoded(one, place)) for place, one in enumerate(body.pictures)]
    return pictures, [one.prompt for one in body.pictures], prompts


def _decoded(picture: PictureIn, place: int) -> bytes:
    text = picture.data.partition(",")[2] if picture.data.startswith("data:") else picture.data
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Refused(
            422, f"Expected base64 in pictures.{place}.data, got other text: encode the file, an address will not do."
        ) from error


def _pair(count: int, own: list[str | None], prompts: list[str]) -> tuple[tuple[str | None, ...], ...]:
    """Return the prompts of each picture: its own, or else the one for all, or else its share of the list."""
    if len(prompts) > 1 and any(one is not None for one in own):
        raise Refused(422, "Expected prompts in the list or with the pictures, got both: keep one of them.")
    if len(prompts) <= 1:
        return tuple((one if one is not None else next(iter(prompts), None),) for one in own)
    if count == 1:
        return (tuple(prompts),)
    if len(prompts) != count:
        raise Refused(422, f"Expected one prompt, or one for each of {count} pictures, got {len(prompts)}.")
    return tuple((prompt,) for prompt in prompts)


def _checked(ask: Ask, limits: Limits) -> Ask:
    if ask.count > limits.max_pictures:
        raise _too_many(str(ask.count), limits)
    for prompt in {prompt for prompts in ask.prompts for prompt in prompts if prompt is not None}:
        if len(prompt) > limits.max_prompt:
            raise Refused(
                413, f"Expected prompts of at most {limits.max_prompt:,} characters, got {len(prompt):,}: shorten it."
            )
        if any("\ud800" <= letter <= "\udfff" for letter in prompt):
            raise Refused(422, "Expected prompts in valid Unicode, got a lone surrogate: send UTF-8.")
    if any(len(one.name) > _MAX_NAME for one in ask.pictures):
        raise Refused(413, f"Expected file names of at most {_MAX_NAME:,} characters, got a longer one: shorten it.")
    return ask
