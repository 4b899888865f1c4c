"""What a run that did not finish has left."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.journal import Journal, journal_of


def unfinished_rows(output: Path) -> list[dict[str, Cell]]:
    """Return the rows that a run which resumes finds beside a table, in order."""
    part = journal_of(output)
    with closing(sqlite3.connect(part)) as db:
        columns = json.loads(db.execute("SELECT columns FROM head").fetchone()[0])
    with closing(Journal(part, columns, resume=True)) as journal:
        return [dict(zip(columns, row, strict=True)) for row in journal]
