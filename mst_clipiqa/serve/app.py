"""The routes: scores, comparisons, downloads, health, metrics, documentation and the page."""

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
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.body import ScoreBody
from mst_clipiqa.serve.download import DownloadBody, make_download
from mst_clipiqa.serve.explaining import ExplainResponse, add_explain
from mst_clipiqa.serve.middleware import RequestMiddleware
from mst_clipiqa.serve.reading import read_json
from mst_clipiqa.serve.responses import JsonResponse, rejection
from mst_clipiqa.serve.results import CompareResponse, ErrorResponse, ScoreResponse, results
from mst_clipiqa.serve.server import Server
from mst_clipiqa.serve.settings import Settings

_PAGE_FILES = Path(__file__).parent / "page"
_DOM_HELPERS = str(files("mst_clipiqa.report") / "script" / "dom.js")
_STATUS = {
    400: "The body or the query is malformed.",
    401: "The token is missing or wrong.",
    403: "The request names another host, or comes from a page of another site.",
    408: "The body took too long to arrive.",
    413: "A limit of size or count is exceeded.",
    415: "The body has an unsupported type.",
    422: "The request is well formed, but nothing in it can be scored.",
    503: "The server is busy: Retry-After says when to try again.",
}
ERROR_RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse, "description": text} for status, text in _STATUS.items()
}
_TEXT = {"type": "string"}
_FILE = {"type": "string", "format": "binary"}
_FORM = {
    "type": "object",
    "required": ["image"],
    "properties": {
        "image": {"type": "array", "items": _FILE},
        "prompt": {
            "type": "array",
            "items": _TEXT,
            "description": "One prompt for all images, one for each, or several for one image.",
        },
        "negative": {**_TEXT, "description": "The negative prompt of every image; adds negative_match."},
        "reference": {**_FILE, "description": "Compared with all; adds reference_coarse and reference_fine."},
        "control": {**_FILE, "description": "A map of edges, light on dark; adds edge_agreement."},
    },
}


