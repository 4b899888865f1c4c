"""Records -> training, validation and test part, by default split by prompt.

A random split depends only on the seed and the names of the groups: groups are drawn by a hash, so neither the order
of the records nor a missing image changes where the others go. The validation part is always taken from the training
part and shares no prompt with the rest of it. Training takes a ``TrainingPart``, which has no test part.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mst_clipiqa.data.links import Links
from mst_clipiqa.data.record import Record, rated_for, same_text
from mst_clipiqa.data.split_files import read_parts
from mst_clipiqa.errors import DataError, UsageError, counted
from mst_clipiqa.tables.atomic import write_atomically

Records = tuple[Record, ...]

PARTS_OF_SPLIT = ("train", "validation", "test")
"""Names of the parts, as in ``split.json``."""


@dataclass(frozen=True)
class TrainingPart:
    """The parts that training may use, without the test part.

    Attributes:
        train: the records to train on.
        validation: records to choose the epoch by; they share no prompt with those of ``train``.
        protocol: how both were chosen, in words.
    """

    train: Records
    validation: Records
    protocol: str


@dataclass(frozen=True)
class Split:
    """Records in three parts, each sorted by name.

    Attributes:
        train: the records to train on.
        validation: records to choose the epoch by.
        test: records to measure on.
        protocol: how the parts were chosen, in words.
        notes: what did not fit, one sentence each.
    """

    train: Records
    validation: Records
    test: Records
    protocol: str
    notes: tuple[str, ...] = ()

    def for_training(self) -> TrainingPart:
        """Return the split without its test part."""
        return TrainingPart(self.train, self.validation, self.protocol)

    def rated(self, target: str) -> Split:
        """Return the split with only the images that have a rating of a target; it is the same for all targets."""
        return self.only(lambda record: target in record.targets)

    def only(self, keep: Callable[[Record], bool]) -> Split:
        """Return the split with only the images that are to be kept."""
        train, validation, test = (tuple(filter(keep, part)) for part in (self.train, self.validation, self.test))
        return replace(self, train=train, validation=validation, test=test)

    def check_rated(self, target: str, *parts: str) -> None:
        """Raise DataError unless at least two images of each of these parts have a rating of a target.

        Args:
            target: the name of the score.
            parts: of "train", "validation" and "test".
        """
        counts = {part: len(rated_for(getattr(self, part), target)) for part in parts}
        if min(counts.values()) < 2:
            raise DataError(
                f"Expected at least 2 images with a rating of {target} in each part of the split that is used, got "
                f"{', '.join(f'{count:,} ({part})' for part, count in counts.items())}: rate more images, or choose "
                "another split."
            )

    @property
    def leakage(self) -> float | None:
        """Return the share of test images whose prompt was seen in training or validation."""
        return leakage((*self.train, *self.validation), self.test)

    def names(self) -> dict[str, list[str]]:
        """Return the names of the images of each part."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {part: [record.name for record in records] for part, records in parts.items()}

    def save(self, path: str | Path) -> None:
        """Write the names of the three parts as JSON, which ``make_split(records, path)`` reads."""
        text = json.dumps({"protocol": self.protocol, **self.names()}, indent=1) + "\n"
        write_atomically(Path(path), text.encode())


def make_split(
    records: Iterable[Record],
    by: str | Path = "prompt",
    *,
    seed: int = 0,
    test_share: float = 0.2,
    validation_share: float = 0.15,
    together: Sequence[Sequence[Record]] = (),
) -> Split:
    """Split records into training, validation and test part.

    Args:
        records: in any order.
        by: "prompt" (no prompt in two parts), "image" (images at random, as most papers do it), "official"
            (the parts that the set was published with), or a file of names (see ``split_files.py``).
        seed: random seed.
        test_share: share of the prompts (by "image": of the images) in the test part, from 0 to below 1.
        validation_share: share of the remaining prompts that is held out for validation, from 0 to below 1.
        together: sets of images that must stay in one part, such as byte-identical ones (``identical``); for
            random splits only. By "prompt", their prompts stay together as well.

    Raises:
        UsageError: a share is out of range, or ``together`` was given for a fixed split.
        DataError: there is no official split, there are too few groups, or the file is bad.

    Example:
        >>> split = make_split(rated.records, seed=3)  # doctest: +SKIP
        >>> train(split.for_training())  # doctest: +SKIP
    """
    ordered = _sorted(records)
    _check(ordered, by, test_share, validation_share, together)
    notes: tuple[str, ...] = ()
    match str(by):
        case "prompt" | "image":
            units = _units(ordered, together, by_prompt=by == "prompt")
            test, rest = _draw(units, test_share, f"test/{seed}")
            parts = {"test": test, "train": rest}
        case "official":
            parts, notes = _official(ordered)
        case _:
            parts, notes = _from_file(ordered, Path(by))
    if "validation" not in parts:
        units = _units(parts["train"], together, by_prompt=True)
        parts["validation"], parts["train"] = _draw(units, validation_share, f"validation/{seed}")
    train, validation, test = (_sorted(parts[part]) for part in PARTS_OF_SPLIT)
    if not train:
        raise DataError("Expected images to train on, got none after the split: choose smaller shares.")
    return Split(train, validation, test, _words(by, seed, (train, validation, test), bool(together)), notes)


