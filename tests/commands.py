"""The command ``mst-clipiqa`` as tests call it, and the tables that it writes."""

from __future__ import annotations

import csv
from pathlib import Path

from click.testing import CliRunner, Result

from mst_clipiqa.cli import group


def run(*arguments: object, code: int = 0) -> Result:
    """Call the command; the test fails unless it ends with this exit code."""
    result = CliRunner().invoke(group, [*map(str, arguments)])
    assert result.exit_code == code, result.output + result.stderr + repr(result.exception)
    return result


def run_score(*arguments: object, code: int = 0) -> Result:
    """Call ``mst-clipiqa score`` as ``run`` does, without progress and table."""
    return run("score", *arguments, "--quiet", code=code)


def csv_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV table, every cell as text."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
