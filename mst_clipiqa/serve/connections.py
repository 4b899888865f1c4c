"""Limits on connections: how many are open at once, and how long one may take to send the head of a request.

uvicorn has no deadline for the head of a request, and its limit of concurrency refuses requests, not connections, so
that connections without a request would use it up. Everything after the head is the application's (``reading.py``).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.auto import AutoHTTPProtocol

from mst_clipiqa.errors import Rejected
from mst_clipiqa.serve.responses import rejection
from mst_clipiqa.serve.settings import Limits

if TYPE_CHECKING:
    from uvicorn.protocols.http.h11_impl import H11Protocol as HTTPProtocol
else:
    HTTPProtocol = AutoHTTPProtocol  # with httptools, if that is installed


def protocol_of(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a deadline for the head of a request and a limit of connections."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "lingering": set()})


class _LimitedProtocol(HTTPProtocol):
    """One connection."""

    limits: Limits
    lingering: set[_LimitedProtocol]  # refused connections whose requests are still arriving
    _deadline: asyncio.TimerHandle | None = None
    _has_begun = False  # whether a part of a head has arrived
    _dropped = 0  # bytes of a refused request

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, or refuse the connection."""
        super().connection_made(transport)
        most = self.limits.max_connections
        if len(self.connections) > most:
            sentence = f"Expected at most {most:,} open connections, got one more: try again soon."
            self._refuse(Rejected(503, sentence, retry_after=1))
        else:
            self._wait()

    def data_received(self, data: bytes) -> None:
        """Read on; the deadline ends once a head is complete, and begins anew with the next one."""
        if self in self.lingering:
            self._drop(data)
            return
        self._has_begun = True
        super().data_received(data)
        if self._is_answering():
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def on_response_complete(self) -> None:
        """Wait for the next request as long as uvicorn keeps a connection alive."""
        super().on_response_complete()
        self._has_begun = False

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadline."""
        self._stop_waiting()
        self.lingering.discard(self)
        super().connection_lost(exc)

    def _is_answering(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def _wait(self) -> None:
        self._deadline = self.loop.call_later(self.limits.seconds, self._late)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _late(self) -> None:
        self._deadline = None
        if self._is_answering() or self.transport.is_closing():
            return
        if self._has_begun:
            seconds = f"{self.limits.seconds:g} seconds"
            self._refuse(Rejected(408, f"Expected a whole request within {seconds}, got a part of it: send it faster."))
        else:
            self.transport.close()

    def _refuse(self, error: Rejected) -> None:
        """Write a response to no request, and close once the client has sent its request or gone away.

        A client that is still sending when the connection closes sees a broken pipe and not the response. So its
        request is read and dropped, within the limits of a body's size and time, in as many connections as may be open.
        """
        response = rejection(error)
        headers = [b"%s: %s" % header for header in (*response.raw_headers, (b"connection", b"close"))]
        lines = [b"HTTP/1.1 %d -" % error.status, *headers, b"", bytes(response.body)]
        self.transport.write(b"\r\n".join(lines))
        if len(self.lingering) >= self.limits.max_connections:
            self.transport.close()
            return
        self.connections.discard(self)  # it takes no other's place
        self.lingering.add(self)
        self.transport.write_eof()
        self._deadline = self.loop.call_later(self.limits.seconds, self.transport.close)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > self.limits.max_bytes:
            self.transport.close()
