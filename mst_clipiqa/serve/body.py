"""The body of a request -> images and prompts, in memory and within the limits.

Two forms: ``multipart/form-data`` (fields image, prompt; each may be repeated), and JSON with images in base64.
Nothing is spooled to disk, addresses are not fetched, and file names are only ever repeated in the answer.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, create_model
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from mst_clipiqa.errors import Rejected, shown
from mst_clipiqa.serve.reading import Reservation, chunks, read_json
from mst_clipiqa.serve.settings import Limits

_MAX_NAME = 1000  # characters of a file name
_MAX_LIST = 2**31  # what pydantic counts to, and more than any body holds
_PROMPT = ("prompt", "prompts")  # names of its field
_CHARSETS = (b"utf-8", b"utf8", b"us-ascii")


@dataclass(frozen=True)
class Upload:
    """One image as it came: the name it was given, and its bytes."""

    name: str
    data: bytes


@dataclass(frozen=True)
class HttpScoreRequest:
    """What a client wants scored: images, and the prompts of each."""

    images: tuple[Upload, ...]
    prompts: tuple[tuple[str | None, ...], ...]

    @property
    def count(self) -> int:
        """How many scores that makes."""
        return sum(map(len, self.prompts))


class ImageBody(BaseModel):
    """One image in a JSON body."""

    model_config = ConfigDict(extra="forbid")
    data: str = Field(description="The image file in base64; a data: URL will do.", examples=["iVBORw0KGgo..."])
    name: str = Field("", description="Repeated in the answer.", examples=["ball.png"])
    prompt: str | None = Field(None, description="The image's own prompt.", examples=["a red ball on a table"])


class ScoreBody(BaseModel):
    """A JSON body of /v1/score: images, and a prompt for all or one for each."""

    model_config = ConfigDict(extra="forbid")
    images: list[ImageBody]
    prompt: str | None = Field(None, description="The prompt of every image that has none of its own.")
    prompts: list[str] | None = Field(None, description="A prompt for each image, or several for one image.")


@cache
def _bounded(count: int) -> type[ScoreBody]:
    """Return the model with lists of at most so many, so that reading one stops at the first item that is too many."""
    return create_model(
        "ScoreBody",
        __base__=ScoreBody,
        images=(list[ImageBody], Field(max_length=count, fail_fast=True)),
        prompts=(list[str] | None, Field(None, max_length=count, fail_fast=True)),
    )


async def read_score_request(request: Request, limits: Limits, reservation: Reservation) -> HttpScoreRequest:
    """Return what a request asks for.

    Raises:
        Rejected: it is too large, too slow, malformed, or the server holds too much already.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        _check_charset(request.headers["content-type"])
        images, own, prompts = await _from_multipart(request, limits, reservation)
    elif kind == "application/json" or not kind:
        model = _bounded(min(limits.max_images, _MAX_LIST))
        body = await read_json(request, model, limits, reservation, lambda got: _too_many(got, limits))
        images, own, prompts = await asyncio.to_thread(_from_json, body)
    else:
        raise Rejected(415, f"Expected multipart/form-data or application/json, got {shown(kind)}: send one of these.")
    if not images:
        raise Rejected(422, "Expected at least one image, got none: send it in the field image, or as JSON.")
    return _checked(HttpScoreRequest(tuple(images), _pair(len(images), own, prompts)), limits)


def _check_charset(content_type: str) -> None:
    """Refuse text in anything but UTF-8: some of Python's codecs are slow, and some break on what they cannot read."""
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8")
    if charset.lower() not in _CHARSETS:
        raise Rejected(415, f"Expected text in UTF-8, got the charset {shown(charset.decode('latin-1'))}: send UTF-8.")


def _too_many(got: str, limits: Limits) -> Rejected:
    return Rejected(
        413, f"Expected at most {limits.max_images} images or prompts a request, got {got}: send several requests."
    )


def _too_long(got: str, limits: Limits) -> Rejected:
    return Rejected(413, f"Expected prompts of at most {limits.max_prompt:,} characters, got {got}: shorten it.")


def _unexpected(field: str) -> Rejected:
    expected = "the fields image (a file) and prompt (text)"
    return Rejected(422, f"Expected {expected}, got {shown(field)}: check its name and kind.")


