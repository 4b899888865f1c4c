"""Lists of images: the rows of a table, a JSON file or a text file that name a file and perhaps its prompt."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from mst_clipiqa.errors import DataError, counted, shown
from mst_clipiqa.inputs.json_lists import json_list
from mst_clipiqa.inputs.list_columns import ID_COLUMNS, USUAL_COLUMNS, ColumnsError, ListColumns, is_ours, other_cells
from mst_clipiqa.tables.cells import TOO_DEEP, Cell, from_csv_cell, from_csv_header, nested, unmarked, whole_as_int
from mst_clipiqa.tables.lines import check_once, csv_rows, json_lines, open_text
from mst_clipiqa.tables.names import FILE_COLUMNS, PROMPT_COLUMNS, find_column, is_image_name
from mst_clipiqa.tables.parquet import stream
from mst_clipiqa.tables.spelling import on_disk, slashed
from mst_clipiqa.tables.stored import FileInFile, is_stored, stored_rows

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".tar")
_Values: TypeAlias = Iterable[tuple[str, Any, str | None]]  # where a value is, the value, and what is wrong with it


def is_list(path: str | os.PathLike[str]) -> bool:
    """Return whether a file of this name is a list of images."""
    return Path(path).suffix.lower() in LIST_SUFFIXES


@dataclass(frozen=True)
class Entry:
    """One row of a list.

    Attributes:
        where: the row, for messages: "line 3 of 'list.csv'".
        file: the name as it is in the list; None if the row has none.
        path: the same from the current folder, because names in a list are relative to the list's folder.
        prompt: None if the row has none.
        problem: why the row cannot be used, or None.
        more: the other columns of the row, except those of a table of scores.
        stored: the image, if the list holds it; ``path`` is then the list's path and the name in it.
    """

    where: str
    file: str | None = None
    path: str | None = None
    prompt: str | None = None
    problem: str | None = None
    more: Mapping[str, Cell] = field(default_factory=dict)
    stored: FileInFile | None = None


def entries(
    path: Path, *, need_prompt: bool = False, by_number: bool = False, columns: ListColumns = USUAL_COLUMNS
) -> Iterator[Entry]:
    """Yield the rows of a list in order; a bad row is an entry with its problem.

    Args:
        path: ends in .csv, .tsv, .jsonl, .json, .parquet, or in .txt: a name, or a prompt, per line. Parquet may hold
            the images themselves, as a WebDataset .tar does.
        need_prompt: refuse a list that has no column of prompts.
        by_number: take prompts without a column of files, as benchmarks publish them: the file is the row's id or,
            without one, its number from 0.
        columns: which columns hold files and prompts.

    Raises:
        DataError: the file cannot be read, or has no column of files.
    """
    asked = _Reading(path, columns, need_prompt, by_number)
    if is_stored(path):
        return asked.from_stored()
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return asked.from_csv()
        case ".jsonl":
            return asked.from_values(
                (f"line {line.number} of {shown(path)}", line.value, line.problem) for line in json_lines(path)
            )
        case ".json":
            return asked.from_values(json_list(path))
        case ".parquet":
            rows = enumerate(stream(path), 1)
            return asked.from_values((f"row {number} of {shown(path)}", row, None) for number, row in rows)
        case ".txt":
            return asked.from_values(_lines(path))
    raise DataError(
        "Expected a list to end in .csv, .tsv, .jsonl, .json, .parquet, .tar or .txt, got "
        f"{shown(path)}: rename or convert it."
    )


def other_columns(path: Path, columns: ListColumns = USUAL_COLUMNS) -> list[str]:
    """Return the names of the columns in ``Entry.more``, in order."""
    found = entries(path, columns=columns)
    if not path.suffix.lower().startswith((".json", ".tar")):  # every row has the same
        found = islice((entry for entry in found if not entry.problem), 1)
    return list(dict.fromkeys(name for entry in found for name in entry.more))


@dataclass(frozen=True)
class _Reading:
    """What ``entries`` was asked for, and how each kind of list answers."""

    path: Path
    columns: ListColumns
    need_prompt: bool
    by_number: bool

    @cached_property  # it is asked for once per row
    def home(self) -> Path:
        """The folder that names in the list are relative to."""
        return self.columns.home or self.path.parent

    def from_csv(self) -> Iterator[Entry]:
        """Yield the rows of a table in text."""
        path, lines = self.path, csv_rows(self.path)
        header = next(lines, None)
        if header is None or header.problem:
            problem = header.problem if header else "empty"
            raise DataError(f"Expected a list with a first line such as file,prompt, but {shown(path)} is {problem}.")
        names = from_csv_header(header.value)
        check_once([name for name in names if name.strip()], path)  # spreadsheets write empty columns, left out here
        file_at, prompt_at = self._columns(names)
        ours = is_ours(names)
        for number, line in enumerate(lines):
            where = f"line {line.number} of {shown(path)}"
            if line.problem:
                yield Entry(where, problem=f"{where} is {line.problem}")
            elif len(line.value) != len(names):
                has = f"{where} has {counted(len(line.value), 'cell')} instead of {len(names)}"
                yield Entry(where, problem=f"{has}: quote cells that hold {line.delimiter}")
            else:
                cells = [unmarked(cell) for cell in line.value] if ours else line.value
                prompt = cells[prompt_at] if prompt_at is not None else None
                # ``score`` writes paths relative to the folder it ran in, all others relative to the list.
                file = str(number) if file_at is None else cells[file_at]
                more = {name: from_csv_cell(cell) for name, cell in zip(names, line.value, strict=True)}
                home = Path() if ours else self.home
                yield _entry(where, home, file, prompt, other_cells(more, file_at, prompt_at))

    def _columns(self, names: Sequence[str]) -> tuple[int | None, int | None]:
        """Return the positions of the columns with files and prompts."""
        file_at, prompt_at = find_column(names, self.columns.files), find_column(names, self.columns.prompts)
        by_number = self.by_number and self.columns.file is None
        if by_number and file_at is None and prompt_at is not None:
            return find_column(names, ID_COLUMNS), prompt_at
        if file_at is not None and (prompt_at is not None or not self.need_prompt):
            return file_at, prompt_at
        file, prompt = self.columns.file or "file", self.columns.prompt or "prompt"
        wanted = f"the columns {file} and {prompt}" if self.need_prompt else f"a column {file}"
        hint = "name them with --file-column and --prompt-column"
        if any(is_image_name(name.strip()) for name in names):
            hint = "add a first line with the names of the columns"
        elif len(names) == 1 and "|" in names[0]:
            hint = "separate cells with commas, semicolons or tabs"
        raise ColumnsError(f"Expected {wanted} in {shown(self.path)}, got {shown(', '.join(names))}: {hint}.")

    def from_values(self, values: _Values) -> Iterator[Entry]:
        """Yield the entries of JSON values: objects, or plain names of files, or plain prompts."""
        for number, (where, value, problem) in enumerate(values):
            yield Entry(where, problem=f"{where} is {problem}") if problem else self._of_value(number, where, value)

    def _of_value(self, number: int, where: str, value: Any) -> Entry:
        if isinstance(value, str) and not self.need_prompt:
            return _entry(where, self.home, value, None)
        if isinstance(value, str) and self.by_number and not is_image_name(value):
            return _entry(where, self.home, str(number), value)
        names = list(value) if isinstance(value, dict) else []
        if self.by_number and names and (prompt := _prompt_alone(value)):
            id_at = find_column(names, ID_COLUMNS)
            return _entry(where, self.home, str(number if id_at is None else value[names[id_at]]), prompt)
        if (file_at := find_column(names, self.columns.files)) is None:
            return Entry(where, problem=f'{where} is not an object such as {{"file": ..., "prompt": ...}}')
        if (cells := _cells(value)) is None:
            return Entry(where, problem=f"{where} is {TOO_DEEP}")
        prompt_at = find_column(names, self.columns.prompts)
        prompt = value[names[prompt_at]] if prompt_at is not None else None
        home = Path() if is_ours(names) else self.home
        return _entry(where, home, value[names[file_at]], prompt, other_cells(cells, file_at, prompt_at))

    def from_stored(self) -> Iterator[Entry]:
        """Yield the entries of a file that holds its images."""
        for number, row in enumerate(stored_rows(self.path), 1):
            where = f"row {number} of {shown(self.path)}"
            if row.image is None:
                yield Entry(slashed(self.path), problem=row.problem)
                continue
            names = list(row.cells)
            prompt_at = find_column(names, self.columns.prompts)
            prompt = row.cells[names[prompt_at]] if prompt_at is not None else None
            cells = _cells(row.cells)
            entry = _entry(where, self.path, row.name, prompt, other_cells(cells or {}, None, prompt_at))
            problem = row.problem or entry.problem or (f"{where} is {TOO_DEEP}" if cells is None else None)
            yield replace(entry, stored=row.image, path=f"{slashed(self.path)}/{row.name}", problem=problem)


def _lines(path: Path) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the lines of a text file; empty ones are skipped."""
    with open_text(path) as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield f"line {number} of {shown(path)}", line.rstrip("\r\n"), None


