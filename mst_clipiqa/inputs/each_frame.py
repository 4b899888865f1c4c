"""Animated images as one item per frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from mst_clipiqa.errors import ImageError
from mst_clipiqa.images.decode import frames_in
from mst_clipiqa.inputs.item import Item


def each_frame(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item, but an animated image once for each of its frames; its header is read to count them."""
    for item in items:
        try:
            count = 1 if item.source is None else frames_in(item.source)
        except ImageError:  # the same happens when it is opened to be scored, and becomes its reason
            count = 1
        if count == 1:
            yield item
        else:
            yield from (dataclasses.replace(item, frame=number) for number in range(count))