class _InMemory(MultiPartParser):
    """The parser with its only road to the disk closed; ``chunks`` bounds what it can hold."""

    spool_max_size = 0  # a spooled file of size 0 is never rolled over to the disk
    is_whole = False

    def on_end(self) -> None:
        """Note that the last boundary was seen; a body that was cut off would otherwise pass for a shorter one."""
        self.is_whole = True

    def close(self) -> None:
        """Close every part, those included that were never finished."""
        for file in self._files_to_close_on_error:
            file.close()

    def refused(self, error: MultiPartException, limits: Limits) -> Rejected:
        """Return what to say of a body that could not be parsed."""
        if error.message.startswith("Too many"):
            return _too_many("more", limits)
        if error.message.startswith("Part exceeded"):  # of text: files have no bound of their own
            field = self._current_part.field_name
            return _too_long("more", limits) if field in _PROMPT else _unexpected(field)
        return Rejected(400, f"Expected multipart/form-data, got a malformed body ({error.message.rstrip('.')}).")


async def _from_multipart(
    request: Request, limits: Limits, reservation: Reservation
) -> tuple[list[Upload], list[str | None], list[str]]:
    parser = _InMemory(
        request.headers,
        chunks(request, limits, reservation),
        max_files=limits.max_images,
        max_fields=limits.max_images,
        max_part_size=4 * limits.max_prompt + 4,
    )
    try:
        form = await parser.parse()
        if not parser.is_whole:
            raise MultiPartException("it ends too early")
        images, prompts = await _fields(form, reservation)
    except MultiPartException as error:
        raise parser.refused(error, limits) from error
    finally:
        parser.close()
    return images, [None] * len(images), prompts


async def _fields(form: FormData, reservation: Reservation) -> tuple[list[Upload], list[str]]:
    """Return the images and prompts of a form."""
    images: list[Upload] = []
    prompts: list[str] = []
    for name, value in form.multi_items():
        match name, value:
            case "image" | "images", UploadFile():
                if value.filename or value.size:  # a browser sends an empty part for a field left empty
                    reservation.add(value.size or 0)
                    images.append(Upload(value.filename or "", await value.read()))
            case "prompt" | "prompts", str():
                prompts.append(value)
            case _:
                raise _unexpected(name)
    return images, prompts


def _from_json(body: ScoreBody) -> tuple[list[Upload], list[str | None], list[str]]:
    if body.prompt is not None and body.prompts is not None:
        raise Rejected(422, "Expected prompt or prompts, got both: keep one of them.")
    prompts = [body.prompt] if body.prompt is not None else body.prompts or []
    images = [Upload(one.name, _decoded(one, place)) for place, one in enumerate(body.images)]
    return images, [one.prompt for one in body.images], prompts


def _decoded(image: ImageBody, place: int) -> bytes:
    text = image.data.partition(",")[2] if image.data.startswith("data:") else image.data
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Rejected(
            422, f"Expected base64 in images.{place}.data, got other text: encode the file, an address will not do."
        ) from error


def _pair(count: int, own: list[str | None], prompts: list[str]) -> tuple[tuple[str | None, ...], ...]:
    """Return the prompts of each image: its own, or else the one for all, or else its share of the list."""
    if len(prompts) > 1 and any(one is not None for one in own):
        raise Rejected(422, "Expected prompts in the list or with the images, got both: keep one of them.")
    if len(prompts) <= 1:
        return tuple((one if one is not None else next(iter(prompts), None),) for one in own)
    if count == 1:
        return (tuple(prompts),)
    if len(prompts) != count:
        raise Rejected(422, f"Expected one prompt, or one for each of {count} images, got {len(prompts)}.")
    return tuple((prompt,) for prompt in prompts)


def _checked(asked: HttpScoreRequest, limits: Limits) -> HttpScoreRequest:
    if asked.count > limits.max_images:
        raise _too_many(str(asked.count), limits)
    for prompt in {prompt for prompts in asked.prompts for prompt in prompts if prompt is not None}:
        if len(prompt) > limits.max_prompt:
            raise _too_long(f"{len(prompt):,}", limits)
    if any(len(one.name) > _MAX_NAME for one in asked.images):
        raise Rejected(413, f"Expected file names of at most {_MAX_NAME:,} characters, got a longer one: shorten it.")
    return asked
