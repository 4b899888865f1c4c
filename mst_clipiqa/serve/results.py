"""Scores -> JSON: the values of the command's table, and what a page needs besides to show them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mst_clipiqa.model.templates import QUALITY_LEVELS
from mst_clipiqa.scoring.answers import answers_of
from mst_clipiqa.scoring.score import Score
from mst_clipiqa.scoring.score_rows import to_row
from mst_clipiqa.serve.body import HttpScoreRequest

WORDS = {
    "quality": QUALITY_LEVELS,  # the levels of the method's own templates
    "correspondence": ("not at all", "hardly", "partly", "mostly", "fully"),
}


class ScoreResult(BaseModel):
    """One score; the first eleven fields are the columns of the command's table, with the same units and rounding."""

    model_config = ConfigDict(extra="allow")  # further targets have a field of their own, as in the table
    file: str = Field(description="The file name that was sent with the image.")
    prompt: str | None
    quality: float | None = Field(description="How good the image looks; higher is better.")
    correspondence: float | None = Field(description="How well it shows its prompt; null without a prompt.")
    gate: float | None = Field(description="Mean share of the coarse encoder, 0 to 1.")
    familiarity: float | None = Field(description="Likeness to the training images, 0 to 1; unlike them below 0.05.")
    status: str = Field(description="ok or error.")
    reason: str | None = Field(description="Why a score is missing or less certain.")
    width: int | None
    height: int | None
    model: str
    negative_match: float | None = Field(
        None, description="How well it shows the negative prompt; lower is better. If a negative prompt was sent."
    )
    reference_coarse: float | None = Field(None, description="Cosine similarity, -1 to 1. If a reference was sent.")
    reference_fine: float | None = Field(None, description="The same in the fine stream.")
    edge_agreement: float | None = Field(None, description="-1 to 1. If a control map was sent.")
    words: dict[str, str] = Field(description="Quality and correspondence as a word; calibrated models only.")
    intervals: dict[str, tuple[float, float]] = Field(
        description="Contains the human rating in 90 % of cases, for images like those it was calibrated on."
    )
    levels: list[float] | None = Field(description="Probabilities of the five quality levels, bad to perfect.")


class ScoreResponse(BaseModel):
    """The response of /v1/score: one result per image and prompt, in order."""

    results: list[ScoreResult]


class CompareResponse(BaseModel):
    """The response of /v1/compare: the results of A and B, and their comparison."""

    results: list[ScoreResult]
    sentences: list[str] = Field(description="Which is better, by how much, how certain; one sentence per score.")
    comparisons: list[dict[str, Any]] = Field(description="The same in numbers.")


class ErrorResponse(BaseModel):
    """The response to a request that was rejected."""

    error: str = Field(description="One sentence: what was expected, what came, what to do.")


def results(asked: HttpScoreRequest, scores: Sequence[Score]) -> list[dict[str, Any]]:
    """Return the scores of a request as JSON objects (``ScoreResult``), in order."""
    pairs = [(one.name, prompt) for one, prompts in zip(asked.images, asked.prompts, strict=True) for prompt in prompts]
    controls = asked.controls
    empty = dict.fromkeys(answers_of(controls.negative, controls.reference, controls.control))
    return [_result(name, prompt, score, empty) for (name, prompt), score in zip(pairs, scores, strict=True)]


def _result(name: str, prompt: str | None, score: Score, empty: dict[str, None]) -> dict[str, Any]:
    """Return one score as a JSON object; ``empty`` has the answers that were asked for, which may be missing."""
    intervals = {target: [round(end, 6) for end in ends] for target, ends in score.intervals.items()}
    levels = None if score.levels is None else [round(level, 6) for level in score.levels]
    row = to_row(name, prompt, score)
    return {**row, **(empty | row), "words": _words(score), "intervals": intervals, "levels": levels}


def _words(score: Score) -> dict[str, str]:
    """Return a word for the fifth of its scale that each score falls in."""
    if not score.calibrated:
        return {}
    found = {}
    for target, words in WORDS.items():
        value, scale = score.targets.get(target), score.ranges.get(target)
        if value is not None and scale is not None:
            share = (value - scale[0]) / (scale[1] - scale[0])
            found[target] = words[min(4, max(0, int(5 * share)))]
    return found
