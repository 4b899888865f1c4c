"""The routes: scores, comparisons, files to keep, health, metrics, documentation and the page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.exceptions import HTTPException
from starlette.responses import FileResponse
from starlette.staticfiles import StaticFiles

from mst_clipiqa._version import __version__
from mst_clipiqa.errors import DataError, Rejected, UsageError
from mst_clipiqa.scoring.scorer import Score, Scorer
from mst_clipiqa.serve.body import HttpScoreRequest, ScoreBody, read_score_request
from mst_clipiqa.serve.download import DownloadBody, make_download
from mst_clipiqa.serve.engine import Engine
from mst_clipiqa.serve.explaining import ExplainResponse, add_explain
from mst_clipiqa.serve.metrics import Metrics
from mst_clipiqa.serve.middleware import RequestMiddleware
from mst_clipiqa.serve.reading import MemoryBudget, read_json
from mst_clipiqa.serve.responses import JsonResponse, rejection
from mst_clipiqa.serve.results import CompareResponse, ErrorResponse, ScoreResponse, results
from mst_clipiqa.serve.settings import Settings

PAGE = Path(__file__).parent / "page"
_WHY = {
    400: "Malformed.",
    401: "No token, or a wrong one.",
    403: "For another host, or from another site's page.",
    408: "The body came too slowly.",
    413: "Over a limit of size or count.",
    415: "Another type of body.",
    422: "Understood, but nothing in it can be scored.",
    503: "Busy: Retry-After says when to try again.",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorResponse, "description": why} for code, why in _WHY.items()
}
_TEXT = {"type": "string"}
_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "prompt": {"type": "array", "items": _TEXT, "description": "One for all, one for each, or several for one."},
    },
}


def body_of(*, json: dict[str, Any], form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return what OpenAPI is to say of a body that we read ourselves."""
    content = {"application/json": {"schema": json}}
    if form:
        content = {"multipart/form-data": {"schema": form}, **content}
    return {"requestBody": {"required": True, "content": content}}


_JSON = ScoreBody.model_json_schema()
_JSON["properties"]["images"]["items"] = _JSON.pop("$defs")["ImageBody"]  # in place, as nothing else refers to it
SCORE_BODY = body_of(form=_FORM, json=_JSON)


class Server:
    """What the routes share: the engine, the limits, and the memory budget."""

    def __init__(self, scorer: Scorer, settings: Settings) -> None:
        self.scorer = scorer
        self.settings = settings
        self.metrics = Metrics()
        self.engine = Engine(scorer, settings.limits, self.metrics, settings.workers)
        self.memory = MemoryBudget(settings.limits.max_held)
        self.metrics.held.set_function(lambda: self.memory.bytes)

    async def scored(self, request: Request, count: int | None = None) -> list[dict[str, Any]]:
        """Return the results of a request; Rejected if none could be scored."""
        asked, scores = await self.scores(request, count)
        return results(asked, scores)

    async def scores(self, request: Request, count: int | None = None) -> tuple[HttpScoreRequest, list[Score]]:
        """Return a request's body and its scores.

        Args:
            request: the HTTP request.
            count: the number of images to insist on, all with one prompt or none; None for any.

        Raises:
            Rejected: the body is not as it should be, or no image could be scored.
        """
        with self.memory.reserve() as reservation:
            asked = await read_score_request(request, self.settings.limits, reservation)
            if count is not None:
                _check_alike(asked, count)
            scores = await self.engine.score(asked)
        if all(score.status == "error" for score in scores):
            raise Rejected(422, scores[0].reason)
        return asked, scores


def create_app(scorer: Scorer, settings: Settings) -> FastAPI:
    """Return the application for a model; ``run.py`` serves it, tests call it."""
    server = Server(scorer, settings)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        yield
        await server.engine.close()

    app = FastAPI(
        title="mst-clipiqa",
        version=__version__,
        description="Scores generated images: how good they look, and how well they show their prompt.",
        docs_url=None,
        redoc_url=None,
        lifespan=life,
    )
    app.state.server = server
    _add_scores(app, server)
    _add_operations(app, server)
    documented = {"responses": {200: {"model": ExplainResponse}, **ERROR_RESPONSES}, "openapi_extra": SCORE_BODY}
    explains = add_explain(app, server, **documented)
    _add_page(app, server, explains)
    _add_problems(app)
    paths = frozenset(path for route in app.routes if isinstance(path := getattr(route, "path", None), str))
    app.add_middleware(RequestMiddleware, settings=settings, metrics=server.metrics, paths=paths)
    return app


