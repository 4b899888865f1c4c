"""Every test runs offline: no model hub, no socket to another machine. Shapes and types of the model are checked."""

from __future__ import annotations

import ipaddress
import os
import socket
from typing import Any

import pytest
from jaxtyping import install_import_hook

from tests.shapes import checked

os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports a hub client, which reads it once

# Tensors are checked against the shapes in annotations while tests run.
install_import_hook(["mst_clipiqa.model", "mst_clipiqa.encoders"], f"{checked.__module__}.{checked.__name__}")


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
