"""Types of values that click lacks: a path that has a name, and a number that is one."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import click


class _NamedPath(click.Path):
    """A path with a name: a variable that is not set gives an empty one, which Path takes for the folder here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a name, got an empty one: is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


class NumberRange(click.FloatRange):
    """A number within limits; click's own type lets nan through, as every comparison with it is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not a number.", param, ctx)
        return found

    def _describe_range(self) -> str:  # click says x<=None of a range without ends
        return "" if self.min is None and self.max is None else super()._describe_range()


FOLDER = _NamedPath(path_type=Path, file_okay=False)
FILE = _NamedPath(path_type=Path, dir_okay=False)
FILE_OR_FOLDER = _NamedPath(path_type=Path)
PLACE = _NamedPath()  # as written: it may be a URL
