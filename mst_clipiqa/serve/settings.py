"""Settings of the server, and its limits."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """What a request may use; beyond a limit the response is a 4xx, or a 503 if waiting helps.

    Attributes:
        max_bytes: size of a request's body.
        max_pixels: pixels of one image, read from its header before decoding.
        max_images: scores per request: images, or prompts if one image has several.
        max_prompt: characters of a prompt.
        max_waiting: scores that wait or are in progress, over all clients.
        max_held: bytes of request bodies in memory, over all clients.
        max_connections: open connections; one more is refused.
        seconds: time to receive a request's head, again to receive its body, and again to answer it.
    """

    max_bytes: int = 32 * 2**20
    max_pixels: int = 50_000_000
    max_images: int = 64
    max_prompt: int = 10_000
    max_waiting: int = 256
    max_held: int = 256 * 2**20
    max_connections: int = 512
    seconds: float = 30.0


@dataclass(frozen=True)
class Settings:
    """How the server runs.

    Attributes:
        host, port: the address to listen on; port 0 takes a free one.
        token: the token that clients must send, or None on a loopback address.
        limits: what a request may use.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = None
    limits: Limits = field(default_factory=Limits)
