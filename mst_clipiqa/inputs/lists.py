"""Lists of images: the rows of a table, a JSON file or a text file that name a file and perhaps its prompt."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import DataError, counted, shown
from mst_clipiqa.inputs.json_lists import json_list
from mst_clipiqa.tables.cells import TOO_DEEP, Cell, count, from_csv_cell, from_csv_header, nested, unmarked
from mst_clipiqa.tables.lines import check_once, csv_rows, json_lines, open_text
from mst_clipiqa.tables.names import FILE_COLUMNS, PROMPT_COLUMNS, find_column, is_image_name
from mst_clipiqa.tables.parquet import stream
from mst_clipiqa.tables.spelling import on_disk, slashed
from mst_clipiqa.tables.stored import FileInFile, is_stored, stored_rows

LIST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".tar")
_OURS = {"file", "prompt", "quality", "correspondence", "status", "reason"}  # a table that `score` wrote
_OURS_TOO = {"gate", "familiarity", "width", "height", "model", "quality_spread"}
_INTERVAL = re.compile(r".+_(low|high)|quality_(bad|poor|fair|good|perfect)")
_ID_COLUMNS = ("id", "image_id", "img_id", "prompt_id", "index")


def is_list(path: str | os.PathLike[str]) -> bool:
    """Return whether a file of this name is a list of images."""
    return Path(path).suffix.lower() in LIST_SUFFIXES


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
    if is_stored(path):
        return _from_stored(path, columns)
    found: Iterator[tuple[str, Any, str | None]]
    match path.suffix.lower():
        case ".csv" | ".tsv":
            return _from_csv(path, need_prompt, by_number, columns)
        case ".jsonl":
            found = ((f"line {line.number} of {shown(path)}", line.value, line.problem) for line in json_lines(path))
        case ".json":
            found = json_list(path)
        case ".parquet":
            found = ((f"row {number} of {shown(path)}", row, None) for number, row in enumerate(stream(path), 1))
        case ".txt":
            found = _from_text(path)
        case _:
            raise DataError(
                "Expected a list to end in .csv, .tsv, .jsonl, .json, .parquet, .tar or .txt, got "
                f"{shown(path)}: rename or convert it."
            )
    return _from_objects(path, found, need_prompt, by_number, columns)


def other_columns(path: Path, columns: ListColumns = USUAL_COLUMNS) -> list[str]:
    """Return the names of the columns in ``Entry.more``, in order."""
    found = entries(path, columns=columns)
    if not path.suffix.lower().startswith((".json", ".tar")):  # every row has the same
        found = islice((entry for entry in found if not entry.problem), 1)
    return list(dict.fromkeys(name for entry in found for name in entry.more))


def _from_csv(path: Path, need_prompt: bool, by_number: bool, columns: ListColumns) -> Iterator[Entry]:
    lines = csv_rows(path)
    header = next(lines, None)
    if header is None or header.problem:
        problem = header.problem if header else "empty"
        raise DataError(f"Expected a list with a first line such as file,prompt, but {shown(path)} is {problem}.")
    names = from_csv_header(header.value)
    check_once([name for name in names if name.strip()], path)  # spreadsheets write empty columns, which are left out
    file_at, prompt_at = _columns(path, names, need_prompt, by_number, columns)
    is_ours = set(names) >= _OURS
    for number, line in enumerate(lines):
        where = f"line {line.number} of {shown(path)}"
        if line.problem:
            yield Entry(where, problem=f"{where} is {line.problem}")
        elif len(line.value) != len(names):
            has = f"{where} has {counted(len(line.value), 'cell')} instead of {len(names)}"
            yield Entry(where, problem=f"{has}: quote cells that hold {line.delimiter}")
        else:
            cells = [unmarked(cell) for cell in line.value] if is_ours else line.value
            prompt = cells[prompt_at] if prompt_at is not None else None
            # ``score`` writes paths relative to the folder it ran in, all others relative to the list.
            file = str(number) if file_at is None else cells[file_at]
            more = {name: from_csv_cell(cell) for name, cell in zip(names, line.value, strict=True)}
            home = Path() if is_ours else columns.home or path.parent
            yield _entry(where, home, file, prompt, _others(more, file_at, prompt_at))


def _columns(
    path: Path, names: Sequence[str], need_prompt: bool, by_number: bool, columns: ListColumns
) -> tuple[int | None, int | None]:
    """Return the positions of the columns with files and prompts."""
    file_at, prompt_at = find_column(names, columns.files), find_column(names, columns.prompts)
    by_number = by_number and columns.file is None
    if by_number and file_at is None and prompt_at is not None:
        return find_column(names, _ID_COLUMNS), prompt_at
    if file_at is not None and (prompt_at is not None or not need_prompt):
        return file_at, prompt_at
    file, prompt = columns.file or "file", columns.prompt or "prompt"
    wanted = f"the columns {file} and {prompt}" if need_prompt else f"a column {file}"
    hint = "name them with --file-column and --prompt-column"
    if any(is_image_name(name.strip()) for name in names):
        hint = "add a first line with the names of the columns"
    elif len(names) == 1 and "|" in names[0]:
        hint = "separate cells with commas, semicolons or tabs"
    raise ColumnsError(f"Expected {wanted} in {shown(path)}, got {shown(', '.join(names))}: {hint}.")


def _from_objects(
    path: Path,
    rows: Iterable[tuple[str, Any, str | None]],
    need_prompt: bool,
    by_number: bool,
    columns: ListColumns,
) -> Iterator[Entry]:
    """Yield the entries of JSON values: objects, or plain names of files, or plain prompts."""
    home = columns.home or path.parent
    for number, (where, value, problem) in enumerate(rows):
        if problem:
            yield Entry(where, problem=f"{where} is {problem}")
        elif isinstance(value, str) and not need_prompt:
            yield _entry(where, home, value, None)
        elif isinstance(value, str) and by_number and not is_image_name(value):
            yield _entry(where, home, str(number), value)
        elif by_number and isinstance(value, dict) and (prompt := _prompt_alone(value)):
            names = list(value)
            id_at = find_column(names, _ID_COLUMNS)
            yield _entry(where, home, str(number if id_at is None else value[names[id_at]]), prompt)
        elif isinstance(value, dict) and (file_at := find_column(names := list(value), columns.files)) is not None:
            prompt_at = find_column(names, columns.prompts)
            prompt = value[names[prompt_at]] if prompt_at is not None else None
            from_here = Path() if set(names) >= _OURS else home
            cells = _cells(value)
            if cells is None:
                yield Entry(where, problem=f"{where} is {TOO_DEEP}")
            else:
                yield _entry(where, from_here, value[names[file_at]], prompt, _others(cells, file_at, prompt_at))
        else:
            yield Entry(where, problem=f'{where} is not an object such as {{"file": ..., "prompt": ...}}')


def _from_text(path: Path) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the lines of a text file; empty ones are skipped."""
    with open_text(path) as opened:
        for number, line in enumerate(opened, 1):
            if line.strip():
                yield f"line {number} of {shown(path)}", line.rstrip("\r\n"), None


