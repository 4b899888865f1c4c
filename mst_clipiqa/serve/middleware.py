"""ASGI middleware: host, origin and token checks, security headers, and request metrics."""

from __future__ import annotations

import hmac
import ipaddress
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mst_clipiqa.errors import Rejected
from mst_clipiqa.serve.metrics import Metrics
from mst_clipiqa.serve.responses import internal_error, rejection
from mst_clipiqa.serve.settings import Settings

PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
DOCS_POLICY = PAGE_POLICY.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")  # Swagger UI styles itself
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_log = logging.getLogger(__name__)


class _HeaderAddingSend:
    """Sends a response with the security headers added; ``status`` is None until the response starts."""

    def __init__(self, send: Send, path: str) -> None:
        self.send = send
        self.path = path
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers.update(_HEADERS)
            headers["Content-Security-Policy"] = DOCS_POLICY if self.path == "/docs" else PAGE_POLICY
            headers.setdefault("Cache-Control", "no-store" if self.path.startswith("/v1/") else "no-cache")
        await self.send(message)


class RequestMiddleware:
    """Checks each request, passes it on, adds headers to the response, and counts it.

    Args:
        app: the application.
        settings: host and token; without a token, only requests for this machine's loopback names are answered, so
            that no web page can point its own domain here and read the responses (DNS rebinding).
        metrics: counts requests.
        paths: paths that are counted by name; all others are counted as "other".
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics, paths: frozenset[str]) -> None:
        self.app = app
        self.token = settings.token.encode() if settings.token else None
        self.metrics = metrics
        self.paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; anything but HTTP is passed on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        start = time.perf_counter()
        path = scope["path"] if scope["path"] in self.paths else "other"
        sender = _HeaderAddingSend(send, scope["path"])
        try:
            await self._answer(scope, receive, sender)
        except Exception:
            # Not in a handler of the application: Starlette runs that one outside this middleware, without its headers.
            if sender.status is not None:
                raise  # too late for another response: the ASGI server logs it and disconnects
            _log.exception("Error while answering %s:", path)
            await internal_error()(scope, receive, sender)
        finally:
            self.metrics.requests.labels(path, str(sender.status or 500)).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            self._check(scope)
        except Rejected as error:
            await rejection(error)(scope, receive, send)
        else:
            asked = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope  # uvicorn leaves the body out
            await self.app(asked, receive, send)

    def _check(self, scope: Scope) -> None:
        headers = HTTPConnection(scope).headers
        path = scope["path"]
        if not scope["query_string"].isascii():  # a redirect would fail on it
            raise Rejected(400, "Expected a query in ASCII, got other bytes: escape them as %XX.")
        if self.token is None and not _is_loopback_name(headers.get("host", "")):
            raise Rejected(
                403, "Expected a request for localhost, got one for another host: use http://localhost, or set a token."
            )
        if scope["method"] not in ("GET", "HEAD") and _is_foreign(headers):
            raise Rejected(
                403,
                "Expected a request from this server's page or a program, got one from another site.",
            )
        if self.token is not None and (path.startswith("/v1/") or path == "/metrics"):
            scheme, _, given = headers.get("authorization", "").partition(" ")
            # In constant time, so that timing does not reveal how much of a guess is right.
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self.token):
                raise Rejected(
                    401,
                    "Expected the header 'Authorization: Bearer TOKEN' with this server's token, got none or a wrong "
                    "one: look the token up.",
                )


def is_loopback(host: str) -> bool:
    """Return whether a host name or address can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _is_loopback_name(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return name is not None and is_loopback(name)


def _is_foreign(headers: Headers) -> bool:
    """Return whether a browser sent this on behalf of another site's page."""
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host")
