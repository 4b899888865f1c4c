"""What ``score`` says on a terminal: the first rows, every failed one, and where the rest is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from mst_clipiqa.cli.commands._screen import apart, columns_of, common_folder, for_screen
from mst_clipiqa.errors import are, counted
from mst_clipiqa.evaluate.caution import UNFAMILIAR, is_unfamiliar

if TYPE_CHECKING:
    from rich.text import Text

    from mst_clipiqa.scoring.score_rows import ScoreRow
    from mst_clipiqa.scoring.scorer import Scorer

SHOWN_ROWS = 40
"""Rows of the table on a terminal; the file has them all."""
SHOWN_FAILURES = 1000
"""Failed rows that are listed after them."""
_SHORTEST = 16  # columns of a file's name, and of a prompt or reason, before columns of numbers give way


@dataclass
class Seen:
    """Rows that went by, as far as the terminal needs them.

    Attributes:
        rows: how many.
        failed: how many of them failed.
        without_prompt: how many were scored without a prompt.
        unfamiliar: how many are unlike the images that the model was trained on.
        first: the first rows.
        failures: failed rows after these.
    """

    rows: int = 0
    failed: int = 0
    without_prompt: int = 0
    unfamiliar: int = 0
    first: list[ScoreRow] = field(default_factory=list)
    failures: list[ScoreRow] = field(default_factory=list)
    _began: float = field(default_factory=monotonic)

    def add(self, row: ScoreRow) -> None:
        """Count a row, and keep it if it will be shown."""
        is_failed = row["status"] == "error"
        self.rows += 1
        self.failed += is_failed
        self.without_prompt += not is_failed and row["prompt"] is None
        familiarity = row.get("familiarity")
        self.unfamiliar += isinstance(familiarity, float) and is_unfamiliar(familiarity)
        if len(self.first) < SHOWN_ROWS:
            self.first.append(row)
        elif is_failed and len(self.failures) < SHOWN_FAILURES:
            self.failures.append(row)

    def summary(self) -> str:
        """Return "2,382 images, 3 failed, 41 s"."""
        seconds = monotonic() - self._began
        time = (
            f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s" if seconds < 600 else f"{seconds / 60:.0f} min"
        )
        return f"{counted(self.rows, 'image')}, {self.failed:,} failed, {time}"


def print_table(seen: Seen, scorer: Scorer, output: Path | None = None) -> None:
    """Print the first rows and every failed one as a table: scores with their scale, and answers to controls."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    rows = seen.first + seen.failures
    console = Console()
    files = [for_screen(row["file"]) for row in rows]
    folder = common_folder(files)
    is_reason = [row["status"] == "error" or not row["prompt"] for row in rows]
    words = [for_screen(row["reason" if why else "prompt"]) for row, why in zip(rows, is_reason, strict=True)]
    widest = max(map(columns_of, words), default=0)
    heads, free = _numbers(rows, scorer, console.width - 3, min(widest, _SHORTEST))
    names = apart([file[len(folder) :] for file in files], max(_SHORTEST, free // 2, free - widest - 1))

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("file", no_wrap=True)
    for head in heads.values():
        table.add_column(head, justify="right", no_wrap=True)
    if widest:
        table.add_column("prompt or reason", overflow="fold")
    for at, row in enumerate(rows):
        if at == len(seen.first):
            table.add_section()
        numbers = ["" if (value := row.get(name)) is None else f"{value:z.2f}" for name in heads]
        table.add_row(Text(names[at]), *numbers, *([_last(words[at], is_reason[at])] if widest else []))
    if folder:
        console.print(f"In {folder}", highlight=False, markup=False, soft_wrap=True)
    console.print(table)
    for line in _below(seen, rows, heads, scorer, output):
        console.print(line, highlight=False, markup=False, soft_wrap=output is not None)  # a path stays whole


def _numbers(rows: Sequence[ScoreRow], scorer: Scorer, width: int, words: int) -> tuple[dict[str, str], int]:
    """Return the columns of numbers that fit, each with its heading, and the width that they leave."""
    from mst_clipiqa.scoring.answers import ANSWERS

    targets = [name for name in scorer.model.config.targets if any(row.get(name) is not None for row in rows)]
    heads = {name: "{}\n{:g}..{:g}".format(name, *scorer.ranges[name]) for name in targets}
    answers = [name for names in ANSWERS for name in names if rows and name in rows[0]]
    heads |= {name: name.replace("_", "\n") for name in answers}
    if not answers and any(row.get("familiarity") is not None for row in rows):
        heads["familiarity"] = "familiarity\n0..1"
    widths = [max(map(len, head.split("\n"))) + 3 for head in heads.values()]
    while len(heads) > len(targets) and sum(widths) + _SHORTEST + words > width:
        widths.pop()
        heads.popitem()
    return heads, width - sum(widths)


def _below(
    seen: Seen, rows: Sequence[ScoreRow], heads: Mapping[str, str], scorer: Scorer, output: Path | None
) -> Iterator[str]:
    """Yield what is said below the table: what it leaves out, and how to read it."""
    from mst_clipiqa.scoring.score_rows import columns

    where = f"{for_screen(output)} has" if output else "-o FILE keeps"
    if more := seen.rows - len(rows):
        yield f"{more:,} more; {where} them."
    hidden = [for_screen(name) for name in (rows[0] if rows else ()) if name not in heads.keys() | columns(scorer)]
    if hidden and not output:
        yield f"Not shown: {', '.join(hidden)}; {where} all columns."
    if seen.unfamiliar:
        those = f"{seen.unfamiliar:,} of {counted(seen.rows - seen.failed, 'scored row')} {are(seen.unfamiliar)}"
        trained = f"the images that the model was trained on (familiarity below {UNFAMILIAR:g})"
        yield f"{those} unlike {trained}, so these scores are less certain."
    uncalibrated = "" if scorer.model.config.calibrated else "; uncalibrated"
    lower = ", except for negative_match" if "negative_match" in heads else ""
    yield f"Model {scorer.predictor.name}; higher is better{lower}{uncalibrated}."


def _last(words: str, is_reason: bool) -> Text:
    """Return a prompt on one line, cut if it is too long, or a whole reason."""
    from rich.text import Text

    return Text(words) if is_reason else Text(words, no_wrap=True, overflow="ellipsis")
