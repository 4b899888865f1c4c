"""How much of a test part a model has seen before, by the hashes stored with the model.

Both the trained part and its encoders may have seen images or prompts. A result on images that either has seen
overstates the model, so it is labelled wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.data import Record
from mst_clipiqa.model_folder import HASH_DIGITS, TrainedOn, load_trained_on, prompt_hash


@dataclass(frozen=True)
class Contamination:
    """How much of a test part had been seen before.

    Attributes:
        images, prompts: share of the images, 0..1, whose bytes or prompt had been seen.
        by: what had seen them: "the model", "its encoders".
    """

    images: float
    prompts: float
    by: tuple[str, ...]

    @property
    def label(self) -> str:
        """Return the label of a contaminated result; empty for a clean one."""
        if not self.by:
            return ""
        who = " and ".join(self.by)
        return f"contaminated: {who} had seen {self.images:.0%} of the images and {self.prompts:.0%} of the prompts"


def contamination(records: Sequence[Record], seen: dict[str, TrainedOn]) -> Contamination:
    """Compare a test part with training data.

    Args:
        records: the test part; its files are read only if there are images to compare with.
        seen: what each part of a model has seen: {"the model": ..., "its encoders": ...}.
    """
    if not records:
        return Contamination(0.0, 0.0, ())
    images = frozenset().union(*(t.images for t in seen.values()))
    prompts = frozenset().union(*(t.prompts for t in seen.values()))
    files = {r.name: r.sha256[:HASH_DIGITS] for r in records} if images else {}
    texts = {r.name: prompt_hash(r.prompt) for r in records if r.prompt} if prompts else {}
    by = [
        who
        for who, t in seen.items()
        if not t.images.isdisjoint(files.values()) or not t.prompts.isdisjoint(texts.values())
    ]
    return Contamination(
        sum(h in images for h in files.values()) / len(records),
        sum(h in prompts for h in texts.values()) / len(records),
        tuple(by),
    )


def trained_on(records: Sequence[Record]) -> TrainedOn:
    """Return what a model trained on these records has seen."""
    images = frozenset(record.sha256[:HASH_DIGITS] for record in records)
    return TrainedOn(images, frozenset(prompt_hash(record.prompt) for record in records if record.prompt))


def encoders_trained_on(source: str) -> TrainedOn:
    """Return what a pair of encoders has seen, as far as it is known; for the paper's pair it is not."""
    if source == "mini":
        from mst_clipiqa.encoders.mini.pair import MINI

        return load_trained_on(MINI.parent)
    seen = [load_trained_on(Path(part)) for part in source.split(",")]
    return TrainedOn(frozenset().union(*(t.images for t in seen)), frozenset().union(*(t.prompts for t in seen)))
