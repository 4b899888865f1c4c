"""rank and pick: rows sorted by score, best first, overall or within each prompt."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mst_clipiqa.analysis.frames import mean_of_frames
from mst_clipiqa.analysis.rows import (
    LARGEST,
    LOWER_BETTER,
    LeftOut,
    Row,
    need_columns,
    need_one_model,
    number,
    prompt_of,
    split_failed,
)
from mst_clipiqa.errors import UsageError
from mst_clipiqa.tables.columns import Table

WITHOUT_PROMPT = "no prompt"


@dataclass(frozen=True)
class Ranked:
    """Rows with a column ``rank`` (1 is best), and the rows that could not be ranked."""

    rows: Table
    left_out: list[LeftOut]


def parse_weights(by: str) -> dict[str, float]:
    """Return the columns to order by and their weights.

    Args:
        by: a column ("quality") or columns with weights ("quality=2,correspondence=1"); use a negative weight if
            lower is better. Without a weight it is 1, or -1 for ``LOWER_BETTER``.

    Raises:
        UsageError: the text is neither.
    """
    weights: dict[str, float] = {}
    for part in by.split(","):
        name, equals, weight = (piece.strip() for piece in part.partition("="))
        try:
            value = float(weight) if equals else -1.0 if name in LOWER_BETTER else 1.0
        except ValueError:
            value = math.nan
        if not name or not 0 < abs(value) <= LARGEST or name in weights:
            raise UsageError(
                f"Expected a column, or columns with weights such as quality=2,correspondence=1, got {by!r}: "
                "name each column once, with a weight other than zero."
            )
        weights[name] = value
    return weights


def rank(
    rows: Sequence[Row], weights: Mapping[str, float], *, top: int | None = None, per_prompt: bool = False
) -> Ranked:
    """Sort rows by a weighted mean of their scores, highest first; equal rows keep their order.

    Args:
        rows: rows of a table of scores; frames of one animated image count as one row, with their mean.
        weights: column -> weight. Values are not rescaled: each is in its own units.
        top: how many to keep, per prompt if ``per_prompt``; None keeps all.
        per_prompt: rank within each prompt; prompts are in the order of their first rows.

    Returns:
        Ranked: the rows with ``rank`` and, if there are several weights, the mean as ``weighted``.

    Raises:
        UsageError: a column is missing, the rows are of several models, or ``top`` is below 1.
        DataError: a cell is not a number where one is needed.
    """
    if top is not None and top < 1:
        raise UsageError(f"Expected to keep at least 1 row, got {top}.")
    need_columns(rows, [*weights, *(["prompt"] if per_prompt else [])])
    need_one_model(rows)
    good, left = split_failed(rows)
    good = mean_of_frames(good, weights, [one.row for one in left])
    groups: dict[str, list[tuple[float, int]]] = {}
    for place, row in enumerate(good):
        value, why = _value(row, weights)
        prompt = prompt_of(row) if per_prompt else ""
        if per_prompt and not prompt:
            why = WITHOUT_PROMPT
        if why:
            left.append(LeftOut(row, why))
            continue
        groups.setdefault(prompt, []).append((value, place))
    # sorted() keeps the order of equal rows.
    best = [sorted(group, key=lambda pair: -pair[0])[:top] for group in groups.values()]
    ordered = [pair for group in best for pair in group]
    ranked = good.take([place for _, place in ordered])
    if not ranked:
        return Ranked(ranked, left)
    more = {"weighted": [round(value, 6) for value, _ in ordered]} if len(weights) > 1 else {}
    ranks = [place for group in best for place in range(1, len(group) + 1)]
    return Ranked(ranked.with_columns({**more, "rank": ranks}), left)


def _value(row: Row, weights: Mapping[str, float]) -> tuple[float, str]:
    """Return the weighted mean of a row's scores, and the reason if there is none."""
    total, shares = 0.0, weights
    if len(weights) == 1:  # only its sign matters, and multiplying by it could make neighbours equal
        shares = {column: math.copysign(1.0, weight) for column, weight in weights.items()}
    for column, share in shares.items():
        value = number(row, column)
        if value is None:
            return math.nan, f"no {column}"
        total += share * value
    return total / sum(map(abs, shares.values())), ""
