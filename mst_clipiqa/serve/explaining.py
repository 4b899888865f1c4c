"""Why a picture got its score, over HTTP; there only where the package can explain."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from fastapi import FastAPI

if TYPE_CHECKING:
    from mst_clipiqa.serve.app import Server


def add_explain(app: FastAPI, server: Server) -> bool:
    """Add /v1/explain if the package has explanations; return whether it has."""
    return importlib.util.find_spec("mst_clipiqa.explain") is not None
