"""Scores -> JSON: the numbers of the command's table, and beside them what a page needs to show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mst_clipiqa.model.templates import QUALITY_LEVELS
from mst_clipiqa.scoring.score_rows import to_row
from mst_clipiqa.scoring.scorer import Score
from mst_clipiqa.serve.body import HttpScoreRequest

WORDS = {
    "quality": QUALITY_LEVELS,  # the levels of the method's own templates
    "correspondence": ("not at all", "hardly", "partly", "mostly", "fully"),
}


class ScoreResult(BaseModel):
    """One score; the first ten fields are the columns of the command's table, in its units and rounding."""

    model_config = ConfigDict(extra="allow")  # further targets have a field of their own, as in the table
    file: str = Field(description="The name that the image was sent with.")
    prompt: str | None
    quality: float | None = Field(description="How good it looks; higher is better; the scale is in targets.")
    correspondence: float | None = Field(description="How well it shows its prompt; null without a prompt.")
    gate: float | None = Field(description="Mean share of the coarse encoder, 0..1.")
    status: str = Field(description="ok or error.")
    reason: str | None = Field(description="Why something is missing, or to be read with care.")
    width: int | None
    height: int | None
    model: str
    words: dict[str, str] = Field(description="Quality and correspondence in a word; only from a calibrated model.")
    intervals: dict[str, tuple[float, float]] = Field(description="Holds the human rating with 90 % confidence.")
    levels: list[float] | None = Field(description="Probability of the five quality levels, bad to perfect.")


class ScoreResponse(BaseModel):
    """What /v1/score answers: a result for each image and prompt, in order."""

    results: list[ScoreResult]


class CompareResponse(BaseModel):
    """What /v1/compare answers: the results of A and B, and what follows from them."""

    results: list[ScoreResult]
    sentences: list[str] = Field(description="Which is better, by how much, how sure; one sentence a score.")
    comparisons: list[dict[str, Any]] = Field(description="The same in numbers.")


class ErrorResponse(BaseModel):
    """What every other answer holds."""

    error: str = Field(description="One sentence: what was expected, what came, what to do.")


def results(asked: HttpScoreRequest, scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Return the scores of a request as JSON objects, in order."""
    pairs = [(one.name, prompt) for one, prompts in zip(asked.images, asked.prompts, strict=True) for prompt in prompts]
    return [_result(name, prompt, score) for (name, prompt), score in zip(pairs, scores, strict=True)]


def _result(name: str, prompt: str | None, score: Score) -> dict[str, Any]:
    intervals = {target: [round(end, 6) for end in ends] for target, ends in score.intervals.items()}
    levels = None if score.levels is None else [round(level, 6) for level in score.levels]
    return {**to_row(name, prompt, score), "words": _words(score), "intervals": intervals, "levels": levels}


def _words(score: Score) -> dict[str, str]:
    """Return each score as the fifth of its scale that it lies in."""
    if not score.calibrated:
        return {}
    found = {}
    for target, words in WORDS.items():
        value, scale = score.targets.get(target), score.ranges.get(target)
        if value is not None and scale is not None:
            share = (value - scale[0]) / (scale[1] - scale[0])
            found[target] = words[min(4, max(0, int(5 * share)))]
    return found
