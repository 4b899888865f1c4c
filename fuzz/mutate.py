"""Damage, as by disks, networks and attackers, to bytes and to JSON."""

from __future__ import annotations

import random
import struct
from typing import Any

_NUMBERS = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2**31, 2**63, 2**70, 10**400, 0.5, -0.0, 1e308, float("nan"), float("inf")),
    *("", " ", "\0", "\ud800", "a" * 5000, "../../../etc/passwd", "/dev/zero", "=1+1", "NaN", "1e999"),
    *([], {}, [[]], {"": {}}, [1, 2, 3], {"a": 1}),
)


def damaged(data: bytes, dice: random.Random, other: bytes = b"") -> bytes:
    """Return bytes after one to four kinds of damage, or cut off, or joined to others."""
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        data = dice.choice((_cut, _flip, _number, _insert, _remove, _repeat, _noise, _splice))(data, dice, other)
    return data


def _at(data: bytes, dice: random.Random) -> int:
    """Return a place: most damage is done near the start, where headers are."""
    end = len(data) if dice.random() < 0.5 else min(len(data), 200)
    return dice.randrange(end) if end else 0


def _cut(data: bytes, dice: random.Random, _: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)]


def _flip(data: bytes, dice: random.Random, _: bytes) -> bytes:
    flipped = bytearray(data)
    for _i in range(dice.choice((1, 2, 8, 32))):
        if flipped:
            flipped[_at(data, dice)] ^= 1 << dice.randrange(8)
    return bytes(flipped)


def _number(data: bytes, dice: random.Random, _: bytes) -> bytes:
    value, at = dice.choice(_NUMBERS), _at(data, dice)
    packed = struct.pack(dice.choice("<>") + dice.choice("HIQ"), value & 0xFFFF)
    if dice.random() < 0.7:
        packed = struct.pack(dice.choice("<>") + dice.choice("IQ"), value)
    return data[:at] + packed + data[at + len(packed) :]


def _insert(data: bytes, dice: random.Random, _: bytes) -> bytes:
    at = _at(data, dice)
    return data[:at] + dice.randbytes(dice.choice((1, 2, 4, 100))) + data[at:]


def _remove(data: bytes, dice: random.Random, _: bytes) -> bytes:
    at = _at(data, dice)
    return data[:at] + data[at + dice.choice((1, 2, 4, 100)) :]


def _repeat(data: bytes, dice: random.Random, _: bytes) -> bytes:
    at = _at(data, dice)
    piece = data[at : at + dice.choice((4, 16, 200))]
    return data[:at] + piece * dice.choice((2, 3, 50)) + data[at:]


def _noise(data: bytes, dice: random.Random, _: bytes) -> bytes:
    at = _at(data, dice)
    length = dice.choice((1, 8, 64))
    return data[:at] + dice.randbytes(length) + data[at + length :]


def _splice(data: bytes, dice: random.Random, other: bytes) -> bytes:
    return data[: _at(data, dice)] + other[_at(other, dice) :]


def value(dice: random.Random) -> Any:
    """Return an unexpected JSON value."""
    return dice.choice(_VALUES)


def damaged_json(tree: Any, dice: random.Random) -> Any:
    """Return JSON with one value replaced, removed, renamed or added, somewhere in it."""
    if isinstance(tree, dict) and tree:
        key = dice.choice(list(tree))
        if dice.random() < 0.6:
            return tree | {key: damaged_json(tree[key], dice)}
        match dice.randrange(4):
            case 0:
                return {k: v for k, v in tree.items() if k != key}
            case 1:
                return tree | {f"{key}{dice.choice(('x', '.', ' '))}": tree[key]}
            case 2:
                return tree | {dice.choice(("", "x", "__class__", "\0")): value(dice)}
        return tree | {key: value(dice)}
    if isinstance(tree, list) and tree and dice.random() < 0.6:
        at = dice.randrange(len(tree))
        return [*tree[:at], damaged_json(tree[at], dice), *tree[at + 1 :]]
    if isinstance(tree, int | float) and abs(tree) < 1e300 and dice.random() < 0.6:
        return dice.choice((-tree, tree + 1, tree - 1, tree * 1000, 0, tree / 3, str(tree), tree + 0.0))
    return value(dice)
