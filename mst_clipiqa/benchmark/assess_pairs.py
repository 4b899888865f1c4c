"""Scores of a model compared with pairs of which people prefer one image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from mst_clipiqa.benchmark.assess import AssessedPart
from mst_clipiqa.data import PreferenceSet
from mst_clipiqa.errors import DataError
from mst_clipiqa.evaluate import PairAccuracy, json_ready, preference_accuracy
from mst_clipiqa.model_folder import EncoderRef
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
    """
    pairs = preferences.among(part.records)
    if not pairs:
        raise DataError(f"Expected pairs in the {part.protocol}, got none: use --split all.")
    names = {record.name for pair in pairs for record in (pair.a, pair.b)}
    records = [record for record in part.records if record.name in names]
    targets: dict[str, dict[str, float | None]] = {}
    for request, score in scorer.stream(ScoreRequest(r.file, r.prompt, r.name) for r in records):
        targets[request.tag or ""] = score.targets
        advance(1)
    pair = scorer.encoder.encoders
    seen = contamination(records, seen_by(scorer.model, EncoderRef(pair.source, pair.sha256, pair.dim)))
    found = []
    for target in scorer.model.config.targets:
        both = [(targets[p.a.name].get(target), targets[p.b.name].get(target), p) for p in pairs]
        known = [(a - b, p) for a, b, p in both if a is not None and b is not None]
        if not known:
            continue
        groups = [p.a.group for _, p in known]
        accuracy = preference_accuracy([gap for gap, _ in known], [p.preferred for _, p in known], groups)
        ties = sum(p.preferred == 0.5 for _, p in known)
        found.append(AssessedPairs(target, accuracy, ties, len(pairs) - len(known), seen))
    if not found:
        raise DataError(
            f"Expected scores of both images of a pair, got none for {len(pairs):,} pairs: check the images."
        )
    return found
