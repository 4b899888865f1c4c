"""What was asked of the generator beside the prompt: from flags and columns to requests, and to columns of answers.

``answers.py`` says what the answers are.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import ImageError, UsageError, nearest, shown
from mst_clipiqa.features.opened import Failed
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.inputs.generation import generation_if_any
from mst_clipiqa.scoring.score import ScoreRequest
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.cells import Cell
from mst_clipiqa.tables.stamps import stamp_of

METADATA_SOURCE = "metadata"
NEGATIVE_COLUMNS: dict[str, type] = {"negative_prompt": str, "negative_match": float}
REFERENCE_COLUMNS: dict[str, type] = {"reference": str, "reference_coarse": float, "reference_fine": float}
EDGE_COLUMNS: dict[str, type] = {"control": str, "edge_agreement": float}


@dataclass(frozen=True)
class ControlSources:
    """Where the controls of each image come from; None asks nothing.

    Attributes:
        negative: the negative prompt of every image.
        negative_from: "metadata", or a column with the negative prompts.
        reference: a reference image for all, or a column that names one per image.
        control: "edges:FILE", a control map for all, or "edges:COLUMN".
        folders: where files that a column names are looked for, besides the current folder.
    """

    negative: str | None = None
    negative_from: str | None = None
    reference: str | None = None
    control: str | None = None
    folders: tuple[Path, ...] = ()

    def with_full_names(self, columns: Sequence[str]) -> ControlSources:
        """Return the same sources for another machine: files by their full names, columns as they are."""
        reference, edges = self.reference, _after_edges(self.control)
        if reference is not None and reference not in columns:
            reference = str(Path(reference).absolute())
        if edges is not None and edges not in columns:
            edges = str(Path(edges).absolute())
        control = None if edges is None else f"edges:{edges}"
        folders = tuple(folder.absolute() for folder in self.folders)
        return replace(self, reference=reference, control=control, folders=folders)


class Controls:
    """Says what is asked of each image, and which columns answer it.

    Args:
        scorer: the model.
        sources: where controls come from.
        columns: of the list, as ``Inputs.columns`` has them.

    Raises:
        UsageError: a file or column does not exist, a file is no image, or the model cannot answer.
    """

    def __init__(self, scorer: Scorer, sources: ControlSources, columns: Sequence[str]) -> None:
        self.sources = sources
        if sources.negative is not None and sources.negative_from is not None:
            raise UsageError("Expected one of --negative and --negative-from, got both: leave one out.")
        self._negative = sources.negative is not None or sources.negative_from is not None
        negative = "" if self._negative else None  # whatever it will be
        scorer.answers.check(ScoreRequest(None, negative=negative, reference=sources.reference))
        if sources.negative_from not in (None, METADATA_SOURCE, *columns):
            hint = nearest(str(sources.negative_from), [METADATA_SOURCE, *columns])
            raise UsageError(
                f"Expected --negative-from metadata or a column of the list, got {shown(sources.negative_from)}{hint}."
            )
        opening = scorer.encoder.opening
        self._reference = _place("--reference", sources.reference, columns, opening)
        self._edges = _place("--control", _after_edges(sources.control), columns, opening)

    @property
    def columns(self) -> dict[str, type]:
        """The columns that the controls add."""
        asked = (self._negative, self.sources.reference is not None, self.sources.control is not None)
        groups = zip(asked, (NEGATIVE_COLUMNS, REFERENCE_COLUMNS, EDGE_COLUMNS), strict=True)
        return {name: kind for wanted, group in groups if wanted for name, kind in group.items()}

    def asked(self, more: Mapping[str, Cell], image: object) -> dict[str, Cell]:
        """Return the cells that say what is asked of an image: its negative prompt, its reference, its control map.

        Args:
            more: the other columns of its row in a list.
            image: what to open; None or ``Failed`` if there is nothing to open.
        """
        row: dict[str, Cell] = {}
        if self._negative:
            row["negative_prompt"] = self._negative_of(more, image)
        if self.sources.reference is not None:
            row["reference"] = self._file(self._reference or self.sources.reference, more)
        if self.sources.control is not None:
            row["control"] = self._file(self._edges or _after_edges(self.sources.control), more)
        return row

    def state(self, row: dict[str, Cell]) -> str:
        """Return a hash of what is asked in a row, and of the state of the files that it names."""
        parts = [row.get("negative_prompt")]
        parts += [f"{row[name]} {stamp_of(str(row[name]))}" for name in ("reference", "control") if row.get(name)]
        return f"{zlib.crc32(repr(parts).encode('utf-8', 'replace')):08x}"

    def request(self, row: Mapping[str, Cell]) -> dict[str, Any]:
        """Return the controls of a row as fields of a ``ScoreRequest``."""
        return {
            "negative": row.get("negative_prompt"),
            "reference": row.get("reference"),
            "control": row.get("control"),
        }

    def _negative_of(self, more: Mapping[str, Cell], image: Any) -> Cell:
        match self.sources.negative_from:
            case None:
                return self.sources.negative
            case "metadata":
                found = None if isinstance(image, Failed) else generation_if_any(image)
                return found.negative_prompt if found else None
            case column:
                cell = more.get(column)
                return None if cell is None else str(cell)

    def _file(self, source: str | Path | None, more: Mapping[str, Cell]) -> str | None:
        """Return the file that a source names for an image, or the name as it is if there is no such file."""
        if isinstance(source, Path) or source is None:
            return None if source is None else str(source)
        name = more.get(source)
        if name is None or not str(name).strip():
            return None
        places = [Path(str(name)), *(folder / str(name) for folder in self.sources.folders)]
        return str(next((place for place in places if stamp_of(str(place))), places[0]))


def _after_edges(control: str | None) -> str | None:
    """Return the file or column of "edges:NAME"; UsageError for another kind of control."""
    if control is None:
        return None
    kind, colon, name = control.partition(":")
    if kind != "edges" or not colon or not name:
        raise UsageError(f"Expected --control edges:FILE or edges:COLUMN, got {shown(control)}: only edges are known.")
    return name


def _place(flag: str, name: str | None, columns: Sequence[str], opening: OpenOptions) -> Path | None:
    """Return the image that a flag names for all images; None if it names a column, or nothing."""
    if name is None or name in columns:
        return None
    path = Path(name)
    if not stamp_of(name) or path.is_dir():
        hint = nearest(name, columns)
        raise UsageError(f"Expected a file or a column of the list for {flag}, got {shown(name)}{hint}: check it.")
    try:
        open_image(path, opening)
    except ImageError as error:
        raise UsageError(f"{flag} {shown(name)}: {error}") from error
    return path
