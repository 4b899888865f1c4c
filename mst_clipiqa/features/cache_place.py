"""Where the feature cache is; light, so that a command can look before it imports torch."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_FILE = "features.sqlite"
CACHE_VARIABLE = "MST_CLIPIQA_CACHE"


def cache_folder(given: str | Path | None) -> Path | None:
    """Return the folder named by a flag or by ``MST_CLIPIQA_CACHE``; None means that nothing is cached."""
    name = given or os.environ.get(CACHE_VARIABLE)
    return Path(name) if name else None
