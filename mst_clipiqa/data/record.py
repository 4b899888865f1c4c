"""One rated image, and one rated set of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from mst_clipiqa.tables.stored import FileInFile

Range = tuple[float, float]
ImageFile: TypeAlias = Path | FileInFile
"""Where an image is: a file, or a place inside one; both have ``read_bytes`` and ``is_file``."""

ALONE = "image "
"""Prefix of the group of an image whose prompt is unknown; such an image is a group of its own."""


@dataclass(frozen=True)
class Record:
    """One rated image, in the same form for every layout.

    Attributes:
        name: what the set calls the image, unique in the set ("Controlnet/000-1.png").
        file: the image, which may be inside a larger file; if only the labels were read, its path if it were directly
            in the root.
        prompt: the text that the image was generated from; None if the set does not publish it.
        group: the prompt group; it begins with the set's name, so that groups of two sets are never equal.
        generator: the model that made the image; "" if unknown.
        targets: target -> mean opinion score, in the set's native units.
        deviations: target -> standard deviation of that score among raters, for the targets that have one.
        split: "train", "validation" or "test" if the set has an official split, else None.
        setting: the generator with its settings ("sd1.5_lowstep"); the generator alone if it has none.
        style: the style that the prompt asks for; "" if none.
    """

    name: str
    file: ImageFile
    prompt: str | None
    group: str
    generator: str
    targets: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    setting: str = ""
    style: str = ""

    @cached_property
    def sha256(self) -> str:
        """Return the hash of the file's bytes; the file is read once."""
        return hashlib.sha256(self.file.read_bytes()).hexdigest()

    @property
    def size(self) -> int:
        """Return the length of the file in bytes."""
        return self.file.stat().st_size if isinstance(self.file, Path) else self.file.size

    @property
    def prompt_known(self) -> bool:
        """Return whether it is known which other images share the prompt."""
        return not self.group.endswith(f"/{ALONE}{self.name}")


@dataclass(frozen=True)
class RatedSet:
    """A rated set as it was found in one folder.

    Attributes:
        name: its name in the table of sets ("agiqa-3k").
        root: the folder it was read from.
        records: the rated images, in the label file's order.
        ranges: target -> (low, high), the ends of the native scale, not of the values found.
        missing: names of images that have labels but no file; empty if only the labels were read.
        notes: what the reader did or could not do, one sentence each.
        citation: what to cite.
        licence: the terms under which the set is published.
        labels: the label files that were read.
    """

    name: str
    root: Path
    records: tuple[Record, ...]
    ranges: dict[str, Range]
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    citation: str = ""
    licence: str = ""
    labels: tuple[Path, ...] = ()

    def __len__(self) -> int:
        """Return the number of records."""
        return len(self.records)

    @property
    def targets(self) -> tuple[str, ...]:
        """Return the names of the targets, in the order of the table."""
        return tuple(self.ranges)

    @property
    def groups(self) -> tuple[str, ...]:
        """Return the prompt groups, each once, sorted."""
        return tuple(sorted({record.group for record in self.records}))

    @property
    def generators(self) -> tuple[str, ...]:
        """Return the generators, each once, sorted."""
        return tuple(sorted({record.generator for record in self.records}))


def rated_for(records: Iterable[Record], target: str) -> tuple[Record, ...]:
    """Return the records that have a rating of a target."""
    return tuple(record for record in records if target in record.targets)


def same_text(prompt: str) -> str:
    """Return a prompt in lower case with single spaces; two prompts are the same if these are equal."""
    return " ".join(prompt.lower().split())
