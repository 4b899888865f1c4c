"""Lists of images and prompts as one JSON value, in the forms that people write."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import DataError, shown
from mst_clipiqa.tables.cells import TOO_DEEP, as_written
from mst_clipiqa.tables.lines import open_text
from mst_clipiqa.tables.names import FILE_COLUMNS, PROMPT_COLUMNS, find_column, is_image_name

_DIFFUSIONDB_PROMPT = "p"
_MOST_JSON = 2**28  # longest JSON file, in characters; it has to be read as a whole


def json_list(path: Path) -> Iterator[tuple[str, Any, str | None]]:
    """Yield the rows of a JSON file: {file: prompt, ...}, a list of objects, or one object."""
    with open_text(path) as opened:
        text = opened.read(_MOST_JSON + 1)
    if len(text) > _MOST_JSON:
        raise DataError(f"Expected at most {_MOST_JSON:,} characters in {shown(path)}: write JSON lines (.jsonl).")
    try:
        value = json.loads(text, object_pairs_hook=_Pairs, parse_float=as_written)
    except (ValueError, RecursionError) as error:
        raise DataError(f"Expected JSON in {shown(path)}, got something else ({error}): correct it.") from error
    if isinstance(value, _Pairs) and _is_row(dict(value)):
        yield _read(f"the object in {shown(path)}", _as_row, value)
    elif isinstance(value, _Pairs):
        for name, inner in value:
            yield _read(f"{shown(name)} in {shown(path)}", _named, name, inner)
    elif isinstance(value, list):
        for number, row in enumerate(value, 1):
            where = f"entry {number} of {shown(path)}"
            yield _read(where, _as_row, row) if isinstance(row, _Pairs) else (where, row, None)
    else:
        raise DataError(f'Expected {{"file": "prompt", ...}} or a list of objects in {shown(path)}: correct it.')


def _read(where: str, convert: Callable[..., Any], *args: Any) -> tuple[str, Any, str | None]:
    """Return where a row is, the row, and why it cannot be read."""
    try:
        return where, convert(*args), None
    except RecursionError:
        return where, None, TOO_DEEP


def _is_row(value: dict[str, Any]) -> bool:
    """Return whether a JSON object is one row, such as {"file": "a.png", "prompt": "a cat"}."""
    file_at = find_column(names := list(value), FILE_COLUMNS)
    file = value[names[file_at]] if file_at is not None else None
    return isinstance(file, str) and (is_image_name(file) or find_column(names, PROMPT_COLUMNS) is not None)


def _named(name: str, value: Any) -> dict[str, Any]:
    """Return one entry of a JSON object as a row: {file: prompt}, {file: {"prompt": ...}}, {id: {"filename": ...}}."""
    if not isinstance(value, _Pairs):
        return {"file": name, "prompt": value}
    row = _as_row(value)
    prompt_at = find_column(names := list(row), (*PROMPT_COLUMNS, _DIFFUSIONDB_PROMPT))
    file_at = find_column(names, FILE_COLUMNS)
    file = row[names[file_at]] if file_at is not None else None
    return {
        "file": file if isinstance(file, str) and is_image_name(file) else name,
        "prompt": row[names[prompt_at]] if prompt_at is not None else None,
        **{other: cell for at, (other, cell) in enumerate(row.items()) if at not in (file_at, prompt_at)},
    }


def _as_row(pairs: _Pairs) -> dict[str, Any]:
    return {name: _plain(value) for name, value in pairs}


def _plain(value: Any) -> Any:
    """Return a value with its objects, at any depth, as dicts."""
    if isinstance(value, _Pairs):
        return _as_row(value)
    return [_plain(inner) for inner in value] if isinstance(value, list) else value


class _Pairs(list[tuple[str, Any]]):
    """A JSON object as written, so that a file that occurs twice is not lost."""
