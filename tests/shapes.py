"""What checks shapes while tests run: see ``conftest.py``."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jaxtyping
from beartype import BeartypeConf, beartype

_F = TypeVar("_F", bound=Callable[..., Any])


def check_shapes(modules: Sequence[str]) -> None:
    """Check shapes in modules that are imported from now on."""
    jaxtyping.install_import_hook(modules, f"{checked.__module__}.{checked.__name__}")
    _leave_others_as_they_are()


def checked(function: _F) -> _F:
    """Return a function that checks its arguments and result if an annotation of it has a tensor's shape.

    Others stay as they are: some of them take values of any type from a file and refuse the wrong ones themselves.
    """
    hints = inspect.get_annotations(function, eval_str=True).values()
    if not any("[Tensor," in str(hint) or "[ndarray," in str(hint) for hint in hints):
        return function
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


def _leave_others_as_they_are() -> None:
    """Let the import hook wrap no function without shapes: a wrapper takes longer than many of them."""
    wrap: Any = jaxtyping.jaxtyped

    def wrap_some(*, typechecker: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def wrapped(thing: Any) -> Any:
            has_shapes = []

            def noted(function: Any) -> Any:
                typechecked = typechecker(function)
                has_shapes.append(typechecked is not function)
                return typechecked

            done = wrap(thing, typechecker=noted)
            return done if any(has_shapes) or inspect.isclass(thing) else thing

        return wrapped

    jaxtyping.jaxtyped = wrap_some  # type: ignore[assignment]
