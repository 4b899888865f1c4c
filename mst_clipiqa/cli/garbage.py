"""When Python looks for garbage: not while a command starts, and not when it ends.

Torch brings some hundred thousand objects that live as long as the process. Going through them again and again while
they arrive, and once more at exit, costs a good part of the time of ``score one.jpg``.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def collected_later() -> Iterator[None]:
    """Collect no garbage while the block imports and loads; what it leaves is never looked at again."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was_enabled:
            gc.enable()
