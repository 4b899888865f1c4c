"""compare-settings: what a generation setting changed, image against image made from the same prompt."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_clipiqa.analysis.compare import TARGETS
from mst_clipiqa.analysis.pairing import shared_by
from mst_clipiqa.analysis.rank import WITHOUT_PROMPT
from mst_clipiqa.analysis.rows import (
    LOWER_BETTER,
    LeftOut,
    Row,
    file_of,
    means_by_key,
    need_columns,
    need_one_model,
    number,
    prompt_of,
    split_failed,
    text,
)
from mst_clipiqa.analysis.verdict import decimals, interval_cells, verdict_of, written
from mst_clipiqa.errors import DataError, UsageError, counted, nearest, shown
from mst_clipiqa.evaluate.means import mean_differences
from mst_clipiqa.evaluate.resampling import DEFAULT, Resampling

WITHOUT_SETTING = "no setting"


@dataclass(frozen=True)
class SettingEffect:
    """How one score differs between a setting and the baseline.

    Attributes:
        target: which score.
        generator: whose images; empty if the table names no generator.
        setting: the setting.
        baseline: what it is compared with.
        pairs: how many pairs were compared; a pair shares the generator, the prompt and whatever else was asked for.
        prompts: of how many prompts.
        before, after: mean score with the baseline and with the setting, over the pairs.
        difference: after - before.
        low, high: interval of the difference over resampled prompts; NaN with fewer than two prompts.
        level: the confidence level, such as 0.95.
    """

    target: str
    generator: str
    setting: str
    baseline: str
    pairs: int
    prompts: int
    before: float
    after: float
    difference: float
    low: float
    high: float
    level: float

    @property
    def verdict(self) -> str:
        """Return "better", "worse", "no difference", or "unknown" if there is no interval."""
        return verdict_of(self.low, self.high, lower_better=self.target in LOWER_BETTER)

    def sentence(self) -> str:
        """Return the effect in words."""
        who = " ".join(filter(None, (self.generator, self.setting)))
        over = f"over {counted(self.prompts, 'prompt')}"
        what = f"{who} against {self.baseline}: {self.target}"
        if self.verdict == "unknown":
            return f"{what} {self.difference:+z.{decimals(self.difference)}f} {over}, too few for an interval."
        end = "no difference found" if self.verdict == "no difference" else self.verdict
        return f"{what} {written(self.difference, self.low, self.high, self.level, '+')} {over}: {end}."

    def to_row(self) -> dict[str, Any]:
        """Return the effect as a row of a table; an undefined interval is empty."""
        return {
            "target": self.target,
            "generator": self.generator or None,
            "setting": self.setting,
            "baseline": self.baseline,
            "pairs": self.pairs,
            "prompts": self.prompts,
            "before": self.before,
            "after": self.after,
            "difference": self.difference,
            **interval_cells(self.low, self.high, self.verdict),
        }


@dataclass(frozen=True)
class SettingsReport:
    """All effects, and what could not be paired.

    Attributes:
        effects: generator by generator, setting by setting, target by target.
        unpaired: (generator, setting) without any pair.
        left_out: failed rows, and rows without a prompt or a setting.
    """

    effects: list[SettingEffect]
    unpaired: list[tuple[str, str]]
    left_out: list[LeftOut]


@dataclass(frozen=True)
class SettingPairs:
    """Which images make a pair.

    Attributes:
        setting: the column whose values are compared.
        baseline: the value that all others are compared with.
        also: columns that a pair must share besides generator and prompt, such as ("seed",).
    """

    setting: str
    baseline: str
    also: Sequence[str] = ()


def with_names(rows: Sequence[Row]) -> list[Row]:
    """Return the rows with ``generator`` and ``setting`` from names such as ``sd1.5_lowstep_003.jpg``.

    Raises:
        UsageError: no name holds them.
    """
    parts = [Path(file_of(row)).stem.split("_") for row in rows]
    if rows and not any(len(words) > 2 for words in parts):
        raise UsageError(
            "Expected file names with generator, setting and number, such as sd1.5_lowstep_003.jpg, got none "
            f"(the first: {shown(file_of(rows[0]))}): name the column of settings with --by instead of --from-names."
        )
    return [
        {**row, "generator": words[0], "setting": "_".join(words[1:-1])} if len(words) > 2 else row
        for row, words in zip(rows, parts, strict=True)
    ]


def compare_settings(
    rows: Sequence[Row], pairing: SettingPairs, targets: Sequence[str] = TARGETS, resampling: Resampling = DEFAULT
) -> SettingsReport:
    """Compare each setting with the baseline, over images of the same generator and prompt.

    Several images of one pair count with their mean. Pairs of one prompt are resampled together (``means.py``).

    Args:
        rows: a table of scores.
        pairing: which images make a pair.
        targets: columns of numbers, of which more is better, but for ``LOWER_BETTER``; scores, or ratings beside them.
        resampling: level, resamples and seed.

    Raises:
        UsageError: the table lacks a column, its rows are of several models, or no row has the baseline.
        DataError: nothing can be paired, or a cell is not a number where one is needed.
    """
    need_columns(rows, ["prompt", pairing.setting, *pairing.also, *targets])
    need_one_model(rows)
    scored, left = split_failed(rows)
    left += [LeftOut(row, WITHOUT_PROMPT) for row in scored if not prompt_of(row)]
    good = [row for row in scored if prompt_of(row)]
    left += [LeftOut(row, WITHOUT_SETTING) for row in good if not text(row, pairing.setting)]
    good = [row for row in good if text(row, pairing.setting)]
    settings = list(dict.fromkeys(text(row, pairing.setting) for row in good))
    if not settings:
        advice = "fill in these columns" if scored else "score images that can be read"
        raise UsageError(
            f"Expected scored rows with a prompt and a {pairing.setting}, got none in {counted(len(rows), 'row')}: "
            f"{advice}."
        )
    if pairing.baseline not in settings:
        there = nearest(pairing.baseline, settings) or f"; it has {', '.join(shown(s, 40) for s in settings[:8])}"
        raise UsageError(f"Expected rows with {pairing.setting} {pairing.baseline!r} in the table, got none{there}.")
    effects, unpaired = [], []
    for generator in dict.fromkeys(text(row, "generator") for row in good):
        own = [row for row in good if text(row, "generator") == generator]
        for setting in (one for one in settings if one != pairing.baseline):
            if not any(text(row, pairing.setting) == setting for row in own):
                continue
            found = [_effect(own, target, generator, setting, pairing, resampling) for target in targets]
            effects += [one for one in found if one is not None]
            unpaired += [] if any(found) else [(generator, setting)]
    if not effects:
        raise DataError(
            f"Expected a setting and the baseline {pairing.baseline!r} of one generator and prompt, got no such pair: "
            "score images made from the same prompts."
        )
    return SettingsReport(effects, unpaired, left)


def _effect(
    rows: Sequence[Row], target: str, generator: str, setting: str, pairing: SettingPairs, resampling: Resampling
) -> SettingEffect | None:
    before, after = (_by_pair(rows, target, value, pairing) for value in (pairing.baseline, setting))
    shared = [key for key in before if key in after]
    if not shared:
        return None
    prompts = [key[0] for key in shared]
    (result,) = mean_differences([[after[key] - before[key] for key in shared]], prompts, resampling)
    was, now = (math.fsum(side[key] for key in shared) / len(shared) for side in (before, after))
    count = len(shared), len(set(prompts))
    interval = result.value, result.low, result.high, result.level
    return SettingEffect(target, generator, setting, pairing.baseline, *count, was, now, *interval)


def _by_pair(rows: Sequence[Row], target: str, setting: str, pairing: SettingPairs) -> dict[tuple[str, ...], float]:
    """Return the mean score of the images of a setting, by prompt and whatever else a pair shares."""
    own = (row for row in rows if text(row, pairing.setting) == setting)
    return means_by_key(
        ((prompt_of(row), *shared_by(row, pairing.also)), value)
        for row in own
        if (value := number(row, target)) is not None
    )
