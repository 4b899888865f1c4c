"""What the default shares of ``train`` leave to calibrate with."""

from __future__ import annotations

import inspect
import math
from pathlib import Path
from typing import Any

import numpy as np

from mst_clipiqa.cli.commands.train import command
from mst_clipiqa.data.record import Record
from mst_clipiqa.data.splits import make_split
from mst_clipiqa.evaluate.widening import grouped_quantile
from mst_clipiqa.train.intervals import halve_validation

PAGE = Path(__file__).resolve().parents[2] / "docs" / "train.md"


NAMES = ("test_share", "validation_share")


def shares() -> dict[str, Any]:
    return {option.name: option.default for option in command.params if option.name in NAMES}


def test_train_and_make_split_have_the_same_default_shares() -> None:
    defaults = inspect.signature(make_split).parameters
    assert shares() == {name: defaults[name].default for name in NAMES}


def test_the_page_says_how_many_prompts_intervals_take() -> None:
    def has_intervals(prompts: int) -> bool:
        records = [Record(f"{n}.png", Path("a"), str(n), str(n), "", {"quality": 1.0}) for n in range(prompts)]
        held = halve_validation(make_split(records, **shares()).validation)[1]
        groups = [record.group for record in held]
        return bool(groups) and math.isfinite(grouped_quantile(np.zeros(len(groups)), groups, 0.9))

    fewest = next(prompts for prompts in range(20, 1000) if has_intervals(prompts))
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"With the default shares, a set of about {round(fewest, -1)} prompts is enough" in text
