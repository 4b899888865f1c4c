"""Rows of a table of scores for the images of a rated set, by path, then by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mst_clipiqa.data import Record
from mst_clipiqa.errors import DataError, counted
from mst_clipiqa.tables.spelling import composed

_Row = TypeVar("_Row", bound=Mapping[str, Any])


def match_rows(rows: Sequence[_Row], records: Sequence[Record]) -> dict[str, _Row]:
    """Return the name of each record -> its row; a record without a row is left out.

    A row matches if its ``file`` is the record's name, else if it ends in that name ("Image/dalle/1.png" for
    "dalle/1.png"), else if both have the same base name and no other record has it.

    Raises:
        DataError: records match several rows, or only by a base name that they share.
    """
    ends: defaultdict[str, list[_Row]] = defaultdict(list)
    whole: defaultdict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        parts = _parts(str(row.get("file") or ""))
        whole["/".join(parts)].append(row)
        for i in range(len(parts)):
            ends["/".join(parts[i:])].append(row)
    shared = Counter(_parts(record.name)[-1] for record in records)
    found, several = {}, []
    for record in records:
        parts = _parts(record.name)
        name, base = "/".join(parts), parts[-1]
        fitting = whole.get(name) or ends.get(name) or ends.get(base) or []
        by_base = bool(fitting) and name not in ends
        if len(fitting) > 1 or (by_base and shared[base] > 1):
            several.append(record.name)
        elif fitting:
            found[record.name] = fitting[0]
    if several:
        raise DataError(
            f"Expected one row for each rated image, but {counted(len(several), 'image')} "
            f"{'matches' if len(several) == 1 else 'match'} several rows or share one, first "
            f"{several[0]}: give paths as the labels do."
        )
    return found


def _parts(path: str) -> list[str]:
    """Return the parts of a path of any system, its accents composed, without "." and empty ones."""
    return [part for part in composed(path).replace("\\", "/").split("/") if part not in ("", ".")] or [path]
