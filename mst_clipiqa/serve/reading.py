"""Reads the body of a request, within the limits of size, time and memory; validates JSON."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request

from mst_clipiqa.errors import Rejected, shown
from mst_clipiqa.serve.settings import Limits

_LINGER_BYTES = 256 * 2**20  # of an oversized body, read and dropped so that the client can receive the response
_MAX_LENGTH_DIGITS = 18  # of a Content-Length; Python refuses to convert very long numbers
_MAX_ERRORS = 100  # validation errors that are formatted in order to report the first
_Model = TypeVar("_Model", bound=BaseModel)


class MemoryBudget:
    """Counts the bytes of request bodies in memory, over all clients.

    Args:
        limit: the largest number of bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.bytes = 0

    @contextmanager
    def reserve(self) -> Iterator[Reservation]:
        """Give one request a reservation, and release its bytes at the end of the block."""
        reservation = Reservation(self)
        try:
            yield reservation
        finally:
            self.bytes -= reservation.bytes


class Reservation:
    """The bytes that one request holds in memory."""

    def __init__(self, memory: MemoryBudget) -> None:
        self.memory = memory
        self.bytes = 0

    def add(self, count: int) -> None:
        """Reserve more bytes; Rejected if they exceed the budget."""
        if self.memory.bytes + count > self.memory.limit:
            raise Rejected(503, "Expected room for the request's body, but others fill it now: try again soon.", 2)
        self.memory.bytes += count
        self.bytes += count


async def read_json(
    request: Request,
    model: type[_Model],
    limits: Limits,
    reservation: Reservation,
    too_long: Callable[[str], Rejected] | None = None,
) -> _Model:
    """Return a JSON body as a model.

    Args:
        request, limits, reservation: see ``chunks``.
        model: its lists should fail fast and have a ``max_length``, because every error is kept in memory.
        too_long: makes the rejection of a list over its ``max_length`` from the list's length; None for the usual one.

    Raises:
        Rejected: names the first error of the body.
    """
    body = bytearray()
    async for chunk in chunks(request, limits, reservation):
        body += chunk
    try:
        return await asyncio.to_thread(model.model_validate_json, body)
    except ValidationError as error:
        raise _invalid(error, too_long) from error


def _invalid(error: ValidationError, too_long: Callable[[str], Rejected] | None) -> Rejected:
    expected = "Expected JSON as /docs describes it,"
    if (count := error.error_count()) > _MAX_ERRORS:
        return Rejected(422, f"{expected} got {count:,} errors: send only the keys that it names.")
    first = error.errors(include_url=False, include_input=False)[0]
    if too_long and first["type"] == "too_long":
        return too_long(str(first["ctx"]["actual_length"]))
    where = ".".join(map(str, first["loc"])) or "the body"
    return Rejected(422, f"{expected} but in {shown(where)}: {first['msg'][0].lower()}{first['msg'][1:]}.")


async def chunks(request: Request, limits: Limits, reservation: Reservation) -> AsyncGenerator[bytes, None]:
    """Yield the body as it arrives.

    Raises:
        Rejected: the body exceeds the size or time limit or the memory budget, or the client disconnected.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > _MAX_LENGTH_DIGITS or int(declared) > limits.max_bytes):
        if request.headers.get("expect", "").lower() != "100-continue":  # who asks first has sent no body yet
            await _linger(request, limits)
        raise _too_large("more" if len(declared) > _MAX_LENGTH_DIGITS else f"{int(declared):,}", limits)
    end = asyncio.get_running_loop().time() + limits.seconds
    total, is_more = 0, True
    while is_more:
        try:
            async with asyncio.timeout_at(end):
                message = await request.receive()
        except TimeoutError as error:
            raise Rejected(
                408, f"Expected the whole body within {limits.seconds:g} seconds, got a part of it: send it faster."
            ) from error
        if message["type"] == "http.disconnect":
            raise Rejected(400, "Expected the whole body, but the client disconnected: send it again.")
        chunk, is_more = message.get("body", b""), message.get("more_body", False)
        total += len(chunk)
        if total > limits.max_bytes:
            if is_more:
                await _linger(request, limits)
            raise _too_large("more", limits)
        reservation.add(len(chunk))
        yield chunk


async def _linger(request: Request, limits: Limits) -> None:
    """Read and drop more of the body for a while: many clients read no response before they have sent everything."""
    dropped, is_more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(min(5.0, limits.seconds)):
            while is_more and dropped < _LINGER_BYTES:
                message = await request.receive()
                dropped += len(message.get("body", b""))
                is_more = message.get("more_body", False)


def _too_large(got: str, limits: Limits) -> Rejected:
    return Rejected(
        413, f"Expected a body of at most {limits.max_bytes:,} bytes, got {got}: send fewer or smaller images."
    )
