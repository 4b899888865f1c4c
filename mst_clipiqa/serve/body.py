"""The body of a request -> images and prompts, in memory and within the limits.

There are two forms: ``multipart/form-data`` (fields image and prompt, each repeatable, and negative, reference and
control), and JSON with images in base64. Nothing is written to disk, URLs are not fetched, and file names are only
repeated in the response.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from dataclasses import dataclass, field
from functools import cache

from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.requests import Request

from mst_clipiqa.errors import Rejected, shown
from mst_clipiqa.serve.form import ControlUploads, Upload, read_form, too_long, too_many
from mst_clipiqa.serve.reading import Reservation, read_json
from mst_clipiqa.serve.settings import Limits

_MAX_NAME = 1000  # characters of a file name
_MAX_LIST = 2**31  # the largest length that pydantic can check, and more than any body holds


@dataclass(frozen=True)
class HttpScoreRequest:
    """The images that a client wants scored, and the prompts of each.

    Attributes:
        images: in the order they were sent.
        prompts: for each image, one entry per score; None stands for no prompt.
        controls: what is asked of every image beside its prompt.
    """

    images: tuple[Upload, ...]
    prompts: tuple[tuple[str | None, ...], ...]
    controls: ControlUploads = field(default_factory=ControlUploads)

    @property
    def count(self) -> int:
        """The number of scores that this makes."""
        return sum(map(len, self.prompts))


class FileBody(BaseModel):
    """An image file in a JSON body."""

    model_config = ConfigDict(extra="forbid")
    data: str = Field(description="The image file in base64, or as a data: URL.", examples=["iVBORw0KGgo..."])


class ImageBody(FileBody):
    """One image to score in a JSON body."""

    name: str = Field("", description="Repeated in the response.", examples=["ball.png"])
    prompt: str | None = Field(None, description="The image's own prompt.", examples=["a red ball on a table"])


class ScoreBody(BaseModel):
    """A JSON body of /v1/score: images, one prompt for all or one for each, and what else is asked of all."""

    model_config = ConfigDict(extra="forbid")
    images: list[ImageBody]
    prompt: str | None = Field(None, description="The prompt of every image that has none of its own.")
    prompts: list[str] | None = Field(None, description="One prompt for each image, or several for one image.")
    negative: str | None = Field(None, description="The negative prompt of every image; adds negative_match.")
    reference: FileBody | None = Field(
        None, description="An image to compare all with; adds reference_coarse and reference_fine."
    )
    control: FileBody | None = Field(
        None, description="A map of edges, light lines on a dark ground; adds edge_agreement."
    )


@cache
def _bounded(count: int) -> type[ScoreBody]:
    """Return the model with lists of at most ``count`` items; validation stops at the first item beyond."""
    return create_model(
        "ScoreBody",
        __base__=ScoreBody,
        images=(list[ImageBody], Field(max_length=count, fail_fast=True)),
        prompts=(list[str] | None, Field(None, max_length=count, fail_fast=True)),
    )


async def read_score_request(request: Request, limits: Limits, reservation: Reservation) -> HttpScoreRequest:
    """Return the images and prompts of a request.

    Raises:
        Rejected: the body is too large, too slow or malformed, or request bodies fill the memory.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        images, prompts, controls = await read_form(request, limits, reservation)
        own: list[str | None] = [None] * len(images)
    elif kind == "application/json" or not kind:
        model = _bounded(min(limits.max_images, _MAX_LIST))
        body = await read_json(request, model, limits, reservation, lambda got: too_many(got, limits))
        images, own, prompts, controls = await asyncio.to_thread(_from_json, body)
    else:
        raise Rejected(415, f"Expected multipart/form-data or application/json, got {shown(kind)}: send one of these.")
    if not images:
        raise Rejected(422, "Expected at least one image, got none: send it in the field image, or as JSON.")
    return _checked(HttpScoreRequest(tuple(images), _pair(len(images), own, prompts), controls), limits)


def _from_json(body: ScoreBody) -> tuple[list[Upload], list[str | None], list[str], ControlUploads]:
    if body.prompt is not None and body.prompts is not None:
        raise Rejected(422, "Expected prompt or prompts, got both: keep one of them.")
    prompts = [body.prompt] if body.prompt is not None else body.prompts or []
    images = [Upload(one.name, _decoded(one, f"images.{index}")) for index, one in enumerate(body.images)]
    files = {name: getattr(body, name) for name in ("reference", "control")}
    asked = {name: file and Upload("", _decoded(file, name)) for name, file in files.items()}
    return images, [one.prompt for one in body.images], prompts, ControlUploads(body.negative, **asked)


def _decoded(image: FileBody, where: str) -> bytes:
    text = image.data.partition(",")[2] if image.data.startswith("data:") else image.data
    try:
        return base64.b64decode("".join(text.split()), validate=True)  # many encoders break lines
    except (binascii.Error, ValueError) as error:
        raise Rejected(
            422, f"Expected base64 in {where}.data, got other text: encode the file; URLs are not fetched."
        ) from error


def _pair(count: int, own: list[str | None], prompts: list[str]) -> tuple[tuple[str | None, ...], ...]:
    """Return the prompts of each image: its own, else the one for all, else its share of the list."""
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
        raise too_many(str(asked.count), limits)
    for prompt in {asked.controls.negative, *(prompt for prompts in asked.prompts for prompt in prompts)}:
        if prompt is not None and len(prompt) > limits.max_prompt:
            raise too_long(f"{len(prompt):,}", limits)
    if any(len(one.name) > _MAX_NAME for one in asked.images):
        raise Rejected(413, f"Expected file names of at most {_MAX_NAME:,} characters, got a longer one: shorten it.")
    return asked
