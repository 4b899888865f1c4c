"""compare-settings: pairs, differences and intervals worked out by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from mst_clipiqa.analysis.settings import SettingPairs, compare_settings, with_names
from mst_clipiqa.cli import group
from mst_clipiqa.errors import DataError, UsageError

NORMAL = SettingPairs("setting", "normal")


def rows(**settings: list[float]) -> list[dict[str, Any]]:
    """Return one image per prompt "0", "1", ... and setting."""
    return [
        {"file": f"sd_{name}_{i}.png", "prompt": f"p{i}", "quality": q, "status": "ok", "setting": name}
        for name, qualities in settings.items()
        for i, q in enumerate(qualities)
    ]


def test_each_setting_is_compared_with_the_baseline() -> None:
    found = compare_settings(rows(normal=[3, 3, 3], low=[1.1, 1, 0.9], same=[3, 4, 2]), NORMAL, ["quality"])
    low, same = found.effects
    assert (low.setting, low.pairs, low.before, low.after, low.difference) == ("low", 3, 3.0, 1.0, -2.0)
    assert (low.low, low.high) == pytest.approx((-2.26886, -1.73114), abs=1e-4)  # 0.1 sqrt(3 / 2) 4.30265 / 1.95996
    assert low.verdict == "worse"
    assert low.sentence() == "low against normal: quality -2.00 (95 % -2.27 to -1.73) over 3 prompts: worse."
    assert (same.difference, same.verdict) == (0.0, "no difference")
    assert same.sentence().endswith("over 3 prompts: no difference found.")


def test_only_images_of_one_prompt_and_generator_are_paired() -> None:
    ours = [{**row, "generator": "a"} for row in rows(normal=[3, 3], low=[2, 2])]
    theirs = [{**row, "generator": "b"} for row in rows(low=[5, 5])]
    found = compare_settings([*ours, *theirs], NORMAL, ["quality"])
    assert [(one.generator, one.difference) for one in found.effects] == [("a", -1.0)]
    assert found.unpaired == [("b", "low")]


def test_pairs_of_one_prompt_are_resampled_together() -> None:
    both = rows(normal=[1, 2], low=[0, 0])
    seeds = [{**row, "seed": seed} for row in both for seed in (1, 2, 3)]
    lone = [{**row, "seed": 4} for row in both if row["setting"] == "low"]
    (found,) = compare_settings([*seeds, *lone], SettingPairs("setting", "normal", ("seed",)), ["quality"]).effects
    assert (found.pairs, found.prompts, found.difference) == (6, 2, -1.5)
    # Student's end for two prompts, times the deviation of their mean, 0.5; not that of six images.
    assert (found.low, found.high) == pytest.approx((-1.5 - 12.7062 / 2, -1.5 + 12.7062 / 2), abs=1e-4)


def test_less_is_better_in_negative_match() -> None:
    table = [{**row, "negative_match": row["quality"]} for row in rows(normal=[3, 3, 3], low=[1.1, 1, 0.9])]
    (found,) = compare_settings(table, NORMAL, ["negative_match"]).effects
    assert found.sentence().endswith("-2.27 to -1.73) over 3 prompts: better.")
    assert found.to_row()["verdict"] == "better"


def test_one_prompt_is_too_few() -> None:
    (found,) = compare_settings(rows(normal=[1], low=[2]), NORMAL, ["quality"]).effects
    assert found.sentence() == "low against normal: quality +1.00 over 1 prompt, too few for an interval."
    assert found.to_row()["low"] is None
    assert found.to_row()["generator"] is None  # an empty text would be a quote in CSV


def test_rows_without_a_score_a_prompt_or_a_setting_are_left_out() -> None:
    good = rows(normal=[1, 1], low=[2, 2])
    bad = [
        {**good[0], "status": "error", "reason": "broken"},
        {**good[0], "prompt": " "},
        {**good[0], "setting": None},
    ]
    found = compare_settings([*good, *bad], NORMAL, ["quality"])
    assert [one.why for one in found.left_out] == ["broken", "no prompt", "no setting"]
    assert [one.difference for one in found.effects] == [1.0]


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(UsageError, match=r"Expected rows with setting 'nromal' in the table, got none .*'normal'"):
        compare_settings(rows(normal=[1], low=[2]), SettingPairs("setting", "nromal"), ["quality"])
    with pytest.raises(UsageError, match="Expected a column 'steps' in the table, found none"):
        compare_settings(rows(normal=[1]), SettingPairs("steps", "20"), ["quality"])
    with pytest.raises(DataError, match="Expected a setting and the baseline 'normal'"):
        compare_settings(rows(normal=[1]), NORMAL, ["quality"])


def test_names_hold_generator_and_setting() -> None:
    names = ["in/sd1.5_lowstep_003.jpg", "xl2.2_two_words_1.png", "plain.png"]
    found = with_names([{"file": name} for name in names])
    assert [(row.get("generator"), row.get("setting")) for row in found] == [
        ("sd1.5", "lowstep"),
        ("xl2.2", "two_words"),
        (None, None),
    ]
    with pytest.raises(UsageError, match=r"Expected file names with .* \(the first: 'plain.png'\): name .* with --by"):
        with_names([{"file": "plain.png"}])


def call(*arguments: object) -> Result:
    return CliRunner().invoke(group, ["compare-settings", *map(str, arguments)])


def test_the_command_says_it_in_sentences_and_in_rows(tmp_path: Path) -> None:
    table = tmp_path / "s.csv"
    some = [{k: v for k, v in row.items() if k != "setting"} for row in rows(normal=[3, 3], low=[1.51, 1.49])]
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(some[0]))
        writer.writeheader()
        writer.writerows(some)
    asked = (table, "--from-names", "--baseline", "normal", "--targets", "quality")
    assert call(*asked).stdout == (
        "sd low against normal: quality -1.50 (95 % -1.63 to -1.37) over 2 prompts: worse.\n"
    )
    (row,) = [json.loads(line) for line in call(*asked, "--json").stdout.splitlines()]
    assert (row["generator"], row["pairs"], row["verdict"]) == ("sd", 2, "worse")
    missing = call(*asked[:-1], "correspondence")
    assert missing.exit_code == 2
    assert "Expected a column 'correspondence'" in missing.stderr


def test_the_command_says_how_many_settings_differ_by_chance(tmp_path: Path) -> None:
    table, settings = tmp_path / "s.jsonl", {name: [3.0, 2.0, 4.0] for name in ("normal", "a", "b", "c")}
    some = rows(**settings, lone=[1.0])  # a single prompt has no interval, so it cannot differ by chance
    table.write_text("".join(json.dumps(row) + "\n" for row in some))
    asked = (table, "--baseline", "normal", "--targets", "quality")
    assert call(*asked).stderr == (
        "Of 3 comparisons at 95 %, about 0.2 would come out better or worse by chance if nothing had changed.\n"
    )
    assert "Of 3 comparisons at 80 %, about 0.6 would come" in call(*asked, "--level", "80", "--json").stderr
    table.write_text("".join(json.dumps(row) + "\n" for row in some[:6]))
    assert call(*asked).stderr == ""  # one comparison errs as often as its level says


def test_the_command_says_which_rows_lack_a_score(tmp_path: Path) -> None:
    table, some = tmp_path / "s.jsonl", rows(normal=[3.0, 2.0, 4.0], low=[1.0, 1.0, 1.0])
    some = [{**row, "beauty": None if row["file"] == "sd_low_1.png" else 2.0} for row in some]
    table.write_text("".join(json.dumps(row) + "\n" for row in some))
    result = call(table, "--baseline", "normal", "--targets", "quality,beauty")
    assert "1 row is compared without beauty, as there is no value: 'sd_low_1.png'\n" in result.stderr
    assert "left out for quality" not in result.stderr


def test_a_small_effect_is_not_written_as_zero() -> None:
    table = rows(normal=[3.0] * 9, fast=[2.999] * 9)
    (effect,) = compare_settings(table, SettingPairs("setting", "normal"), ["quality"]).effects
    assert effect.sentence() == (
        "fast against normal: quality -0.0010 (95 % -0.0013 to -0.0003) over 9 prompts: worse."
    )


def test_the_same_effect_for_every_prompt_is_found_over_enough_prompts() -> None:
    effects = [compare_settings(rows(normal=[4] * n, fast=[3] * n), NORMAL, ["quality"]).effects[0] for n in (2, 5, 6)]
    assert [one.verdict for one in effects] == ["no difference", "no difference", "worse"]
