"""The rows of CSV and JSON-lines files that other people wrote, unchanged, one at a time.

A file that cannot be read at all is a DataError. A single bad row is a ``Line`` with its problem, so that a list of a
million files does not stop at one stray quote. Delimiter and encoding are those of the file (``sniff.py``).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from mst_clipiqa.errors import DataError, shown
from mst_clipiqa.tables.cells import from_json
from mst_clipiqa.tables.sniff import DELIMITERS, delimiter_of, encoding_of

LONGEST = 16 * 2**20
"""Longest line or cell that is read, in characters: long prompts pass, a large file without line ends does not."""

SAMPLE = 2**16
"""How many bytes show the delimiter."""

_SEPARATOR = re.compile(r"sep=[,;\t]", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"\s*[-+]?[0-9]+,[0-9]+([eE][-+]?[0-9]+)?\s*")


@dataclass(frozen=True)
class Line:
    """One row of a file.

    Attributes:
        number: of the line on which it ends, from 1.
        value: a list of cells (CSV) or any JSON value; None if there is a problem.
        problem: why it cannot be read, or None.
        delimiter: what separates its cells, in words.
    """

    number: int
    value: Any
    problem: str | None = None
    delimiter: str = "commas"


def csv_rows(path: Path) -> Iterator[Line]:
    """Yield the rows of a CSV file, the header first; empty lines are skipped.

    Cells may be separated by commas, semicolons or tabs. If not by commas, numbers may have decimal commas, which
    become points. A first line "sep=;", with which a table tells Excel what separates them, is skipped.

    Raises:
        DataError: the file cannot be opened, or is not text.
    """
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))  # for the whole process; the default is 128 KiB
    with open_text(path) as file:
        delimiter = delimiter_of(file.buffer.read(SAMPLE).decode(file.encoding, "replace"))
        file.seek(0)
        reader = csv.reader(_lines(file, path), strict=True, delimiter=delimiter)
        is_header = True
        while True:
            began = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                yield Line(began, None, _problem(error, reader.line_num - began))
                continue
            if is_header and reader.line_num == 1 and _SEPARATOR.fullmatch(delimiter.join(cells)):
                continue
            if is_header:
                _check_text(cells, path)
            is_header = is_header and not cells
            if cells:
                cells = cells if delimiter == "," else [_with_point(cell) for cell in cells]
                yield Line(reader.line_num, cells, delimiter=DELIMITERS[delimiter])


def json_lines(path: Path) -> Iterator[Line]:
    """Yield the values of a JSON-lines file; empty lines are skipped.

    Raises:
        DataError: the file cannot be opened, or is not text.
    """
    with open_text(path) as file:
        for number, text in enumerate(_lines(file, path), 1):
            if not text.strip():
                continue
            try:
                yield Line(number, from_json(text))
            except (ValueError, RecursionError) as error:
                yield Line(number, None, f"not a line of JSON ({error})")


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """Open a text file in its encoding (``sniff.encoding_of``).

    File names may be in any encoding: bytes that are not text become surrogate escapes, as they do in names from the
    file system, so that such a name still opens its file.

    Raises:
        DataError: it cannot be opened or read, is not an ordinary file, or is not text.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"Expected an ordinary file, got a folder or device: {shown(path)}; name a file.")
        with path.open("rb") as file:
            encoding = encoding_of(file)
        with path.open(encoding=encoding, errors="surrogateescape", newline="") as text:
            yield text
    except UnicodeError as error:
        raise DataError(f"Expected text in {shown(path)}, got {error}: save it as UTF-8.") from error
    except OSError as error:
        why = error.strerror or error
        raise DataError(f"Expected a file to read, but {shown(path)} cannot be opened ({why}).") from error


def is_unicode(text: str) -> bool:
    """Return whether text is valid Unicode: it holds no lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_once(names: Sequence[str], path: Path) -> None:
    """Raise a DataError if two columns have the same name, as one of them would be lost."""
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"Expected each column once in {shown(path)}, got {shown(twice[0])} twice: rename one.")


def _problem(error: csv.Error, further: int) -> str:
    """Return why a row cannot be read; ``further`` counts the lines after its first that it took."""
    if not further and "end of data" not in str(error):
        return f"not a row of CSV ({error})"
    lost = "line is" if further == 1 else f"{further:,} lines are"
    return "not a row of CSV: a quote in it is not closed" + (f", so the next {lost} not read" if further else "")


def _check_text(header: list[str], path: Path) -> None:
    """Refuse a file whose first line is not text: column names hold neither NUL nor bytes outside UTF-8."""
    if any(sign == "\0" or "\udc80" <= sign <= "\udcff" for cell in header for sign in cell):
        raise DataError(f"Expected text, got binary data or another encoding in {shown(path)}: save it as UTF-8.")


def _with_point(cell: str) -> str:
    return cell.replace(",", ".") if _DECIMAL_COMMA.fullmatch(cell) else cell


def _lines(file: TextIO, path: Path) -> Iterator[str]:
    """Yield lines of bounded length."""
    while line := file.readline(LONGEST):
        if len(line) >= LONGEST:
            raise DataError(f"Expected lines of text in {shown(path)}, got one over {LONGEST:,} characters.")
        yield line
