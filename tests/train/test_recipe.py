"""Every number of a recipe has bounds, and a sentence that names it if it is outside."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from mst_clipiqa.adapt.fit import AdaptRecipe
from mst_clipiqa.errors import UsageError
from mst_clipiqa.train.recipe import FAST, MAX_SEED


@pytest.mark.parametrize("rates", [(), (math.nan,), (-1.0,), (0.0,), (math.inf,), (1e-3, math.nan), (1.01,)])
def test_learning_rates_are_above_zero(rates: tuple[float, ...]) -> None:
    with pytest.raises(UsageError, match=r"^Expected learning_rates above 0, up to 1, got '[^']*': correct them\.$"):
        replace(FAST, learning_rates=rates)


@pytest.mark.parametrize(
    ("field", "value", "ends"),
    [
        *[("batch_size", value, "1 to 1,000,000") for value in (0, -1, 2.5, 10**7, True)],
        *[("epochs", value, "1 to 100,000") for value in (0, -1, 10**6)],
        ("patience", 0, "1 to 100,000"),
        *[("seed", value, "0 to 4,294,967,295") for value in (-1, MAX_SEED + 1, 10**30)],
    ],
)
def test_counts_and_seeds_are_whole_numbers_within_bounds(field: str, value: Any, ends: str) -> None:
    with pytest.raises(UsageError, match=f"^Expected {field} to be a whole number from {ends}, got {value}: correct"):
        replace(FAST, **{field: value})


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, 1e9])
@pytest.mark.parametrize(("field", "most"), [("weight_decay", 100), ("ranking_weight", 1000), ("margin", 4)])
def test_weights_are_finite_and_not_below_zero(field: str, most: int, value: Any) -> None:
    with pytest.raises(UsageError, match=rf"^Expected {field} to be a number from 0 to {most}, got .*: correct it\.$"):
        replace(FAST, **{field: value})


def test_the_ends_are_allowed() -> None:
    replace(FAST, batch_size=1, epochs=1, patience=1, seed=MAX_SEED, learning_rates=(1.0,), margin=0, weight_decay=0.0)
    AdaptRecipe(steps=0, seed=MAX_SEED, anchor=0.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", -1), ("batch_size", 0), ("seed", -1), ("anchor", math.nan), ("learning_rate", 2.0), ("ladder", -0.1)],
)
def test_so_has_a_recipe_of_adaptation(field: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^Expected {field} to be a "):
        AdaptRecipe(**{field: value})
