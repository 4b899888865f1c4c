"""Keys that belong together, directly or through others."""

from __future__ import annotations

from typing import Generic, TypeVar

_Key = TypeVar("_Key")


class Links(Generic[_Key]):
    """Groups of keys that grow together as keys are linked.

    Example:
        >>> links = Links[str]()
        >>> links.link("a", "b")
        >>> links.link("b", "c")
        >>> links.first("c"), links.first("d")
        ('a', 'd')
    """

    def __init__(self) -> None:
        self._parent: dict[_Key, _Key] = {}

    def link(self, one: _Key, other: _Key) -> None:
        """Put two keys into one group, whose first key is that of ``one``."""
        self._parent[self.first(other)] = self.first(one)

    def first(self, key: _Key) -> _Key:
        """Return the key that stands for the group of a key; a key without links stands for itself."""
        while self._parent.setdefault(key, key) != key:
            self._parent[key] = self._parent[self._parent[key]]  # halves the way for the next search
            key = self._parent[key]
        return key
