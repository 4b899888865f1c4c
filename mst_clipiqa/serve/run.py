"""An address to listen on, and uvicorn on it, until a signal says stop."""

from __future__ import annotations

import logging
import signal
import socket
from collections.abc import Callable

import uvicorn
from PIL import Image

from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.scoring.scorer import Request, Scorer
from mst_clipiqa.serve.app import create_app
from mst_clipiqa.serve.middleware import is_loopback
from mst_clipiqa.serve.settings import Settings

MIN_TOKEN = 16
"""Shortest token, in characters."""
_BACKLOG = 1024


def check_open(settings: Settings) -> None:
    """Refuse to serve strangers without a token.

    Raises:
        UsageError: another host than loopback without a token, or a token that can be guessed or cannot be sent.
    """
    token = settings.token
    if token is None:
        if not is_loopback(settings.host):
            raise UsageError(
                f"Expected a token to serve on {shown(settings.host)}, where others can reach it: set --token or "
                "MST_CLIPIQA_TOKEN, or leave --host out to serve this machine only."
            )
    elif len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(
            f"Expected a token of at least {MIN_TOKEN} printable ASCII characters without spaces, got another: make "
            "one with 'openssl rand -hex 16'."
        )


def listen(settings: Settings) -> socket.socket:
    """Return a socket that listens; UsageError where the address cannot be had or is none."""
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:  # a name with an empty or too long label is not even looked up
        why = error.strerror or error if isinstance(error, OSError) else "No name of a host is written like this"
        raise UsageError(
            f"Expected to listen on {shown(settings.host)}, port {settings.port}, but: {why}; name another with --host "
            "or --port (0 takes a free port)."
        ) from error


def address_of(listener: socket.socket) -> str:
    """Return the address to open in a browser."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def serve(scorer: Scorer, settings: Settings, listener: socket.socket, started: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM; then take no more requests, finish those that were begun, and return.

    Args:
        scorer: the model.
        settings: token, threads, limits.
        listener: from ``listen``.
        started: called just before the first request can be answered.
    """
    for _ in scorer.many([Request(Image.new("RGB", (256, 256)), "an image")]):
        pass  # what is loaded on first use is loaded now, and not while the first client waits
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # or every malformed body is a line of the log
    config = uvicorn.Config(
        create_app(scorer, settings),
        log_level="warning",  # to stderr; no line a request, so neither prompts nor names get into a log
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=int(settings.limits.seconds) + 5,
        ws="none",
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        server.should_exit = True

    # For a signal before uvicorn listens for it, and for the same one, which uvicorn raises again when it is done.
    before = {kind: signal.signal(kind, stop) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        started()
        server.run(sockets=[listener])
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)
        listener.close()