def _check(
    records: Records, by: str | Path, test_share: float, validation_share: float, together: Sequence[Sequence[Record]]
) -> None:
    """Check the arguments of ``make_split``, which lists the errors."""
    if not (0 <= test_share < 1 and 0 <= validation_share < 1):
        raise UsageError(
            f"Expected test_share and validation_share from 0 to below 1, got {test_share:g} and {validation_share:g}: "
            "correct them."
        )
    if len({record.name for record in records}) < len(records):
        raise DataError("Expected records with different names, got one name twice: split one set at a time.")
    if together and str(by) not in ("prompt", "image"):
        raise UsageError(
            f"Expected a split by prompt or image to keep images together, got the fixed split {str(by)!r}."
        )


def leakage(train: Iterable[Record], test: Iterable[Record]) -> float | None:
    """Return the share of test images whose prompt occurs in training, as a group or word for word.

    Returns:
        0 to 1, over the test images whose prompt is known; None if there are none.
    """
    seen = {key for record in train for key in _prompt_keys(record)}
    known = [record for record in test if record.prompt_known]
    if not known:
        return None
    return sum(not seen.isdisjoint(_prompt_keys(record)) for record in known) / len(known)


def _prompt_keys(record: Record) -> list[Hashable]:
    """Return the keys by which images of one prompt are found: its group and its text (two ids may have one text)."""
    keys = [("group", record.group)]
    return [*keys, ("text", same_text(record.prompt))] if record.prompt else [*keys]


def _units(records: Records, together: Sequence[Sequence[Record]], *, by_prompt: bool) -> dict[str, Records]:
    """Join the records that must stay together: key of the unit -> its records. The keys are stable names."""
    links = Links[Hashable]()
    for record in records:
        for key in _prompt_keys(record) if by_prompt else []:
            links.link(("name", record.name), key)
    present = {record.name for record in records}
    for same in together:
        names = [record.name for record in same if record.name in present]
        for name in names[1:]:
            links.link(("name", names[0]), ("name", name))
    joined: dict[Hashable, list[Record]] = defaultdict(list)
    for record in records:
        joined[links.first(("name", record.name))].append(record)
    return {min(r.group if by_prompt else r.name for r in unit): tuple(unit) for unit in joined.values()}


def _draw(units: dict[str, Records], share: float, salt: str) -> tuple[Records, Records]:
    """Draw a share of the units, at least one unless the share is 0; return the drawn ones and the others."""
    count = math.floor(share * len(units) + 0.5)
    if share and len(units) < 2:
        raise DataError(
            f"Expected at least two prompts to choose a {salt.split('/')[0]} part from, got {len(units)}: "
            "use more images or set the share to 0."
        )
    count = max(count, 1) if share else 0
    order = sorted(units, key=lambda key: hashlib.sha256(f"{salt}/{key}".encode()).digest())
    drawn, others = order[:count], order[count:]
    return tuple(r for key in drawn for r in units[key]), tuple(r for key in others for r in units[key])


def _official(records: Records) -> tuple[dict[str, Records], tuple[str, ...]]:
    """Return the parts that the set was published with, and a note if some images are in none of them."""
    names = {record.split for record in records if record.split is not None}
    parts = {part: tuple(record for record in records if record.split == part) for part in names}
    missing = [part for part in ("train", "test") if part not in parts]
    if missing:
        raise DataError(f"Expected an official split, got no {' and no '.join(missing)} part: split by prompt instead.")
    left = sum(record.split is None for record in records)
    words = f"the official split leaves out {counted(left, 'image')} whose split column names no part"
    return parts, (words,) if left else ()


def _from_file(records: Records, path: Path) -> tuple[dict[str, Records], tuple[str, ...]]:
    """Return the parts that a file or folder lists."""
    listed, notes = read_parts(path, [record.name for record in records])
    by_name = {record.name: record for record in records}
    return {part: tuple(by_name[name] for name in names) for part, names in listed.items()}, notes


def _sorted(records: Iterable[Record]) -> Records:
    return tuple(sorted(records, key=lambda r: r.name))


def _words(by: str | Path, seed: int, parts: tuple[Records, Records, Records], together: bool) -> str:
    """Return in words how the parts were chosen, with their sizes."""
    how = {
        "prompt": f"random split by prompt, seed {seed}",
        "image": f"random split by image, seed {seed}",
        "official": "the official split",
    }.get(str(by), f"the split in {Path(by).name}")
    if together:
        how += ", identical images kept in one part"
    sizes = " / ".join(f"{len(part):,}" for part in parts)
    if not any(record.prompt_known for part in parts for record in part):
        return f"{how}: {sizes} images of unknown prompts (train / validation / test)"
    groups = " / ".join(_prompts(part) for part in parts)
    return f"{how}: {sizes} images of {groups} prompts (train / validation / test)"


def _prompts(part: Records) -> str:
    """Return the number of prompts of a part, or "unknown" if none of its images has a known one."""
    known = {record.group for record in part if record.prompt_known}
    return f"{len(known):,}" if known or not part else "unknown"
