"""What a cell of a table may hold, and how cells and rows are written as CSV and JSON lines.

CSV does not distinguish text from numbers, and spreadsheets run cells as formulas. So text that begins with one of
``= + - @``, a tab or a line end, that looks like a number, or that is empty, gets a single quote in front, which
makes spreadsheets show it as text; reading removes it. All other text is written unchanged, and so are numbers from
other programs: ``7.50`` does not become ``7.5``. Names of columns are marked only if spreadsheets would run them.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Iterable, Mapping
from typing import Any, Self, TypeAlias

Cell: TypeAlias = str | float | int | None
"""What a table can hold: text, a number, true or false (a bool, which is an int), or None for a missing value."""

TOO_DEEP = "nested too deeply"
"""Why a row of JSON cannot be read whose lists and objects are nested hundreds of levels deep."""
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WHOLE = re.compile(r"0|-?[1-9][0-9]{0,19}")  # as long as a seed of 64 bits
_STARTS_NUMBER = frozenset("-0123456789")
_FORMULA_STARTS = tuple("=+-@\t\r\n＝＋－＠")  # what spreadsheets take for the start of a formula
_MARKED = _STARTS_NUMBER | {*_FORMULA_STARTS}  # what a text that needs a mark may begin with
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False)  # json.dumps would make one for each cell
_QUOTED = re.compile('[",\r\n]')


class AsWritten(float):
    """A number that another program wrote in its own way, such as 7.50 or 1e5, which it keeps."""

    __slots__ = ("written",)  # a table may hold millions
    written: str

    def __new__(cls, text: str) -> Self:
        """Return the number of a text that is one; ValueError otherwise."""
        new = super().__new__(cls, text)
        new.written = text
        return new

    def __repr__(self) -> str:
        """Return the number as it was written."""
        return self.written

    def __getnewargs__(self) -> tuple[str]:  # type: ignore[override]  # of float, whose argument is a number
        """Let it be copied and pickled."""
        return (self.written,)


def as_written(text: str) -> float:
    """Return the number of a text: a float if Python would write it in the same way, or if it is too large for one."""
    value = float(text)
    return value if repr(value) == text or math.isinf(value) else AsWritten(text)


def plain(value: object) -> Cell:
    """Return a value as Python's own str, int, float, bool or None, or as ``AsWritten``; NaN and infinity are None.

    Raises:
        TypeError: it is neither text nor a number nor None.
    """
    if value is None or type(value) in (str, int, bool, AsWritten):
        return value  # type: ignore[return-value]  # mypy does not see what the type is
    if type(value) is float:  # nearly always; the questions below are slow
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return str(value)
    if not isinstance(value, numbers.Real):
        raise TypeError(f"Expected text, a number or None in a table, got {type(value).__name__}.")
    if isinstance(value, numbers.Integral):
        return int(value)
    return float(value) if math.isfinite(value) else None


def rounded(value: float | None, digits: int = 6) -> float | None:
    """Return a score without the digits that are rounding noise, and zero without a sign; None for none."""
    return None if value is None else round(value, digits) + 0.0


def csv_cell(value: Cell) -> str:
    """Return a value as the text of a CSV cell; floats as the shortest text that reads back equal."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if not isinstance(value, str):
        return repr(value)
    return f"'{value}" if _needs_mark(value) else value


def from_csv_cell(text: str) -> Cell:
    """Return the value of a CSV cell from its text; a whole number, such as a seed, keeps all its digits."""
    if not text:
        return None
    if text[0] not in _STARTS_NUMBER:  # most cells of a large table are text
        return unmarked(text)
    match = _NUMBER.fullmatch(text)
    if match is None:
        return text
    if match.lastindex == 1 and _WHOLE.fullmatch(text):  # neither a fraction nor an exponent
        return int(text)
    number = as_written(text)
    return number if math.isfinite(number) else text


def unmarked(text: str) -> str:
    """Return the text of a CSV cell without the quote that ``csv_cell`` put in front, if it did."""
    return text[1:] if text.startswith("'") and _needs_mark(text[1:]) else text


def whole_as_int(value: Cell) -> Cell:
    """Return a float without a fraction as an int: tables and JSON do not distinguish 3 from 3.0."""
    if isinstance(value, AsWritten) or not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else value


def csv_row(row: Mapping[str, object], columns: Iterable[str]) -> bytes:
    """Return a row as one line of CSV; a missing column is an empty cell."""
    return csv_line([csv_cell(plain(row.get(name))) for name in columns])


def json_row(row: Mapping[str, object], columns: Iterable[str]) -> bytes:
    """Return a row as one line of JSON, with its line end; a missing column is null."""
    return to_json({name: plain(row.get(name)) for name in columns}) + b"\n"


def csv_header(columns: Iterable[str]) -> bytes:
    """Return the first line of a CSV file: the names of its columns."""
    return csv_line([f"'{name}" if _is_formula(name) else name for name in columns])


def from_csv_header(cells: Iterable[str]) -> list[str]:
    """Return the names of the columns in the first line of a CSV file."""
    return [cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell for cell in cells]


def to_json(value: object) -> bytes:
    """Return a value as one line of JSON in UTF-8; lone surrogates stay, as the escapes that JSON has for them."""
    return utf8(_json(value))


def from_json(text: str) -> Any:
    """Return a value of JSON; numbers keep how they were written."""
    return json.loads(text, parse_float=as_written)


def nested(value: object) -> str:
    """Return a list or object of JSON as the text of a cell: numbers as they were written, null where not finite.

    Raises:
        RecursionError: it is nested too deeply, which json notices only if it is much deeper.
    """
    return _json(_finite(value))


def csv_line(cells: Iterable[str]) -> bytes:
    r"""Return one line of CSV in UTF-8, in which lone surrogates become escapes.

    ``csv.writer`` is not enough: with ``lineterminator="\n"``, Python 3.11 does not quote a cell that holds a lone
    carriage return, and its reader then ends the row there.
    """
    quoted = ['"' + cell.replace('"', '""') + '"' if _QUOTED.search(cell) else cell for cell in cells]
    line = '""' if quoted == [""] else ",".join(quoted)  # an empty line would be no row
    return utf8(f"{line}\n")


def utf8(text: str) -> bytes:
    r"""Return text in UTF-8, lone surrogates as escapes such as ``\udce9``."""
    return text.encode("utf-8", "backslashreplace")


def _json(value: object) -> str:
    if isinstance(value, AsWritten):  # json takes it for any other float
        return value.written
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_json(name)}: {_json(cell)}" for name, cell in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_json, value)) + "]"
    return _ENCODER.encode(value)


def _finite(value: object) -> object:
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA_STARTS)  # a mark that belongs to the text is marked in turn


def _needs_mark(text: str) -> bool:
    bare = text.lstrip("'")
    return not bare or (bare[0] in _MARKED and (_is_formula(bare) or _is_number(bare)))


def _is_number(text: str) -> bool:
    return _NUMBER.fullmatch(text) is not None and math.isfinite(float(text))
