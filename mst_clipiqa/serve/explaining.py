"""Why an image got its score, over HTTP; there only where the package can explain."""

from __future__ import annotations

import importlib.util
from typing import Any, Literal, Protocol

from fastapi import FastAPI, Request
from pydantic import BaseModel, Field

from mst_clipiqa.errors import ImageError, PromptError, Rejected
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.report.thumbnails import webp
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.body import HttpScoreRequest, read_score_request
from mst_clipiqa.serve.engine import Engine
from mst_clipiqa.serve.reading import MemoryBudget
from mst_clipiqa.serve.responses import JsonResponse
from mst_clipiqa.serve.settings import Settings

WEIGHT = 64
"""What an explanation counts for among the scores that wait: its cost with mini; a CLIP pair encodes 193 views."""
MAX_PROMPT = 1000
"""Characters of a prompt to explain: it is encoded twice for each of its words."""
STREAMS: tuple[Literal["coarse", "fine"], ...] = ("coarse", "fine")


class Shared(Protocol):
    """What the route needs of the server."""

    scorer: Scorer
    settings: Settings
    engine: Engine
    memory: MemoryBudget


class ExplainResponse(BaseModel):
    """What /v1/explain answers."""

    explanation: dict[str, Any] = Field(description="What `mst-clipiqa explain` writes as JSON.")
    overlays: dict[str, dict[str, str]] = Field(description="Target, then coarse or fine: WebP in base64.")


def add_explain(app: FastAPI, server: Shared, **documented: Any) -> bool:
    """Add /v1/explain if the package has explanations; return whether it has."""
    if importlib.util.find_spec("mst_clipiqa.explain") is None:
        return False

    @app.post("/v1/explain", summary="Say why an image got its score.", **documented)
    async def explain(request: Request) -> JsonResponse:
        """Takes one image and at most one prompt; costs about as much as 60 scores with mini."""
        with server.memory.reserve() as reservation:
            asked = _checked(await read_score_request(request, server.settings.limits, reservation))
            return JsonResponse(await server.engine.call(lambda: _explained(server, asked), WEIGHT))

    return True


def _checked(asked: HttpScoreRequest) -> HttpScoreRequest:
    if asked.count != 1:
        raise Rejected(422, f"Expected one image and at most one prompt, got {asked.count}: send several requests.")
    if len(asked.prompts[0][0] or "") > MAX_PROMPT:
        raise Rejected(413, f"Expected a prompt of at most {MAX_PROMPT:,} characters to explain, got more: shorten it.")
    return asked


def _explained(server: Shared, asked: HttpScoreRequest) -> dict[str, Any]:
    """Return the explanation of one image; runs in the thread that owns the scorer."""
    from mst_clipiqa.explain import explain

    try:
        image = open_image(asked.images[0].data, max_pixels=server.settings.limits.max_pixels).image
        found = explain(server.scorer, image, asked.prompts[0][0])
    except (ImageError, PromptError) as error:
        raise Rejected(422, str(error)) from error
    overlays = {name: {stream: webp(found.overlay(stream, name), 80) for stream in STREAMS} for name in found.maps}
    return {"explanation": found.to_json(), "overlays": overlays}
