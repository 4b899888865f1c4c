"""Settings of the server, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """How much of everything; beyond a limit the answer is a 4xx, or a 503 where waiting helps.

    Attributes:
        max_bytes: of a request's body.
        max_pixels: of one image; known from its header, before it is decoded.
        max_images: scores of one request: images, or prompts where one image has several.
        max_prompt: characters of a prompt.
        max_waiting: scores that wait or are being worked on, of all clients together.
        max_held: bytes of bodies that are held in memory, of all clients together.
        seconds: to receive a body, and again to answer it.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_images: int = 64
    max_prompt: int = 10_000
    max_waiting: int = 256
    max_held: int = 256 * 2**20
    seconds: float = 30.0


@dataclass(frozen=True)
class Settings:
    """How the server runs.

    Attributes:
        host, port: where it listens; port 0 takes a free one.
        token: what clients must show, or None on a loopback address.
        workers: threads that open images.
        limits: see there.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    workers: int = 2
    limits: Limits = field(default_factory=Limits)
