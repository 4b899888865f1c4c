"""How many images are worked on at a time: the bounds of a batch and of the threads that decode."""

from __future__ import annotations

from mst_clipiqa.errors import check_count

_MOST_AT_ONCE = 1_000_000


def check_at_once(name: str, value: object) -> None:
    """Raise UsageError unless a batch size or number of workers is a whole number from 1 to 1,000,000."""
    check_count(name, value, most=_MOST_AT_ONCE)
