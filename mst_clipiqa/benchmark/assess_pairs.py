"""Scores of a model, or from a table, compared with pairs of which people prefer one image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.rows import Row, number, text
from mst_clipiqa.benchmark.assess import AssessedPart, model_of_table, seen_of_table
from mst_clipiqa.benchmark.match import match_rows
from mst_clipiqa.data import Preference, PreferenceSet, Record
from mst_clipiqa.data.record import same_text
from mst_clipiqa.errors import DataError, UsageError, counted
from mst_clipiqa.evaluate import PairAccuracy, json_ready, preference_accuracy
from mst_clipiqa.model_folder import TrainedModel
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.train.contamination import Contamination, contamination, seen_by


@dataclass(frozen=True)
class AssessedPairs:
    """The result for one target.

    Attributes:
        target: the name of the score.
        accuracy: share of the pairs in which the preferred image has the higher score, with its interval.
        ties: pairs in which people preferred neither image; they are left out.
        unscored: pairs with an image that has no score.
        contamination: how much of the images had been seen in training.
    """

    target: str
    accuracy: PairAccuracy
    ties: int
    unscored: int
    contamination: Contamination

    def to_json(self) -> Any:
        """Return plain dictionaries; undefined values become None."""
        return json_ready(asdict(self) | {"contaminated": self.contamination.label})


def assess_pairs(
    scorer: Scorer, preferences: PreferenceSet, part: AssessedPart, advance: Callable[[int], None]
) -> list[AssessedPairs]:
    """Score the images of a part and compare the scores of each pair, for every target of the model.

    Raises:
        DataError: the part has no pair, or no pair is scored.
        ModelError: the record of what the model was trained on is missing.
    """
    pairs = preferences.among(part.records)
    if not pairs:
        raise DataError(f"Expected pairs in the {part.protocol}, got none: use --split all.")
    names = {record.name for pair in pairs for record in (pair.a, pair.b)}
    records = [record for record in part.records if record.name in names]
    known = seen_by(scorer.model, scorer.encoder.encoders)
    targets: dict[str, dict[str, float | None]] = {}
    for request, score in scorer.stream(ScoreRequest(r.file, r.prompt, r.name) for r in records):
        targets[request.tag or ""] = score.targets
        advance(1)
    seen = contamination(records, known)
    return _compared(pairs, targets, list(scorer.model.config.targets), seen)


def assess_pair_table(
    rows: Sequence[Row], preferences: PreferenceSet, model: TrainedModel | None = None
) -> list[AssessedPairs]:
    """Compare the scores of a table for each pair, for every target that it has.

    A row is that of an image if its file matches as ``match_rows`` says, and its prompt is the same or empty.

    Args:
        rows: the table.
        preferences: all pairs; their images need not exist.
        model: what wrote the table, to check what it has seen; None: mini if the table says so, else it is not checked.

    Raises:
        UsageError: the table has no scores, or is not of this model.
        DataError: no pair is scored, or an image matches several rows.
    """
    columns = [target for target in TARGETS if any(number(row, target) is not None for row in rows)]
    if not columns:
        raise UsageError(f"Expected a column {' or '.join(TARGETS)} with values in the scores, got none.")
    matched = _rows_of(preferences, rows)
    targets = {name: {target: number(row, target) for target in columns} for name, row in matched.items()}
    seen = seen_of_table(matched, preferences.images.records, model_of_table(rows, model))
    return _compared(preferences.pairs, targets, columns, seen)


def _rows_of(preferences: PreferenceSet, rows: Sequence[Row]) -> dict[str, Row]:
    """Return the name of each image -> its row in a table; an image without a row is left out."""
    rows = list(rows)  # a table would make them anew for each prompt
    texts = [same_text(text(row, "prompt")) for row in rows]
    by_prompt: dict[str, list[Record]] = {}
    for record in preferences.images.records:
        by_prompt.setdefault(same_text(record.prompt or ""), []).append(record)
    found: dict[str, Row] = {}
    for prompt, records in by_prompt.items():
        own = [row for row, words in zip(rows, texts, strict=True) if not prompt or words in ("", prompt)]
        name_of = {preferences.file_of(record): record.name for record in records}
        matched = match_rows(own, [replace(record, name=preferences.file_of(record)) for record in records])
        found |= {name_of[file]: row for file, row in matched.items()}
    return found


def _compared(
    pairs: Sequence[Preference],
    scores: Mapping[str, Mapping[str, float | None]],
    targets: Sequence[str],
    seen: Contamination,
) -> list[AssessedPairs]:
    """Compare the scores of each pair, image -> target -> score, for some targets."""
    found = []
    for target in targets:
        both = [(_score(scores, p.a, target), _score(scores, p.b, target), p) for p in pairs]
        known = [(a - b, p) for a, b, p in both if a is not None and b is not None]
        if not known:
            continue
        groups = [p.a.group for _, p in known]
        accuracy = preference_accuracy([gap for gap, _ in known], [p.preferred for _, p in known], groups)
        ties = sum(p.preferred == 0.5 for _, p in known)
        found.append(AssessedPairs(target, accuracy, ties, len(pairs) - len(known), seen))
    if not found:
        raise DataError(
            f"Expected scores of both images of a pair, got none for {counted(len(pairs), 'pair')}: check the images."
        )
    return found


def _score(scores: Mapping[str, Mapping[str, float | None]], record: Record, target: str) -> float | None:
    return scores.get(record.name, {}).get(target)
