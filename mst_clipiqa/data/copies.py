"""Images that are byte-identical under several names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from mst_clipiqa.data.record import Record

Identical = tuple[tuple[Record, ...], ...]


def identical(records: Iterable[Record]) -> Identical:
    """Find the images that are byte-identical to another one.

    Only files of equal size are read, so the search is cheap.

    Args:
        records: with files that exist.

    Returns:
        The sets of two or more identical images, each sorted by name, in the order of their first names.

    Example:
        >>> pairs = identical(rated.records)  # doctest: +SKIP
        >>> make_split(rated.records, together=pairs)  # doctest: +SKIP
    """
    by_size: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_size[record.size].append(record)
    by_content: dict[str, list[Record]] = defaultdict(list)
    for same in by_size.values():
        if len(same) > 1:
            for record in same:
                by_content[record.sha256].append(record)
    sets = [tuple(sorted(same, key=lambda r: r.name)) for same in by_content.values() if len(same) > 1]
    return tuple(sorted(sets, key=lambda same: same[0].name))


def across_prompts(sets: Sequence[Sequence[Record]]) -> Identical:
    """Return the sets whose images belong to several prompts: they cross a split by prompt."""
    return tuple(tuple(same) for same in sets if len({record.group for record in same}) > 1)