def body_of(*, json: dict[str, Any], form: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return the OpenAPI description of a body that a route reads itself."""
    content = {"application/json": {"schema": json}}
    if form:
        content = {"multipart/form-data": {"schema": form}, **content}
    return {"requestBody": {"required": True, "content": content}}


_JSON = ScoreBody.model_json_schema()
_DEFS = _JSON.pop("$defs")  # inlined, as a reference would point to where the body is not
_JSON["properties"]["images"]["items"] = _DEFS["ImageBody"]
for _name in ("reference", "control"):
    _JSON["properties"][_name]["anyOf"][0] = _DEFS["FileBody"]
SCORE_BODY = body_of(form=_FORM, json=_JSON)


def create_app(scorer: Scorer, settings: Settings) -> FastAPI:
    """Return the application for a model; ``run.py`` serves it, tests call it."""
    server = Server(scorer, settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await server.engine.close()

    app = FastAPI(
        title="mst-clipiqa",
        version=__version__,
        description="Scores generated images: how good they look, and how well they show their prompt.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.state.server = server
    _add_scores(app, server)
    add_explain(app, server, **_documented(ExplainResponse))
    _add_download(app, server)
    _add_operations(app, server)
    _add_page(app, server)
    _add_error_handlers(app)
    paths = frozenset(path for route in app.routes if isinstance(path := getattr(route, "path", None), str))
    app.add_middleware(RequestMiddleware, settings=settings, metrics=server.metrics, paths=paths)
    return app


def _documented(response: type) -> dict[str, Any]:
    """Return the OpenAPI description of a route that takes images and prompts."""
    return {"responses": {200: {"model": response}, **ERROR_RESPONSES}, "openapi_extra": SCORE_BODY}


def _add_scores(app: FastAPI, server: Server) -> None:
    @app.post("/v1/score", summary="Score one image or many.", **_documented(ScoreResponse))
    async def score(request: Request) -> JsonResponse:
        """An image that cannot be read becomes a result with its reason; if none can be scored, the status is 422."""
        return JsonResponse({"results": results(*await server.scores(request))})

    @app.post("/v1/compare", summary="Say which of two images is better.", **_documented(CompareResponse))
    async def compare(request: Request) -> JsonResponse:
        """Takes exactly two images, A and B in this order, and at most one prompt."""
        from mst_clipiqa.analysis.compare import compare_scores

        asked, scores = await server.scores(request, count=2)
        for name, one in zip("AB", scores, strict=True):
            if one.status == "error":
                raise Rejected(422, f"Expected two images, but image {name} cannot be scored: {one.reason}")
        compared = [one for one in compare_scores(scores[0], scores[1]) if one.a is not None or one.b is not None]
        found = {"sentences": [one.sentence() for one in compared], "comparisons": [one.to_row() for one in compared]}
        return JsonResponse({"results": results(asked, scores), **found})


def _add_download(app: FastAPI, server: Server) -> None:
    @app.post(
        "/v1/download",
        summary="Turn results into a CSV table or a report.",
        responses={200: {"content": {"text/csv": {}, "text/html": {}}}, **ERROR_RESPONSES},
        response_class=Response,
        openapi_extra=body_of(json=DownloadBody.model_json_schema()),
    )
    async def download(request: Request) -> Response:
        """The report is a single file that needs neither this server nor a network."""
        with server.memory.reserve() as reservation:
            asked = await read_json(request, DownloadBody, server.settings.limits, reservation)
            try:
                content, kind = await asyncio.to_thread(make_download, asked, server.scorer.ranges)
            except (DataError, UsageError) as error:
                raise Rejected(422, str(error)) from error
        name = "scores.csv" if asked.format == "csv" else "report.html"
        return Response(content, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def _add_operations(app: FastAPI, server: Server) -> None:
    @app.get("/healthz", summary="Whether the process is alive.")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", summary="Whether there is room for another request.", responses={503: ERROR_RESPONSES[503]})
    async def ready() -> dict[str, str]:
        if server.engine.is_full:
            raise Rejected(
                503, "Expected room for another request, but too many scores are waiting: try again soon.", 1
            )
        return {"status": "ok"}

    @app.get("/metrics", summary="Counters for Prometheus.", response_class=Response)
    async def metrics() -> Response:
        return Response(generate_latest(server.metrics.registry), media_type=CONTENT_TYPE_LATEST)


def _add_page(app: FastAPI, server: Server) -> None:
    limits, predictor = server.settings.limits, server.scorer.predictor
    info = {
        "version": __version__,
        "model": predictor.name,
        "ranges": predictor.ranges,
        "reads_prompts": predictor.reads_prompts,
        "calibrated": predictor.config.calibrated,
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

    def add_file(path: str, file: Path | str) -> None:
        @app.get(path, include_in_schema=False)
        async def page_file() -> FileResponse:
            return FileResponse(file)

    add_file("/", _PAGE_FILES / "index.html")
    add_file("/docs", _PAGE_FILES / "docs.html")
    add_file("/static/dom.js", _DOM_HELPERS)
    app.mount("/static", StaticFiles(directory=_PAGE_FILES))
    app.mount("/swagger", StaticFiles(directory=str(files("fastapi_offline") / "static")))


def _add_error_handlers(app: FastAPI) -> None:
    @app.exception_handler(Rejected)
    async def rejected(request: Request, error: Rejected) -> Response:
        return rejection(error)

    @app.exception_handler(HTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        method, path = request.method, request.scope["path"][:200]  # not request.url, which may be invalid
        sentence = f"Expected one of the paths in /docs, got {method} {path!r}."
        if error.status_code == 405:
            allowed = (error.headers or {}).get("Allow", "GET").replace(", ", " or ")
            sentence = f"Expected {allowed} for {path!r}, got {method}: send the request with that method."
        return JsonResponse({"error": sentence}, error.status_code, error.headers)
