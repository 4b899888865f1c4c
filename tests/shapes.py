"""What checks shapes while tests run: see ``conftest.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from beartype import BeartypeConf, beartype

_F = TypeVar("_F", bound=Callable[..., Any])


def checked(function: _F) -> _F:
    """Return a function that checks its arguments and result if an annotation of it has a tensor's shape.

    Others stay as they are: some of them take values of any type from a file and refuse the wrong ones themselves.
    """
    hints = inspect.get_annotations(function, eval_str=True).values()
    if not any("[Tensor," in str(hint) or "[ndarray," in str(hint) for hint in hints):
        return function
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)