def _add_scores(app: FastAPI, server: Server) -> None:
    @app.post(
        "/v1/score",
        summary="Score one image or many.",
        responses={200: {"model": ScoreResponse}, **ERROR_RESPONSES},
        openapi_extra=SCORE_BODY,
    )
    async def score(request: Request) -> JsonResponse:
        """An image that cannot be read is a result with its reason; where none can be scored, the answer is 422."""
        return JsonResponse({"results": await server.scored(request)})

    @app.post(
        "/v1/compare",
        summary="Say which of two images is better.",
        responses={200: {"model": CompareResponse}, **ERROR_RESPONSES},
        openapi_extra=SCORE_BODY,
    )
    async def compare(request: Request) -> JsonResponse:
        """Takes exactly two images, A and B in this order, and at most one prompt."""
        from mst_clipiqa.analysis.compare import compare_scores

        asked, scores = await server.scores(request, count=2)
        if bad := next((score for score in scores if score.status == "error"), None):
            raise Rejected(422, bad.reason)
        compared = [one for one in compare_scores(scores[0], scores[1]) if one.a is not None or one.b is not None]
        found = {"sentences": [one.sentence() for one in compared], "comparisons": [one.to_row() for one in compared]}
        return JsonResponse({"results": results(asked, scores), **found})

    @app.post(
        "/v1/download",
        summary="Turn results into a csv table or a report.",
        responses={200: {"content": {"text/csv": {}, "text/html": {}}}, **ERROR_RESPONSES},
        response_class=Response,
        openapi_extra=body_of(json=DownloadBody.model_json_schema()),
    )
    async def make_file(request: Request) -> Response:
        """The report is one page of its own: it needs neither this server nor a network."""
        with server.memory.reserve() as reservation:
            asked = await read_json(request, DownloadBody, server.settings.limits, reservation)
            try:
                content, kind = await asyncio.to_thread(make_download, asked)
            except (DataError, UsageError) as error:
                raise Rejected(422, str(error)) from error
        name = "scores.csv" if asked.format == "csv" else "report.html"
        return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _add_operations(app: FastAPI, server: Server) -> None:
    @app.get("/healthz", summary="The process is alive.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="There is room for another request.", responses={503: ERROR_RESPONSES[503]})
    async def ready() -> dict[str, str]:
        if server.engine.is_full:
            raise Rejected(
                503, "Expected room for another request, but too many scores are waiting: try again soon.", 1
            )
        return {"status": "ok"}

    @app.get("/metrics", summary="Counters, for Prometheus.", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI, server: Server, explains: bool) -> None:
    limits = server.settings.limits
    info = {
        "version": __version__,
        "model": server.scorer.model.config.name,
        "ranges": server.scorer.ranges,
        "reads_prompts": any(t.head != "template" for t in server.scorer.model.config.targets.values()),
        "calibrated": all(t.calibrated for t in server.scorer.model.config.targets.values()),
        "explains": explains,
        "limits": {
            "max_bytes": limits.max_bytes,
            "max_pixels": limits.max_pixels,
            "max_images": limits.max_images,
            "max_prompt": limits.max_prompt,
        },
    }

    @app.get("/v1/info", summary="The model, its scales, and the limits.", responses={401: ERROR_RESPONSES[401]})
    async def about() -> JsonResponse:
        return JsonResponse(info)

    def add_file(path: str, name: str) -> None:
        @app.get(path, include_in_schema=False)
        async def page_file() -> FileResponse:
            return FileResponse(PAGE / name)

    add_file("/", "index.html")
    add_file("/docs", "docs.html")
    app.mount("/static", StaticFiles(directory=PAGE))
    app.mount("/swagger", StaticFiles(directory=str(files("fastapi_offline") / "static")))


def _add_problems(app: FastAPI) -> None:
    @app.exception_handler(Rejected)
    async def refused(request: Request, error: Rejected) -> Response:
        return rejection(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        method, path = request.method, request.scope["path"][:200]  # as its URL may be none
        sentence = f"Expected one of the paths in /docs, got {method} {path!r}."
        return JsonResponse({"error": sentence}, error.status_code, error.headers)


def _check_alike(asked: HttpScoreRequest, count: int) -> None:
    """Refuse what are not so many images with the same prompt or none: scores for two prompts do not compare."""
    expected = f"Expected {count} images and at most one prompt"
    if len(asked.images) != count or asked.count != count:
        raise Rejected(422, f"{expected}, got {len(asked.images)} images and {asked.count} scores to give.")
    if len(set(asked.prompts)) > 1:
        raise Rejected(422, f"{expected}, got images with different prompts: send one prompt for all of them.")
