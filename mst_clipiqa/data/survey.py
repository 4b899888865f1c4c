"""A first look at a rated set: what was found, what is missing, who made the images, how they were rated."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from mst_clipiqa.data.copies import Identical, across_prompts
from mst_clipiqa.data.record import Range, RatedSet

BINS = 10


@dataclass(frozen=True)
class TargetSurvey:
    """The scores of one target, in native units; `histogram` counts them in ten equal steps of the scale."""

    target: str
    score_range: Range
    count: int
    minimum: float
    mean: float
    maximum: float
    sd: float
    histogram: tuple[int, ...]


@dataclass(frozen=True)
class Survey:
    """What `data check` reports.

    `identical` counts images that are byte for byte another one's copy, as sets of names; those of
    `identical_across_prompts` cross a split by prompt.
    """

    name: str
    root: str
    rated: int
    found: int
    missing: tuple[str, ...]
    prompts: int
    without_prompt: int
    generators: dict[str, int]
    splits: dict[str, int]
    targets: tuple[TargetSurvey, ...]
    identical: tuple[tuple[str, ...], ...]
    identical_across_prompts: int
    notes: tuple[str, ...]
    labels: tuple[str, ...]
    licence: str
    citation: str

    def to_json(self) -> dict[str, object]:
        """Return the survey as plain dictionaries and lists."""
        return asdict(self)


def survey(labels: RatedSet, found: int, missing: Sequence[str], same: Identical) -> Survey:
    """Look a rated set over.

    Args:
        labels: the set with all its labels, whether their images are there or not.
        found: how many images are there.
        missing: the names of the others.
        same: sets of byte-identical images.
    """
    records = labels.records
    return Survey(
        name=labels.name,
        root=str(labels.root),
        rated=len(records),
        found=found,
        missing=tuple(missing),
        prompts=len({record.group for record in records if record.prompt_known}),
        without_prompt=sum(record.prompt is None for record in records),
        generators=dict(sorted(Counter(record.generator or "unknown" for record in records).items())),
        splits=dict(sorted(Counter(record.split for record in records if record.split).items())),
        targets=tuple(_target(labels, target) for target in labels.targets),
        identical=tuple(tuple(record.name for record in group) for group in same),
        identical_across_prompts=len(across_prompts(same)),
        notes=labels.notes,
        labels=tuple(str(path) for path in labels.labels),
        licence=labels.licence,
        citation=labels.citation,
    )


def _target(labels: RatedSet, target: str) -> TargetSurvey:
    values = [record.targets[target] for record in labels.records if target in record.targets]
    low, high = labels.ranges[target]
    steps = Counter(min(int((value - low) / (high - low) * BINS), BINS - 1) for value in values)
    return TargetSurvey(
        target=target,
        score_range=(low, high),
        count=len(values),
        minimum=min(values),
        mean=statistics.fmean(values),
        maximum=max(values),
        sd=statistics.stdev(values) if len(values) > 1 else 0.0,
        histogram=tuple(steps[step] for step in range(BINS)),
    )
