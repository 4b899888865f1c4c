"""``POST /v1/explain``: why an image got its score."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from mst_clipiqa.errors import ImageError, PromptError, Rejected
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.report.thumbnails import webp
from mst_clipiqa.serve.body import HttpScoreRequest, read_score_request
from mst_clipiqa.serve.form import ControlUploads
from mst_clipiqa.serve.responses import JsonResponse
from mst_clipiqa.serve.server import Server

WEIGHT = 64
"""How many waiting scores an explanation counts as: its cost with mini; a CLIP pair encodes 193 views."""
MAX_PROMPT = 1000
"""Longest prompt that is explained, in characters: it is encoded twice for each of its words."""


class ExplainResponse(BaseModel):
    """The response of /v1/explain."""

    explanation: dict[str, Any] = Field(description="The JSON that the command `mst-clipiqa explain` writes.")
    overlays: dict[str, dict[str, str]] = Field(description="Per target, then per stream: a WebP image in base64.")


def add_explain(app: FastAPI, server: Server, **documented: Any) -> None:
    """Add the route; ``documented`` holds its responses and its body for OpenAPI."""

    @app.post("/v1/explain", summary="Explain the score of one image.", **documented)
    async def explain(request: Request) -> JsonResponse:
        """Takes one image and at most one prompt; costs about as much as 60 scores with mini."""
        with server.memory.reserve() as reservation:
            asked = _checked(await read_score_request(request, server.settings.limits, reservation))
            return JsonResponse(await server.engine.call(lambda: _explained(server, asked), WEIGHT))


def _checked(asked: HttpScoreRequest) -> HttpScoreRequest:
    if asked.controls != ControlUploads():
        raise Rejected(422, "Expected an image and a prompt to explain, got more: send the rest to /v1/score.")
    if asked.count != 1:
        raise Rejected(422, f"Expected one image and at most one prompt, got {asked.count}: send several requests.")
    if len(asked.prompts[0][0] or "") > MAX_PROMPT:
        raise Rejected(413, f"Expected a prompt of at most {MAX_PROMPT:,} characters to explain, got more: shorten it.")
    return asked


def _explained(server: Server, asked: HttpScoreRequest) -> dict[str, Any]:
    """Return the explanation of one image; called in a thread of the engine."""
    from mst_clipiqa.explain import explain
    from mst_clipiqa.explain.results import ENCODER_STREAMS

    try:
        opening = server.scorer.encoder.opening
        image = open_image(asked.images[0].data, opening, max_pixels=server.settings.limits.max_pixels).image
        found = explain(server.scorer, image, asked.prompts[0][0])
    except (ImageError, PromptError) as error:
        raise Rejected(422, str(error)) from error
    overlays = {
        name: {stream: webp(found.overlay(stream, name), 80) for stream in ("both", *ENCODER_STREAMS)}
        for name in found.maps
    }
    return {"explanation": found.to_json(), "overlays": overlays}
