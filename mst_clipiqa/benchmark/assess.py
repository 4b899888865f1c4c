"""Scores of a model, or from a table, compared with the ratings of a set."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mst_clipiqa.analysis.rows import number
from mst_clipiqa.benchmark.match import match_rows
from mst_clipiqa.benchmark.over_prompts import resampled_units
from mst_clipiqa.data import PARTS_OF_SPLIT, RatedSet, Record, Split, leakage, make_split, rated_for
from mst_clipiqa.data.split_files import ForeignSplitError
from mst_clipiqa.errors import DataError, UsageError, counted, shown
from mst_clipiqa.evaluate import Evaluation
from mst_clipiqa.model_folder import HASH_DIGITS, TrainedModel, load_model, load_trained_on
from mst_clipiqa.scoring.folders import MINI_MODEL
from mst_clipiqa.scoring.granularity import without_setting
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.agreement import evaluate_records
from mst_clipiqa.train.contamination import NOT_CHECKED, Contamination, contamination, seen_by
from mst_clipiqa.train.training_file import read_training

SPLIT_PARTS = (*PARTS_OF_SPLIT, "all")


@dataclass(frozen=True)
class Assessed:
    """The result for one target.

    Attributes:
        target: the name of the score.
        evaluation: all measures; None if no image was scored.
        contamination: how much of the images had been seen in training.
        unscored: how many images with a rating have no score.
        unrated: how many images have no rating of this target; they do not count.
        interval_over: what the intervals are over: "prompts", or "images" if no image has a known prompt.
        scaled: whether the scores are in the units of the ratings. If not, RMSE and mean scores are NaN.
    """

    target: str
    evaluation: Evaluation | None
    contamination: Contamination
    unscored: int
    interval_over: str = "prompts"
    scaled: bool = True
    unrated: int = 0


_COMPARED = 20  # images of a training part, to learn whether they are those of a model

UNKNOWN_SCALE = "the scale of the scores is unknown"
UNCALIBRATED = "the model is uncalibrated, so its scores only order images"
"""Why there is no RMSE."""


@dataclass(frozen=True)
class AssessedPart:
    """The images of a set to assess.

    Attributes:
        records: the images.
        protocol: how they were chosen, in words.
        leakage: share of them, 0..1, whose prompt was seen in training; None if unknown.
        notes: how the split and the set differ, one sentence each.
    """

    records: tuple[Record, ...]
    protocol: str
    leakage: float | None
    notes: tuple[str, ...] = ()


def choose(rated: RatedSet, part: str, folder: Path | None) -> AssessedPart:
    """Return the images of a part.

    Args:
        rated: the set.
        part: "test", "train", "validation" (of the model's own split, else of the official one), or "all".
        folder: the model folder, which holds the model's split; None for mini.

    Raises:
        UsageError: the part does not exist.
    """
    if part not in SPLIT_PARTS:
        raise UsageError(f"Expected --split {', '.join(SPLIT_PARTS)}, got {part!r}.")
    if part == "all":
        return AssessedPart(rated.records, _all_of(rated), None)
    split = _own_split(rated, folder) if folder else None
    if split is None and any(record.split for record in rated.records):
        split = make_split(rated.records, "official")
    if split is None:
        raise UsageError(
            "Expected the set that the model was trained on, or one with an official split, got another: add "
            f"--split all to measure on {_all_of(rated)}."
        )
    records: tuple[Record, ...] = getattr(split, part)
    seen = leakage((*split.train, *split.validation), records) if part == "test" else None
    return AssessedPart(records, f"{part} part, {split.protocol}", seen, split.notes)


def _all_of(rated: RatedSet) -> str:
    return f"all {counted(len(rated.records), 'image')} of {rated.name}"


def _own_split(rated: RatedSet, folder: Path) -> Split | None:
    """Return the split of a model for a set; None if it has none, or one of other images."""
    own = folder / "split.json"
    if not (own.is_file() and _trained_on_set(folder, rated.name)):
        return None
    try:
        split = make_split(rated.records, own)
    except ForeignSplitError:
        return None
    protocol = json.loads(own.read_text(encoding="utf-8-sig")).get("protocol", split.protocol)
    return replace(split, protocol=protocol, notes=(*split.notes, *_other_images(split.train, folder)))


def assess(scorer: Scorer, rated: RatedSet, images: AssessedPart, advance: Callable[[int], None]) -> list[Assessed]:
    """Score the images and evaluate each target that the model and the set share.

    Raises:
        UsageError: they share none.
        ModelError: the record of what the model was trained on is missing.
    """
    targets = [name for name in scorer.model.config.targets if name in rated.ranges]
    if not targets:
        ours, theirs = ", ".join(scorer.model.config.targets), ", ".join(rated.targets)
        raise UsageError(f"Expected a target that both the model ({ours}) and the set ({theirs}) have, got none.")
    records, scores = [r for r in images.records if not r.targets.keys().isdisjoint(targets)], []
    advance(len(images.records) - len(records))
    known = seen_by(scorer.model, scorer.encoder.encoders)
    for _, score in scorer.stream(ScoreRequest(r.file, (r.prompt or "").strip() or None, r) for r in records):
        scores.append(score)
        advance(1)
    found = []
    for target in targets:
        rows = [(r, s.targets[target], s.intervals.get(target)) for r, s in zip(records, scores, strict=True)]
        scales = scorer.ranges[target], rated.ranges[target]
        values = {r.name: _rescaled(v, *scales) for r, v, _ in rows if v is not None}
        bands = {r.name: tuple(_rescaled(e, *scales) for e in i) for r, _, i in rows if i}
        seen = contamination(rated_for(images.records, target), known)
        one = _measured(target, images.records, values, bands, seen)
        found.append(one if scorer.model.config.targets[target].calibrated else _without_units(one, UNCALIBRATED))
    return _some(found)


def assess_table(
    rows: Sequence[Mapping[str, Any]], rated: RatedSet, model: TrainedModel | None = None
) -> list[Assessed]:
    """Evaluate the columns of a table of scores that are targets of a set; see ``match_rows`` for what matches.

    If it is known which model wrote the table, its scores are converted to the scale of the ratings. Otherwise their
    scale is unknown, so there is no RMSE and no mean score.

    Args:
        rows: the table.
        rated: the set.
        model: what wrote the table; None: mini if the table says so, else it is unknown, and what it has seen is not
            checked.

    Raises:
        UsageError: the table has none of the targets, or is not of this model.
        DataError: no image matches, several rows match one, or a score is not a number.
    """
    columns = [t for t in rated.targets if any(row.get(t) is not None for row in rows)]
    if not columns:
        raise UsageError(f"Expected a column {' or '.join(rated.targets)} with values in the scores, got none.")
    matched = match_rows(rows, rated.records)
    wrote = model_of_table(rows, model)
    found = []
    for target in columns:
        values = {name: value for name, row in matched.items() if (value := number(row, target)) is not None}
        own = wrote.config.targets.get(target) if wrote else None
        if own:
            values = {name: _rescaled(v, (own.low, own.high), rated.ranges[target]) for name, v in values.items()}
        seen = seen_of_table(matched, rated_for(rated.records, target), wrote)
        one = _measured(target, rated.records, values, {}, seen)
        if not (own and own.calibrated):
            one = _without_units(one, UNCALIBRATED if own else UNKNOWN_SCALE)
        found.append(one)
    return _some(found)


def model_of_table(rows: Sequence[Mapping[str, Any]], model: TrainedModel | None) -> TrainedModel | None:
    """Return the model that wrote a table; None if it is unknown.

    Args:
        rows: the table.
        model: what the user says wrote it; None: mini if the table says so.

    Raises:
        UsageError: the table is not of this model.
    """
    names = {without_setting(name) if isinstance(name := row.get("model"), str) else name for row in rows}
    if model is None and names != {"mini"}:
        return None
    model = model or load_model(MINI_MODEL)
    if not names <= {None, "", model.config.name}:
        raise UsageError(f"Expected a table of {model.config.name}, got one of {shown(names)}: name its model.")
    return model


def seen_of_table(
    matched: Mapping[str, Mapping[str, Any]], records: Sequence[Record], model: TrainedModel | None
) -> Contamination:
    """Return how many images of a table its model was trained on, or ``NOT_CHECKED``; images outside it do not count.

    Args:
        matched: name of an image -> its row.
        records: the images.
        model: as ``model_of_table`` returns it.
    """
    if model is None:
        return NOT_CHECKED
    # Labels alone do not say where the images are, but a table may.
    found = [
        r if r.file.is_file() else replace(r, file=Path(str(matched[r.name]["file"])))
        for r in records
        if r.name in matched
    ]
    return contamination(found, seen_by(model))


def _measured(
    target: str,
    records: Sequence[Record],
    values: Mapping[str, float],
    bands: Mapping[str, tuple[float, ...]],
    seen: Contamination,
) -> Assessed:
    rated = rated_for(records, target)
    unrated = len(records) - len(rated)
    scored = [record for record in rated if record.name in values]
    if not scored:
        return Assessed(target, None, seen, len(rated), unrated=unrated)
    whole = all(r.name in bands for r in scored)
    band = ([bands[r.name][0] for r in scored], [bands[r.name][1] for r in scored]) if whole else None
    evaluation = evaluate_records([values[r.name] for r in scored], scored, target, band)
    over = resampled_units([r.name for r in scored], [r.group for r in scored])
    return Assessed(target, evaluation, seen, len(rated) - len(scored), over, unrated=unrated)


def _rescaled(value: float, own: tuple[float, float], theirs: tuple[float, float]) -> float:
    """Return a score on the scale of a set; a model scores on that of its training set."""
    return theirs[0] + (value - own[0]) * (theirs[1] - theirs[0]) / (own[1] - own[0])


def _without_units(one: Assessed, why: str) -> Assessed:
    """Return a result without what needs scores in the units of the ratings, and say why they are not."""
    found = one.evaluation
    if found is None:
        return replace(one, scaled=False)
    nan = math.nan
    rmse = replace(found.intervals["rmse"], value=nan, low=nan, high=nan, undefined=why)
    tables = {
        name: tuple(replace(line, mean_prediction=nan, agreement=replace(line.agreement, rmse=nan)) for line in lines)
        for name, lines in found.tables.items()
    }
    agreement, intervals = replace(found.agreement, rmse=nan), found.intervals | {"rmse": rmse}
    return replace(
        one, evaluation=replace(found, agreement=agreement, intervals=intervals, tables=tables), scaled=False
    )


def _some(found: list[Assessed]) -> list[Assessed]:
    """Return the results; DataError if no image has a score."""
    if all(one.evaluation is None for one in found):
        targets = " or ".join(one.target for one in found)
        raise DataError(f"Expected scores of {targets} for {found[0].unscored} rated images, got none that match.")
    return found


def _other_images(train: Sequence[Record], folder: Path) -> tuple[str, ...]:
    """Return a note if the images of a training part are not those of a model, though their names are."""
    known = load_trained_on(folder).images
    some = [record for record in train if record.file.is_file()][:_COMPARED]
    if not known or not some or any(record.sha256[:HASH_DIGITS] in known for record in some):
        return ()
    return (
        "the model was trained on other images under these names, "
        f"to judge by {counted(len(some), 'image')} of its training part: choose --split all",
    )


def _trained_on_set(folder: Path, name: str) -> bool:
    trainings = read_training(folder).values()
    return any(name in (line.get("data"), (line.get("preferences") or {}).get("data")) for line in trainings)
