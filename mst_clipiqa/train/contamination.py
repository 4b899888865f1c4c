"""What of a test part a model has seen before, by the hashes it carries.

Both the trained part and its encoders may have seen images or prompts; a figure on images that either has seen
says less than it seems to, so it is labelled wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.data import Record
from mst_clipiqa.model_folder import TrainedOn, image_hash, load_trained_on, prompt_hash


@dataclass(frozen=True)
class Contamination:
    """How much of a test part had been seen; shares are 0..1 of its images."""

    images: float
    prompts: float
    by: tuple[str, ...]  # "the model", "its encoders"

    @property
    def label(self) -> str:
        """Return what stands beside a contaminated figure; empty for a clean one."""
        if not self.by:
            return ""
        who = " and ".join(self.by)
        return f"contaminated: {who} had seen {self.images:.0%} of the images and {self.prompts:.0%} of the prompts"


def contamination(records: Sequence[Record], seen: dict[str, TrainedOn]) -> Contamination:
    """Compare a test part with what has been trained on.

    Args:
        records: the test part; the bytes of its files are read where images are to be compared.
        seen: who -> what it has seen, such as {"the model": ..., "its encoders": ...}.
    """
    if not records:
        return Contamination(0.0, 0.0, ())
    images = frozenset().union(*(t.images for t in seen.values()))
    prompts = frozenset().union(*(t.prompts for t in seen.values()))
    files = {r.name: image_hash(r.file.read_bytes()) for r in records} if images else {}
    texts = {r.name: prompt_hash(r.prompt) for r in records if r.prompt} if prompts else {}
    guilty = [
        who
        for who, t in seen.items()
        if not t.images.isdisjoint(files.values()) or not t.prompts.isdisjoint(texts.values())
    ]
    return Contamination(
        sum(h in images for h in files.values()) / len(records),
        sum(h in prompts for h in texts.values()) / len(records),
        tuple(guilty),
    )


def trained_on(records: Sequence[Record]) -> TrainedOn:
    """Return what a model that learns from these records will have seen."""
    images = frozenset(image_hash(record.file.read_bytes()) for record in records)
    return TrainedOn(images, frozenset(prompt_hash(record.prompt) for record in records if record.prompt))


def encoders_trained_on(source: str) -> TrainedOn:
    """Return what a pair of encoders says it has seen; nothing is known of the paper's pair."""
    if source == "mini":
        from mst_clipiqa.encoders.mini.pair import MINI

        return load_trained_on(MINI.parent)
    seen = [load_trained_on(Path(part)) for part in source.split(",")]
    return TrainedOn(frozenset().union(*(t.images for t in seen)), frozenset().union(*(t.prompts for t in seen)))
