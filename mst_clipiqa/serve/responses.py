"""Answers as bytes."""

from __future__ import annotations

import json
from typing import Any

from starlette.responses import JSONResponse

from mst_clipiqa.errors import Rejected


class JsonResponse(JSONResponse):
    """JSON in ASCII: any file name or prompt travels, whatever it holds."""

    def render(self, content: Any) -> bytes:
        """Return the body."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode("ascii")


def internal_error() -> JsonResponse:
    """Return the answer where the fault is ours; it says nothing of our insides."""
    return JsonResponse({"error": "Expected to answer this, but the server has a defect: its log says which."}, 500)


def rejection(refused: Rejected) -> JsonResponse:
    """Return the answer to a request that was refused."""
    headers = {"Retry-After": str(refused.retry_after)} if refused.retry_after else {}
    if refused.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JsonResponse({"error": refused.sentence}, refused.status, headers)
