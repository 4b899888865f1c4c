"""The rows of a spreadsheet with labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from mst_clipiqa.errors import DataError, need, shown
from mst_clipiqa.tables.lines import Line
from mst_clipiqa.tables.names import is_image_name


def sheet_rows(path: Path) -> Iterator[Line]:
    """Yield the rows of the sheet that names images; those of the first one if none does.

    Raises:
        DataError: it is no spreadsheet, or several of its sheets name images.
    """
    openpyxl = need("openpyxl", extra="data", otherwise=f"save {shown(path.name)} as .csv")
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        try:
            sheets = {
                sheet.title: [_texts(row) for row in sheet.iter_rows(values_only=True)] for sheet in book.worksheets
            }
        finally:
            book.close()
    except OSError:
        raise
    except Exception as error:  # on a damaged or another file the reader raises nearly every type there is
        raise DataError(
            f"Expected a spreadsheet, but {shown(path)} is another kind of file: download it again."
        ) from error
    rows = _of_images(path, sheets)
    width = max((len(row) for row in rows), default=0)  # openpyxl ends a row at its last filled cell
    for number, row in enumerate(rows, 1):
        yield Line(number, row + [""] * (width - len(row)))


def names_an_image(cells: Iterable[str]) -> bool:
    """Return whether one of the cells is an image's file name, which no header row has."""
    return any(map(is_image_name, cells))


def _texts(row: Iterable[object]) -> list[str]:
    return ["" if cell is None else str(cell) for cell in row]


def _of_images(path: Path, sheets: dict[str, list[list[str]]]) -> list[list[str]]:
    """Return the rows of the sheet that names images: to read only one of several would lose ratings in silence."""
    named = [title for title, rows in sheets.items() if any(map(names_an_image, rows))]
    if len(named) > 1:
        raise DataError(
            f"Expected images in one sheet of {shown(path)}, got {shown(named[0])} and {shown(named[1])}: put all rows "
            "into one sheet, or remove the others."
        )
    return sheets[named[0]] if named else next(iter(sheets.values()), [])
