"""JSON responses, and those to requests that were rejected or failed."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from mst_clipiqa.errors import Rejected


class JsonResponse(JSONResponse):
    """JSON in ASCII, which carries every file name and prompt, lone surrogates included."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def internal_error() -> JsonResponse:
    """Return a generic 500 response that leaks no internals."""
    return JsonResponse({"error": "Expected to answer this, but the server has a defect: see its log."}, 500)


def rejection(error: Rejected) -> JsonResponse:
    """Return the response to a rejected request."""
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonResponse({"error": error.sentence}, error.status, headers)
