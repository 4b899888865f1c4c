"""What one cell of a table may hold, and how CSV holds it.

CSV cannot tell text from numbers, and spreadsheets run cells as formulas. So text that begins with one of
``= + - @``, a tab or a line end, that looks like a number, or that is empty, gets a single quote in front, which
spreadsheets show as text; reading takes it off again. What no such text can be taken for is written as it is.
"""

from __future__ import annotations

import math
import numbers
import re
from typing import TypeAlias

Cell: TypeAlias = str | float | int | None
"""What a table can hold."""

_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_RUNS = tuple("=+-@\t\r\n＝＋－＠")  # what spreadsheets take for the start of a formula
_QUOTED = re.compile('[",\r\n]')


def plain(value: object) -> Cell:
    """Return a value as Python's own str, int, float or None; NaN and infinity are no scores, so they are None.

    Raises:
        TypeError: it is neither text nor a number nor None.
    """
    if value is None or type(value) is str:
        return value
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"Expected text, a number or None in a table, got {type(value).__name__}.")
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def csv_cell(value: Cell) -> str:
    """Return a value as the text of a CSV cell; floats as the shortest text that reads back equal."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    return f"'{value}" if _needs_mark(value) else value


def from_csv_cell(text: str) -> str | float | None:
    """Return what the text of a CSV cell stands for."""
    if not text:
        return None
    return float(text) if _is_number(text) else unmarked(text)


def unmarked(text: str) -> str:
    """Return the text of a CSV cell without the quote that `csv_cell` put in front, if it did."""
    return text[1:] if text.startswith("'") and _needs_mark(text[1:]) else text


def csv_line(cells: list[str]) -> bytes:
    """Return one line of CSV in UTF-8; lone surrogates, which UTF-8 has not, as escapes."""
    quoted = ['"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell for cell in cells]
    line = '""' if quoted == [""] else ",".join(quoted)  # an empty line would be no row
    return utf8(f"{line}\n")


def utf8(text: str) -> bytes:
    r"""Return text in UTF-8, lone surrogates as escapes such as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace")


def _needs_mark(text: str) -> bool:
    bare = text.lstrip("'")  # a mark that belongs to the text is marked in turn
    return not bare or bare.startswith(_RUNS) or _is_number(bare)


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))
