"""How much of a test part a model has seen before, by the hashes stored with the model.

Both the trained part and its encoders may have seen images or prompts. A result on images that either has seen
overstates the model, so it is labelled wherever it is shown.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mst_clipiqa.data import Record
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.errors import percent_seen
from mst_clipiqa.model_folder import (
    HASH_DIGITS,
    TrainedModel,
    TrainedOn,
    load_model,
    load_trained_on,
    prompt_hash,
)
from mst_clipiqa.scoring.folders import MINI_MODEL, check_record


@dataclass(frozen=True)
class Contamination:
    """How much of a test part had been seen before.

    Attributes:
        images, prompts: share of the images, 0..1, whose bytes or prompt had been seen, among those whose file or
            prompt is there; None if none is, or if it was not checked. Without any images, 0.
        by: what had seen them: "the model", "its encoders"; if it was not checked, what may have seen them.
        checked: whether it is known what all of these have seen, or that one of them has seen some.
    """

    images: float | None
    prompts: float | None
    by: tuple[str, ...]
    checked: bool = True

    @property
    def label(self) -> str:
        """Return the label of a result that is contaminated or was not checked; empty for a clean one."""
        if not self.checked:
            who = " and ".join(self.by)
            return "not checked" + (f" for contamination: nothing says what {who} saw in training" if who else "")
        shares = (("images", self.images), ("prompts", self.prompts))
        seen = " and ".join(f"{percent_seen(share)} of the {what}" for what, share in shares if share is not None)
        return f"contaminated: {' and '.join(self.by)} had seen {seen}" if self.by else ""


def overstate(label: str) -> str:
    """Return what figures with the label of a ``Contamination`` do to a model: "overstate", or "may overstate"."""
    return "may overstate" if label.lower().startswith("not checked") else "overstate"


NOT_CHECKED = Contamination(None, None, (), checked=False)


def contamination(records: Sequence[Record], seen: dict[str, TrainedOn]) -> Contamination:
    """Compare a test part with training data.

    Args:
        records: the test part; its files are read only if there are images to compare with, and may be missing.
        seen: what each part of a model has seen: {"the model": ..., "its encoders": ...}.
    """
    if not records:
        return Contamination(0.0, 0.0, ())
    whole = union(seen.values())
    files = {r.name: r.sha256[:HASH_DIGITS] for r in records if r.file.is_file()} if whole.images else {}
    texts = {r.name: prompt_hash(r.prompt) for r in records if r.prompt}
    by = [
        who
        for who, t in seen.items()
        if not t.images.isdisjoint(files.values()) or not t.prompts.isdisjoint(texts.values())
    ]
    if not by and not whole.is_complete:
        return Contamination(None, None, tuple(who for who, t in seen.items() if not t.is_complete), checked=False)
    of_images = _share(files.values(), whole.images) if whole.images else 0.0
    return Contamination(of_images, _share(texts.values(), whole.prompts), tuple(by))


def _share(hashes: Collection[str], seen: frozenset[str]) -> float | None:
    """Return the share of some hashes that had been seen; None if there are no hashes."""
    return sum(h in seen for h in hashes) / len(hashes) if hashes else None


def union(seen: Iterable[TrainedOn]) -> TrainedOn:
    """Return the images and prompts that several models, or parts of one, have seen together."""
    some = list(seen)
    images, prompts = (frozenset().union(*(getattr(t, what) for t in some)) for what in ("images", "prompts"))
    return TrainedOn(images, prompts, all(t.is_complete for t in some))


def trained_on(records: Sequence[Record]) -> TrainedOn:
    """Return the images and prompts that a model trained on these records has seen."""
    images = frozenset(record.sha256[:HASH_DIGITS] for record in records)
    return TrainedOn(images, frozenset(prompt_hash(record.prompt) for record in records if record.prompt))


def encoders_trained_on(source: str, sha256: str) -> TrainedOn:
    """Return the images and prompts that encoders have seen, as far as known; for the paper's pair it is not.

    Args:
        source: the name or folders of the pair; a folder may hold a record of what the pair was trained on.
        sha256: the hash of the pair, by which mini's is known wherever it lies.
    """
    if source == "mini" or sha256 == load_model(MINI_MODEL).config.encoders.sha256:
        return load_trained_on(MINI_MODEL)
    return union(load_trained_on(Path(part)) for part in source.split(","))


def seen_by(model: TrainedModel, encoders: EncoderPair | None = None) -> dict[str, TrainedOn]:
    """Return the images and prompts that a model and its encoders have seen, as ``contamination`` takes them.

    Args:
        model: the model.
        encoders: its encoders if they are loaded, perhaps from another place than the model names.

    Raises:
        ModelError: the record of the model's training is missing.
    """
    check_record(model)
    pair = encoders or model.config.encoders
    return {"the model": model.trained_on, "its encoders": encoders_trained_on(pair.source, pair.sha256)}
