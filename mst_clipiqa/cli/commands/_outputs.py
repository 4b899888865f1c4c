"""Checks of outputs, before any work: their names, and that none of them is an input."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.inputs.prompt_choice import METADATA_FILES
from mst_clipiqa.tables.table import check_table_output


def check_outputs(inputs: Iterable[str | Path | None], output: Path | None, left_out: Path | None = None) -> None:
    """Refuse tables that would replace what is read, or each other.

    Args:
        inputs: files or folders that are read, as ``keep_apart`` takes them.
        output: of ``-o``.
        left_out: of ``--left-out``.

    Raises:
        UsageError: an output is an input, perhaps by a link; both outputs are one file; or no table can have that name.
    """
    named = list(inputs)
    for flag, path in (("-o", output), ("--left-out", left_out)):
        if path is not None:
            check_table_output(path)
            keep_apart(named, path, flag)
    if output is not None and left_out is not None and (_alike(output, left_out) or same_file(output, left_out)):
        raise UsageError(f"Expected two outputs, got {shown(output)} for both: name another for --left-out.")


def keep_apart(inputs: Iterable[str | Path | None], output: Path, flag: str = "-o") -> None:
    """Raise a UsageError if an output is an input, perhaps by a link; "-" and None are no inputs.

    Of a folder, the lists that prompts are read from without being named, such as ``metadata.csv``, are inputs too.
    """
    if any(same_file(output, Path(one)) or _is_list_of(Path(one), output) for one in inputs if one is not None):
        raise UsageError(f"Expected an output other than the input for {flag}, got {shown(output)}: name a new one.")


def _alike(one: Path, other: Path) -> bool:
    """Return whether two names differ in case at most: most disks of Windows and macOS have one file for both."""
    return str(one).casefold() == str(other).casefold()


def same_file(one: Path, other: Path) -> bool:
    """Return whether two names are of one file, perhaps by a link; False if one of them does not exist."""
    try:
        return one.samefile(other)
    except (OSError, ValueError):
        return False


def _is_list_of(folder: Path, output: Path) -> bool:
    if output.name not in METADATA_FILES or not output.exists() or not folder.is_dir():
        return False
    place, folder = output.parent.resolve(), folder.resolve()
    return place == folder.parent or place.is_relative_to(folder)
