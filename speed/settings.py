"""Do scores find what raters found for a generation setting? AGIQA-3K has the same prompts with other settings.

    python -m speed.settings --models DIR --data DIR [-o FILE]

The settings are in the names of the images: lowstep (few steps), lowcorr and highcorr (a low and a high guidance scale)
against normal, of one generator and prompt. Each generator is scored by the model in left-out/GENERATOR of --models,
which was trained without it. The same pairs with the ratings of people say what there was to find.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mst_clipiqa.analysis.rows import Row
from mst_clipiqa.analysis.settings import SettingEffect, SettingPairs, compare_settings, with_names
from mst_clipiqa.data import RatedSet, load_rated_set
from mst_clipiqa.evaluate import Resampling
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from speed.machine import machine, report

TARGETS = ("quality", "correspondence")


def rows_of(rated: RatedSet, generator: str, model: Path) -> list[Row]:
    """Return the images of a generator with scores and ratings."""
    records = [record for record in rated.records if record.generator == generator]
    scores = Scorer.load(model, device="cpu").many(ScoreRequest(record.file, record.prompt) for record in records)
    return [
        {"file": record.name, "prompt": record.prompt}
        | {name: score.targets[name] for name in TARGETS}
        | {f"rated {name}": record.targets[name] for name in TARGETS}
        for record, score in zip(records, scores, strict=True)
    ]


def compared(rows: list[Row]) -> list[dict[str, Any]]:
    """Return each effect beside that of the ratings."""
    targets = [*TARGETS, *(f"rated {name}" for name in TARGETS)]
    report = compare_settings(with_names(rows), SettingPairs("setting", "normal"), targets, Resampling(0.95, 2000))
    found = {(one.setting, one.target): one for one in report.effects}
    return [
        {
            "generator": scores.generator,
            "setting": scores.setting,
            "target": target,
            "prompts": scores.prompts,
            **numbers("score", scores),
            **numbers("rating", found[scores.setting, f"rated {target}"]),
            "outcome": agrees(scores, found[scores.setting, f"rated {target}"]),
        }
        for (_, target), scores in found.items()
        if target in TARGETS
    ]


def numbers(kind: str, effect: SettingEffect) -> dict[str, float]:
    ends = {"": effect.difference, " low": effect.low, " high": effect.high}
    return {f"{kind}{end}": round(value, 3) for end, value in ends.items()}


def agrees(scores: SettingEffect, ratings: SettingEffect) -> str:
    """Return what scores did with what raters found: "found", "missed", "nothing to find", "not what raters found"."""
    if ratings.verdict == "no difference":
        return "nothing to find" if scores.verdict == "no difference" else "not what raters found"
    if scores.verdict == "no difference":
        return "missed"
    return "found" if scores.verdict == ratings.verdict else "not what raters found"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True, help="AGIQA-3K")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    rated = load_rated_set("agiqa-3k", args.data)
    generators = [
        name for name in rated.generators if len({r.setting for r in rated.records if r.generator == name}) > 1
    ]
    rows = [row for name in generators for row in compared(rows_of(rated, name, args.models / "left-out" / name))]
    result = {"claim": (__doc__ or "").splitlines()[0], "rows": rows, "machine": machine()}
    report(result, args.output)


if __name__ == "__main__":
    main()
