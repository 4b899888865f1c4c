"""Which delimiter and which encoding a table has that another program wrote."""

from __future__ import annotations

import codecs
import csv
import re
from typing import BinaryIO

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs"}
"""What may separate the cells of a table, in words."""
_SAMPLE_ROWS = 50  # rows that show the delimiter
_TEXT_CHUNK = 2**20
_BOMS = {codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
_LONG_RUN = re.compile(rb"[\x80-\xff]{3}")
_NOT_IN_1252 = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x81\x8d\x8f\x90\x9d]")


def delimiter_of(sample: str) -> str:
    """Return the delimiter of a table: a comma, a semicolon or a tab.

    It is the one that cuts most rows into as many cells as the first row; of two, the one that makes more cells.

    Args:
        sample: the beginning of the file.

    Example:
        >>> delimiter_of("file;prompt\\na.png;a red, round ball\\n")
        ';'
    """
    lines = sample.splitlines(keepends=True)
    lines = lines[:-1] if len(lines) > 1 and not lines[-1].endswith("\n") else lines

    def fit(delimiter: str) -> tuple[float, int]:
        rows = []
        try:
            for row in csv.reader(lines, delimiter=delimiter):
                if row:
                    rows.append(len(row))
                if len(rows) == _SAMPLE_ROWS:
                    break
        except csv.Error:
            pass
        if not rows or rows[0] == 1:
            return 0.0, 0
        return rows.count(rows[0]) / len(rows), rows[0]

    return max(DELIMITERS, key=fit)  # the first of equals, so a table of one column has commas


def encoding_of(file: BinaryIO) -> str:
    """Return the encoding of a text file: UTF-8, UTF-16 or, for older programs in Western Europe, Windows-1252.

    It is Windows-1252 only if no two bytes look like UTF-8 and no three non-ASCII letters stand side by side, as they
    do in Cyrillic or Chinese text of other encodings.

    Args:
        file: open at its beginning; read until a byte settles the question.
    """
    head = file.read(_TEXT_CHUNK)
    if found := _BOMS.get(head[:2]):
        return found
    if len(head) > 3 and not any(head[1:64:2]) and all(head[0:64:2]):
        return "utf-16-le"
    decoder, chunk = codecs.getincrementaldecoder("utf-8")(), head
    while chunk:
        try:
            if not decoder.decode(chunk).isascii():
                break
        except UnicodeDecodeError:
            return "cp1252" if _is_western(chunk) else "utf-8-sig"
        chunk = file.read(_TEXT_CHUNK)
    return "utf-8-sig"


def _is_western(text: bytes) -> bool:
    has_utf8 = not text.decode("utf-8", "ignore").isascii()  # then the other bytes are damage
    return not (has_utf8 or _LONG_RUN.search(text) or _NOT_IN_1252.search(text))
