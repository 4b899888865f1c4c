"""How an image was generated, as its file records it: further columns of a row."""

from __future__ import annotations

from mst_clipiqa.inputs.generation import generation_if_any
from mst_clipiqa.inputs.item import Item
from mst_clipiqa.tables.cells import Cell

METADATA_COLUMNS: dict[str, type] = {
    "generator": str,
    "negative_prompt": str,
    "seed": int,
    "steps": int,
    "sampler": str,
    "cfg_scale": float,
}
"""The columns; "generator" is the model that generated the image, as ``report`` and ``drift`` call it.

Seeds are below 2**64. In Parquet the column is text if one of them is too large for a signed integer of 64 bits.
"""


def metadata_row(item: Item) -> dict[str, Cell]:
    """Return the cells of an item's file; empty ones if it says nothing or cannot be read."""
    found = generation_if_any(item.source)
    if found is None:
        return dict.fromkeys(METADATA_COLUMNS)
    return {
        "generator": found.model,
        "negative_prompt": found.negative_prompt,
        "seed": found.seed,
        "steps": found.steps,
        "sampler": found.sampler,
        "cfg_scale": found.cfg_scale,
    }
