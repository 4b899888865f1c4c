"""Limits on connections: how many are open, how long one may take to send a head and to take its answers.

uvicorn has no deadline for either, no limit for the size of a head, and its limit of concurrency refuses requests, not
connections, so that connections without a request would use it up. What lies between head and answer is the
application's (``reading.py``).
"""

from __future__ import annotations

import asyncio

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from mst_clipiqa.errors import Rejected
from mst_clipiqa.serve.responses import rejection
from mst_clipiqa.serve.settings import Limits

GRACE = 3
"""Seconds beyond the limit for a request that it may take when the server stops."""
_MAX_HEAD = 2**16  # bytes of a head, beside what arrives together with its end
_SLOWEST = 2**11  # bytes per second that a client must take of its answers


def protocol_of(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with these limits."""
    return type("LimitedProtocol", (_LimitedProtocol,), {"limits": limits, "lingering": set()})


class _LimitedProtocol(HttpToolsProtocol):
    """One connection."""

    limits: Limits
    lingering: set[_LimitedProtocol]  # refused connections whose requests are still arriving
    _deadline: asyncio.TimerHandle | None = None  # for the head, or for a refused request
    _taking: asyncio.TimerHandle | None = None  # the deadline for the client to take what waits for it
    _untaken = 0  # bytes that waited for the client when this deadline began
    _in_head = False  # whether a part of a head has arrived
    _unparsed = 0  # bytes since the last part of a request that was complete
    _dropped = 0  # bytes of a refused request
    _answering: RequestResponseCycle | None = None  # the first of the requests whose answers are due

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for a request, or refuse the connection."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # so that pause_writing is called for any byte that waits
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
        self._unparsed += len(data)
        self._unset_keepalive_if_required()
        self._parse(data)
        if self._unparsed > _MAX_HEAD and not self.transport.is_closing():
            self._refuse_head()
        elif self._is_answering():
            self._stop_waiting()
        elif self._deadline is None:
            self._wait()

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for the answers to a client that has sent everything."""
        if not self._is_answering() or self.cycle.more_body:
            return False
        self.cycle.keep_alive = False
        return True

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP; an answer that is due would be mistaken for this one, so that both are left out."""
        if self._is_answering():
            self.transport.abort()
        else:
            self._refuse(Rejected(400, "Expected a request in HTTP/1.1, got other bytes: use an HTTP client."))

    def on_message_begin(self) -> None:
        """Count the bytes of a new head."""
        super().on_message_begin()
        self._in_head, self._unparsed = True, 0

    def on_headers_complete(self) -> None:
        """Begin to answer, in turn."""
        if self._asks_for_another_protocol():
            return
        super().on_headers_complete()
        self._in_head, self._unparsed = False, 0
        self._answering = self._answering or self.cycle
        if self.cycle.waiting_for_100_continue:  # a body that is refused may never come: the next head is not it
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        """Pass a part of a body on."""
        super().on_body(body)
        self._unparsed = 0

    def on_message_complete(self) -> None:
        """Tell the application that it has the whole body."""
        if not self._asks_for_another_protocol():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """Wait for the next request as long as uvicorn keeps a connection alive."""
        self._answering = self.pipeline[-1][0] if self.pipeline else None
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Give the client time to take what waits for it."""
        super().pause_writing()
        self._expect_taking()

    def resume_writing(self) -> None:
        """Write on: nothing waits for the client."""
        super().resume_writing()
        self._stop_taking()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the deadlines, and leave out the rest of the answers."""
        self._stop_waiting()
        self._stop_taking()
        self.lingering.discard(self)
        if self._answering is not None:  # uvicorn tells only the last request, and the first would go on writing
            self._answering.disconnected = True
            self._answering.message_event.set()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Finish what has begun; what takes too long ends before uvicorn gives up on it and logs that."""
        super().shutdown()
        self.loop.call_later(self.limits.seconds + GRACE, self.transport.abort)

    def _parse(self, data: bytes) -> None:
        """Parse what came; who asks for another protocol, such as ``curl --http2``, is answered in this one.

        The parser stops after such a head, and would leave out the body. So the head comes again, without asking.
        """
        while True:
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as stopped:
                if self._asks_for_another_protocol():
                    data = self._head_again() + data[stopped.args[0] :]
                    self.parser = httptools.HttpRequestParser(self)  # the old one may have read its last head
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's
                    continue
            except httptools.HttpParserError as error:
                self.send_400_response(str(error))
            return

    def _asks_for_another_protocol(self) -> bool:
        asks: bool = self.parser.should_upgrade()
        return asks and self.parser.get_method() != b"CONNECT"

    def _head_again(self) -> bytes:
        start = self.parser.get_method(), self.url, self.parser.get_http_version().encode()
        headers = [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([b"%s %s HTTP/%s" % start, *headers, b"", b""])

    def _is_answering(self) -> bool:
        return self._answering is not None

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
        if self._in_head:
            seconds = f"{self.limits.seconds:g} seconds"
            self._refuse(Rejected(408, f"Expected a whole request within {seconds}, got a part of it: send it faster."))
        else:
            self.transport.close()  # nothing has come, or the rest of a request that has its answer

    def _expect_taking(self) -> None:
        self._untaken = self.transport.get_write_buffer_size()
        self._taking = self.loop.call_later(self.limits.seconds, self._check_taking)

    def _check_taking(self) -> None:
        """Abort where the client took too little of what waits for it; to close would wait for it forever."""
        taken = self._untaken - self.transport.get_write_buffer_size()
        if taken < _SLOWEST * self.limits.seconds:
            self.transport.abort()
        else:
            self._expect_taking()

    def _stop_taking(self) -> None:
        if self._taking is not None:
            self._taking.cancel()
            self._taking = None

    def _refuse_head(self) -> None:
        if self._in_head and not self._is_answering():
            most = f"Expected a head of at most {_MAX_HEAD:,} bytes"
            self._refuse(Rejected(431, f"{most}, got more: send fewer or shorter headers."))
        else:
            self.transport.abort()  # the trailer of a body without end, or a head while an answer is due

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
        self._stop_waiting()
        self._deadline = self.loop.call_later(self.limits.seconds, self.transport.close)

    def _drop(self, data: bytes) -> None:
        self._dropped += len(data)
        if self._dropped > self.limits.max_bytes:
            self.transport.close()