def _from_stored(path: Path, columns: ListColumns) -> Iterator[Entry]:
    """Yield the entries of a file that holds its images."""
    for number, row in enumerate(stored_rows(path), 1):
        where = f"row {number} of {shown(path)}"
        if row.image is None:
            yield Entry(slashed(path), problem=row.problem)
            continue
        names = list(row.cells)
        prompt_at = find_column(names, columns.prompts)
        prompt = row.cells[names[prompt_at]] if prompt_at is not None else None
        cells = _cells(row.cells)
        entry = _entry(where, path, row.name, prompt, _others(cells or {}, None, prompt_at))
        problem = row.problem or entry.problem or (f"{where} is {TOO_DEEP}" if cells is None else None)
        yield replace(entry, stored=row.image, path=f"{slashed(path)}/{row.name}", problem=problem)


def _others(row: Mapping[str, Cell], file_at: int | None, prompt_at: int | None) -> dict[str, Cell]:
    """Return the columns of a row that hold neither file nor prompt."""
    known = {"file", "prompt"}
    if set(row) >= _OURS:
        known |= _OURS | _OURS_TOO | {name for name in row if _INTERVAL.fullmatch(name)}
    return {
        name: value
        for at, (name, value) in enumerate(row.items())
        if at not in (file_at, prompt_at) and name.strip() and name not in known
    }


def _cells(row: Mapping[str, Any]) -> dict[str, Cell] | None:
    """Return values of JSON or Parquet as cells; lists and objects as their JSON, or None if they are too deep."""
    try:
        return {name: nested(value) if isinstance(value, list | dict) else count(value) for name, value in row.items()}
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
