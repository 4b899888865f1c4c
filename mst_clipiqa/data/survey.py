"""A first look at a rated set: images found and missing, generators, and the distribution of the scores."""

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
    """The scores of one target, in native units.

    Attributes:
        target: its name.
        score_range: the ends of the native scale.
        count: number of scores.
        minimum, mean, maximum, sd: of the scores; sd is their standard deviation, 0 for one score.
        histogram: number of scores in each of ten equal steps of the scale.
    """

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
    """What ``data check`` reports.

    Attributes:
        name: of the set.
        root: its folder.
        rated, found: number of rated images, and of those that exist.
        missing: names of the others.
        prompts: number of known prompts.
        without_prompt: number of images without one.
        generators, splits: generator, or part of the published split -> number of images.
        targets: one survey per target.
        identical: sets of names of byte-identical images.
        identical_across_prompts: how many of these sets would cross a split by prompt.
        notes: what the reader did, one sentence each.
        labels, licence, citation: the label files, and what the set's authors ask for.
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
    """Return the survey of a rated set.

    Args:
        labels: the set with all its labels, whether their images exist or not.
        found: how many images exist.
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
