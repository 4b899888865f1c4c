"""Pins what ``mini`` says of ``examples/``: whoever changes a score has to say so in CHANGELOG.md.

    python -m mini_training.pin "The encoders were trained on more photographs."

writes ``mini_training/pinned_scores.json`` and names the change, with the pin's short hash, under Unreleased in the
changelog. ``tests/test_pinned_scores.py`` compares the file with the weights, with the scores and with the changelog.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from mst_clipiqa.scoring.folders import MINI_MODEL
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer

ROOT = Path(__file__).resolve().parent.parent
PINNED = ROOT / "mini_training" / "pinned_scores.json"
CHANGELOG = ROOT / "CHANGELOG.md"
TOLERANCE = 1e-4
COLUMNS = ("quality", "correspondence", "gate")
Pin = dict[str, Any]
"""``weights``: the SHA-256 of the weights; ``scores``: file of ``examples/`` -> column -> value."""


def weights_hash(folder: Path = MINI_MODEL) -> str:
    """Return the SHA-256 of all weights of a model folder, those of its encoders included."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.safetensors")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def pin_of_today() -> Pin:
    """Score the examples in float32 on the CPU, where scores are the same on any number of cores."""
    folder = ROOT / "examples"
    with (folder / "metadata.csv").open(newline="", encoding="utf-8") as file:
        rows = [(row["file_name"], row["prompt"]) for row in csv.DictReader(file)]
    scorer = Scorer.load("mini", device="cpu", precision="fp32")
    scores = scorer.many(ScoreRequest(folder / name, prompt) for name, prompt in rows)
    found = {
        name: {column: round(getattr(score, column), 6) for column in COLUMNS}
        for (name, _), score in zip(rows, scores, strict=True)
    }
    return {"weights": weights_hash(), "scores": found}


def short_hash(pin: Pin) -> str:
    """Return eight hex digits by which the changelog names a pin: of its weights and scores."""
    return hashlib.sha256(json.dumps(pin, sort_keys=True).encode()).hexdigest()[:8]


def differences(pinned: Pin, now: Pin) -> dict[str, float]:
    """Return the largest change of each column; infinite if the files are not the same ones."""
    before, after = pinned["scores"], now["scores"]
    if before.keys() != after.keys():
        return dict.fromkeys(COLUMNS, float("inf"))
    return {c: max(abs(before[name][c] - after[name][c]) for name in before) for c in COLUMNS}


def newest_pin(changelog: str) -> str | None:
    """Return the short hash that the changelog, newest first, names first; None if it names none."""
    found = re.search(r"\(pin `([0-9a-f]{8})`\)", changelog)
    return found.group(1) if found else None


def with_change(changelog: str, pin: str, note: str) -> str:
    """Return the changelog with a line for this pin under Changed, in place of one that was not released yet."""
    start = changelog.index("## [Unreleased]")
    end = changelog.find("\n## [", start + 1) + 1 or len(changelog)
    section = re.sub(r"^- Scores of `mini` change \(pin `\w+`\).*\n(?:  .*\n)*", "", changelog[start:end], flags=re.M)
    if "### Changed\n" not in section:
        section = f"{section.rstrip()}\n\n### Changed\n\n"
    line = textwrap.fill(f"- Scores of `mini` change (pin `{pin}`): {note}", 120, subsequent_indent="  ") + "\n"
    return changelog[:start] + section.replace("### Changed\n\n", f"### Changed\n\n{line}", 1) + changelog[end:]


def main() -> None:
    if len(sys.argv) != 2 or not sys.argv[1].strip():
        sys.exit('Expected one sentence on what changed: python -m mini_training.pin "What changed."')
    renew(sys.argv[1].strip())


def renew(changed: str) -> None:
    """Pin the scores of today, and name the change in the changelog with one sentence."""
    pin = pin_of_today()
    if PINNED.is_file():
        changes = differences(json.loads(PINNED.read_text(encoding="utf-8")), pin)
        print("largest changes:", ", ".join(f"{name} {value:.4f}" for name, value in changes.items()), file=sys.stderr)
    PINNED.write_text(json.dumps(pin, indent=1) + "\n", encoding="utf-8")
    changelog = CHANGELOG.read_text(encoding="utf-8")
    CHANGELOG.write_text(with_change(changelog, short_hash(pin), changed), encoding="utf-8")
    print(f"Wrote {PINNED.name} and the line of pin {short_hash(pin)} in {CHANGELOG.name}.", file=sys.stderr)


if __name__ == "__main__":
    main()
