"""Every test runs offline: no model hub, no socket to another machine. Shapes and types of the model are checked."""

from __future__ import annotations

import gc
import ipaddress
import os
import socket
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports a hub client, which reads it once

import pytest


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection(session: pytest.Session) -> Generator[None, object, object]:
    """Before the first test is imported: check tensors against the shapes in annotations while tests run.

    A process that deals tests out to others imports none, so they need not wait for it to import all this.
    Garbage is collected from then on only among what tests make: a million objects that imports leave for good would
    be looked through each time, and a third of the imports' time would go there.
    """
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        return (yield)
    gc.disable()
    try:
        import transformers.modeling_utils  # noqa: F401  # before the hook, which would compile all of it anew

        from tests.shapes import check_shapes

        check_shapes(["mst_clipiqa.model", "mst_clipiqa.encoders"])
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _made_once() -> Iterator[None]:
    from tests.made_once import make_once

    with pytest.MonkeyPatch.context() as patch:
        make_once(patch)
        yield


@pytest.fixture(scope="session")
def small_encoders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of encoders like mini's, a hundred times smaller."""
    from tests.small_models import save_small_encoders

    return save_small_encoders(tmp_path_factory.mktemp("small") / "encoders")


@pytest.fixture(scope="session")
def small_model(small_encoders: Path) -> Path:
    """Return a folder of a model with both heads over ``small_encoders``."""
    from tests.small_models import save_small_model

    return save_small_model(small_encoders.parent / "model", small_encoders)


@pytest.fixture
def few_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Explain with 9 windows in place of 64, where a test does not look at the map."""
    monkeypatch.setattr("mst_clipiqa.explain.maps.GRID", 3)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """Collect no garbage meanwhile: where nesting is deepest, a finaliser would fail, and the test with it."""
    gc.disable()
    yield
    gc.enable()


def _is_here(address: Any) -> bool:
    if not isinstance(address, tuple):
        return True  # a socket file
    try:
        return ipaddress.ip_address(address[0]).is_loopback
    except ValueError:
        return bool(address[0] == "localhost")


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def guarded(self: socket.socket, address: Any) -> None:
        if not _is_here(address):
            raise RuntimeError(f"A test tried to reach {address!r}: tests run offline.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", guarded)
