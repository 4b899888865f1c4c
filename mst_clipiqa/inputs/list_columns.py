"""The columns of a list: which hold files and prompts, and which are passed on to the table of scores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.errors import DataError
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.names import FILE_COLUMNS, PROMPT_COLUMNS

ID_COLUMNS = ("id", "image_id", "img_id", "prompt_id", "index")
_OURS = {"file", "prompt", "quality", "correspondence", "status", "reason"}  # a table that `score` wrote
_OURS_TOO = {"gate", "familiarity", "width", "height", "model", "quality_spread"}
_INTERVAL = re.compile(r".+_(low|high)|quality_(bad|poor|fair|good|perfect)")


class ColumnsError(DataError):
    """A list has no column of files, or none of prompts."""


@dataclass(frozen=True)
class ListColumns:
    """Which columns of a list hold files and prompts, and where its files are.

    Attributes:
        file, prompt: names of the columns; None for the usual names.
        home: the folder that files are relative to; None for the list's own.
    """

    file: str | None = None
    prompt: str | None = None
    home: Path | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The names to look for, in lower case, the best first."""
        return FILE_COLUMNS if self.file is None else (self.file.strip().lower(),)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The same for prompts."""
        return PROMPT_COLUMNS if self.prompt is None else (self.prompt.strip().lower(),)


USUAL_COLUMNS = ListColumns()


def is_ours(names: Iterable[str]) -> bool:
    """Return whether these are the columns of a table that ``score`` wrote."""
    return set(names) >= _OURS


def other_cells(row: Mapping[str, Cell], file_at: int | None, prompt_at: int | None) -> dict[str, Cell]:
    """Return the cells of a row that hold neither file nor prompt, nor what ``score`` wrote and writes anew."""
    known = {"file", "prompt"}
    if is_ours(row):
        known |= _OURS | _OURS_TOO | {name for name in row if _INTERVAL.fullmatch(name)}
    return {
        name: value
        for at, (name, value) in enumerate(row.items())
        if at not in (file_at, prompt_at) and name.strip() and name not in known
    }
