"""Listens on an address and runs uvicorn until a signal stops it."""

from __future__ import annotations

import logging
import math
import signal
import socket
from collections.abc import Callable

import uvicorn
from PIL import Image

from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.app import create_app
from mst_clipiqa.serve.connections import GRACE, protocol_of
from mst_clipiqa.serve.middleware import is_loopback
from mst_clipiqa.serve.settings import Settings

MIN_TOKEN = 16
"""Length of the shortest token, in characters."""
_BACKLOG = 1024


def check_open(settings: Settings) -> None:
    """Check that only loopback addresses are served without a token.

    Raises:
        UsageError: the host is not loopback and there is no token, or the token is too short or cannot be sent.
    """
    token = settings.token
    if token is None:
        if not is_loopback(settings.host):
            raise UsageError(
                f"Expected a token to serve on {shown(settings.host)}, where others can reach it, got none: set "
                "--token or MST_CLIPIQA_TOKEN, or omit --host to serve this machine only."
            )
    elif len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"Expected a token of at least {MIN_TOKEN} printable ASCII characters without spaces, got one that is not: "
            'make one with: python -c "import secrets; print(secrets.token_hex())".'
        )


def listen(settings: Settings) -> socket.socket:
    """Return a listening socket; UsageError if the address is invalid or not available."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:  # a name with an empty or overlong label fails before the lookup
        why = error.strerror or error if isinstance(error, OSError) else "Not a valid host name"
        raise UsageError(
            f"Expected to listen on {shown(settings.host)}, port {settings.port}, but: {why}; name another with --host "
            "or --port (0 takes a free port)."
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return the address to open in a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def config_of(scorer: Scorer, settings: Settings) -> uvicorn.Config:
    """Return uvicorn's configuration."""
    return uvicorn.Config(
        create_app(scorer, settings),
        http=protocol_of(settings.limits),
        log_level="warning",  # to stderr; no access log, so that prompts and file names are never logged
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=math.ceil(settings.limits.seconds) + GRACE + 2,
        ws="none",
    )


def serve(scorer: Scorer, settings: Settings, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests in progress and return.

    Args:
        scorer: the model.
        settings: token, threads and limits.
        listener: from ``listen``.
        started: called just before the first request can be answered.
    """
    for _ in scorer.many([(Image.new("RGB", (256, 256)), "an image")]):
        pass  # load now what is loaded on first use, not while the first client waits
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # otherwise it logs every malformed body
    server = uvicorn.Server(config_of(scorer, settings))

    def stop(*_: object) -> None:
        server.should_exit = True

    # For signals before uvicorn handles them, and for the one that uvicorn raises again when it is done.
    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        started()
        server.run(sockets=[listener])
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        listener.close()
