"""One rated image, and one rated set of them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

Range = tuple[float, float]

ALONE = "image "
"""How the group of an image begins whose prompt is not known: it is a group of its own."""


@dataclass(frozen=True)
class Record:
    """One rated image, the same whichever layout its set was read from.

    Args:
        name: what the set calls the image, unique in the set ("Controlnet/000-1.png").
        file: where the image lies; where the labels were read alone, where it would lie at the root.
        prompt: the text it was made from; None where the set does not publish it.
        group: the prompt group, beginning with the set's name, so that groups of two sets never look alike.
        generator: the model that made it; "" where unknown.
        targets: target -> mean opinion score, in the set's native units.
        deviations: target -> standard deviation of that score among raters, as far as the set has it.
        split: "train", "validation" or "test" where the set has an official split, else None.
        setting: the generator with its settings ("sd1.5_lowstep"); the generator where there are none.
        style: the style asked for in the prompt; "" where there is none.
    """

    name: str
    file: Path
    prompt: str | None
    group: str
    generator: str
    targets: dict[str, float]
    deviations: dict[str, float] = field(default_factory=dict)
    split: str | None = None
    setting: str = ""
    style: str = ""

    @property
    def prompt_known(self) -> bool:
        """Return whether it is known which other images share the prompt."""
        return not self.group.endswith(f"/{ALONE}{self.name}")


@dataclass(frozen=True)
class RatedSet:
    """A rated set as it was found under one folder.

    Args:
        name: its name in the table of sets ("agiqa-3k").
        root: the folder it was read from.
        records: the rated images, in the label file's order.
        ranges: target -> (low, high), the ends of the native scale (not of the values met).
        missing: names of images that have labels and no file; empty where the labels were read alone.
        notes: what the reader did or could not do, in sentences.
        citation: whom to cite.
        licence: under which terms the set is published.
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


def same_text(prompt: str) -> str:
    """Return the prompt with case and spacing taken out, which is how two prompts are compared."""
    return " ".join(prompt.split()).casefold()