def _cells(row: Mapping[str, Any]) -> dict[str, Cell] | None:
    """Return values of JSON or Parquet as cells; lists and objects as their JSON, or None if they are too deep."""
    try:
        return {
            name: nested(value) if isinstance(value, list | dict) else whole_as_int(value)
            for name, value in row.items()
        }
    except RecursionError:
        return None


def _prompt_alone(row: dict[str, Any]) -> str | None:
    """Return the prompt of a row that names no file."""
    names = list(row)
    prompt_at = find_column(names, PROMPT_COLUMNS)
    prompt = row[names[prompt_at]] if prompt_at is not None and find_column(names, FILE_COLUMNS) is None else None
    return prompt if isinstance(prompt, str) else None


def _entry(where: str, folder: Path, file: Any, prompt: Any, more: Mapping[str, Cell] | None = None) -> Entry:
    """Return a row as an entry, its cells checked."""
    if not isinstance(file, str) or not file.strip():
        return Entry(where, problem=f"{where} names no file", more=more or {})
    is_whole = not folder.parts or file.startswith("/") or os.path.isabs(file)  # noqa: PTH117 - once per row
    path = on_disk(slashed(file if is_whole else f"{folder}/{file}"))
    if prompt is None or isinstance(prompt, str):
        return Entry(where, file, path, prompt if prompt and prompt.strip() else None, more=more or {})
    return Entry(where, file, path, problem=f"the prompt in {where} is not text: put it in quotes", more=more or {})
