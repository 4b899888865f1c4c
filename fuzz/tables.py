"""Lists of images, prompt files and tables of scores, as CSV, JSON, JSON lines and Parquet."""

from __future__ import annotations

import io
import json
import random
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from fuzz.harness import Case, Surface
from fuzz.mutate import damaged, damaged_json, value
from mst_clipiqa.errors import MstClipiqaError
from mst_clipiqa.inputs.expand import expand
from mst_clipiqa.inputs.prompts import PromptFile
from mst_clipiqa.tables.reading import stream_table

_ROWS: list[dict[str, Any]] = [
    {"file": "a.png", "prompt": "a red ball, on a table", "quality": 3.25, "width": 512},
    {"file": "b/c.jpg", "prompt": 'she said "hi"\nand left', "quality": None, "width": 1},
    {"file": "=cmd|' /C calc'!A1.png", "prompt": "'42", "quality": -1e-300, "width": 0},
]
_CSV = b'file,prompt,quality,width\na.png,"a red ball, on a table",3.25,512\nb/c.jpg,"she said ""hi""\n",,1\n'


@cache
def seeds() -> dict[str, bytes]:
    """Return one valid file of each kind."""
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(_ROWS), file)
    odd = io.BytesIO()
    pq.write_table(pa.table({"file": [["a"], ["b"]], "prompt": [b"\xff", b""]}), odd)
    return {
        "a.csv": _CSV,
        "b.csv": _CSV.decode().encode("utf-16"),
        "a.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in _ROWS),
        "a.json": json.dumps(_ROWS).encode(),
        "b.json": json.dumps({str(row["file"]): row["prompt"] for row in _ROWS}).encode(),
        "a.parquet": file.getvalue(),
        "b.parquet": odd.getvalue(),
    }


def make(dice: random.Random) -> Case:
    """Return one file damaged as bytes or as JSON, or far too deep or long."""
    name = dice.choice(list(seeds()))
    data = seeds()[name]
    if name.endswith((".json", ".jsonl")) and dice.random() < 0.6:
        rows = [damaged_json(row, dice) for row in _ROWS]
        data = b"\n".join(json.dumps(row).encode() for row in rows) if name[-1] == "l" else json.dumps(rows).encode()
    elif dice.random() < 0.02:
        deep = dice.choice(("[", '{"a":', '"', ",", "file,")) * dice.choice((1000, 100_000))
        data = deep.encode()
    elif dice.random() < 0.05:
        data = json.dumps(value(dice)).encode()
    else:
        data = damaged(data, dice, dice.choice(list(seeds().values())))
    return {name: data}


def feed(case: Case) -> None:
    """Read the file in every way that a command does; if one refuses it, the next is still tried."""
    refusal = None
    with tempfile.TemporaryDirectory() as folder:
        for name, data in case.items():
            path = Path(folder) / name
            path.write_bytes(data)
            for read in (_as_list, _as_prompts, _as_table):
                try:
                    read(path)
                except MstClipiqaError as error:
                    if not str(error).isprintable():
                        raise TypeError(f"a message that cannot be shown: {str(error)!r}") from error
                    refusal = error
    if refusal:
        raise refusal


def _as_list(path: Path) -> None:
    if path.suffix in (".csv", ".jsonl"):
        for item in expand([path]):
            item.file.encode()
            (item.prompt or "").encode()


def _as_prompts(path: Path) -> None:
    if path.suffix != ".parquet":
        file = PromptFile(path)
        file.find("some/a.png")
        file.notes()


def _as_table(path: Path) -> None:
    if path.suffix != ".json":
        for row in stream_table(path):
            if not all(isinstance(cell, str | float | int | None) for cell in row.values()):
                raise TypeError(f"not a row: {row}")


SURFACE = Surface("tables", make, feed)
