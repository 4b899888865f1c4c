"""A small server for tests: a fast toy scorer, served from this process on its own port."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from mst_clipiqa.features.image_encoder import ImageEncoder
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.serve.run import config_of, listen
from mst_clipiqa.serve.settings import Settings
from tests.closed_form import toy_model
from tests.fakes import FakePair, draw


def toy_scorer(batch_size: int = 8) -> Scorer:
    """Return a scorer over the fake encoders."""
    pair = FakePair()
    return Scorer(toy_model(pair), ImageEncoder(pair, batch_size=batch_size))


def png(seed: int = 0, distorted: float = 0.2, size: int = 64) -> bytes:
    """Return an image as the bytes of a file."""
    file = io.BytesIO()
    draw(seed, distorted, size).save(file, "PNG")
    return file.getvalue()


def b64(data: bytes) -> str:
    """Return bytes in base64."""
    return base64.b64encode(data).decode()


@contextmanager
def running(scorer: Scorer, settings: Settings, loop: str = "auto") -> Iterator[str]:
    """Serve in a thread, on an event loop that uvicorn knows by this name; yield the address."""
    listener = listen(settings)
    config = config_of(scorer, settings)
    config.loop = loop
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.01)
        host, port = listener.getsockname()[:2]
        yield f"http://{host}:{port}"
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
