"""What was asked of the generator beside the prompt, each answered in a column of its own.

    negative prompt   - the prompt head ......... - negative_match
    reference image   - the two image encoders .. - reference_coarse, reference_fine
    control map       - edges of the image ...... - edge_agreement

No score depends on any of them.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from mst_clipiqa.errors import ImageError, UsageError, nearest, shown
from mst_clipiqa.features.cache import Encoded
from mst_clipiqa.images.decode import open_image
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.inputs.expand import Item
from mst_clipiqa.inputs.generation import read_generation
from mst_clipiqa.scoring.edges import edge_agreement
from mst_clipiqa.scoring.resume import stamp_of
from mst_clipiqa.scoring.scorer import Scorer
from mst_clipiqa.tables.cells import Cell, rounded

METADATA_SOURCE = "metadata"
NEGATIVE_COLUMNS: dict[str, type] = {"negative_prompt": str, "negative_match": float}
REFERENCE_COLUMNS: dict[str, type] = {"reference": str, "reference_coarse": float, "reference_fine": float}
EDGE_COLUMNS: dict[str, type] = {"control": str, "edge_agreement": float}

_REFERENCES_KEPT = 64  # reference images whose features are kept


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


class Controls:
    """Adds the columns of controls to rows.

    Args:
        scorer: the model.
        sources: where controls come from.
        columns: of the list, as ``Inputs.columns`` has them.

    Raises:
        UsageError: a file or column does not exist, a file is no image, or the model cannot answer.
    """

    def __init__(self, scorer: Scorer, sources: ControlSources, columns: Sequence[str]) -> None:
        self.scorer, self.sources = scorer, sources
        if sources.negative is not None and sources.negative_from is not None:
            raise UsageError("Expected one of --negative and --negative-from, got both: leave one out.")
        self._negative = sources.negative is not None or sources.negative_from is not None
        if self._negative and "correspondence" not in scorer.model.config.targets:
            raise UsageError(
                f"Expected a model that scores correspondence for a negative prompt, got {scorer.model.config.name}: "
                "choose another with --model, or leave the negative prompt out."
            )
        if sources.negative_from not in (None, METADATA_SOURCE, *columns):
            hint = nearest(str(sources.negative_from), [METADATA_SOURCE, *columns])
            raise UsageError(
                f"Expected --negative-from metadata or a column of the list, got {shown(sources.negative_from)}{hint}."
            )
        opening = scorer.encoder.opening
        self._reference = _place("--reference", sources.reference, columns, opening)
        self._edges = _place("--control", _after_edges(sources.control), columns, opening)
        self._known: dict[str, Encoded | str] = {}  # reference images, or why they cannot be read

    @property
    def columns(self) -> dict[str, type]:
        """The columns that the controls add."""
        asked = (self._negative, self.sources.reference is not None, self.sources.control is not None)
        groups = zip(asked, (NEGATIVE_COLUMNS, REFERENCE_COLUMNS, EDGE_COLUMNS), strict=True)
        return {name: kind for wanted, group in groups if wanted for name, kind in group.items()}

    def asked(self, item: Item) -> dict[str, Cell]:
        """Return the cells that say what is asked of an item: its negative prompt, its reference, its control map."""
        row: dict[str, Cell] = {}
        if self._negative:
            row["negative_prompt"] = self._negative_of(item)
        if self.sources.reference is not None:
            row["reference"] = self._file(self._reference or self.sources.reference, item)
        if self.sources.control is not None:
            row["control"] = self._file(self._edges or _after_edges(self.sources.control), item)
        return row

    def state(self, row: dict[str, Cell]) -> str:
        """Return a hash of what is asked in a row, and of the state of the files that it names."""
        parts = [row.get("negative_prompt")]
        parts += [f"{row[name]} {stamp_of(str(row[name]))}" for name in ("reference", "control") if row.get(name)]
        return f"{zlib.crc32(repr(parts).encode('utf-8', 'replace')):08x}"

    @torch.inference_mode()
    def complete(self, rows: Sequence[dict[str, Any]], images: Sequence[tuple[object, object]]) -> None:
        """Add the answers to rows that ``asked`` has been added to; what cannot be answered is added to ``reason``.

        Args:
            rows: of one batch.
            images: of each row, what was opened and its features; rows without features keep what they have.
        """
        for row, (image, encoded) in zip(rows, images, strict=True):
            if isinstance(encoded, Encoded) and row["status"] == "ok":
                notes = [self._match(row, encoded), self._resemblance(row, encoded), self._agreement(row, image)]
                row["reason"] = "; ".join(filter(None, (row["reason"], *notes))) or None

    def _negative_of(self, item: Item) -> Cell:
        match self.sources.negative_from:
            case None:
                return self.sources.negative
            case "metadata":
                try:
                    found = None if item.source is None else read_generation(item.source)
                except ImageError:
                    found = None
                return found.negative_prompt if found else None
            case column:
                cell = item.more.get(column)
                return None if cell is None else str(cell)

    def _file(self, source: str | Path | None, item: Item) -> str | None:
        """Return the file that a source names for an item, or the name as it is if there is no such file."""
        if isinstance(source, Path) or source is None:
            return None if source is None else str(source)
        name = item.more.get(source)
        if name is None or not str(name).strip():
            return None
        places = [Path(str(name)), *(folder / str(name) for folder in self.sources.folders)]
        return str(next((place for place in places if stamp_of(str(place))), places[0]))

    def _match(self, row: dict[str, Any], encoded: Encoded) -> str:
        negative = row.get("negative_prompt")
        if not isinstance(negative, str) or not negative.strip():
            return ""
        score = self.scorer.score_encoded([encoded], [negative])[0]
        row["negative_match"] = rounded(score.correspondence)
        if score.correspondence is not None:
            return ""
        return "the negative prompt's words lie outside what the text encoder was trained on, so it is not answered"

    def _resemblance(self, row: dict[str, Any], encoded: Encoded) -> str:
        name = row.get("reference")
        if name is None:
            return ""
        reference = self._encoded(str(name))
        if isinstance(reference, str):
            return f"the reference cannot be read: {reference}"
        for stream, a, b in (("coarse", encoded.f_c, reference.f_c), ("fine", encoded.f_f, reference.f_f)):
            row[f"reference_{stream}"] = rounded(float(F.cosine_similarity(a.double(), b.double(), dim=0)))
        return ""

    def _encoded(self, name: str) -> Encoded | str:
        if name not in self._known:
            if len(self._known) >= _REFERENCES_KEPT:
                self._known.pop(next(iter(self._known)))
            try:
                self._known[name] = self.scorer.encode([name])[0]
            except ImageError as error:
                self._known[name] = str(error)
        return self._known[name]

    def _agreement(self, row: dict[str, Any], image: Any) -> str:
        if row.get("control") is None:
            return ""
        try:
            control = open_image(str(row["control"]), self.scorer.encoder.opening).image
        except ImageError as error:
            return f"the control map cannot be read: {error}"
        own = open_image(image, self.scorer.encoder.opening).image
        row["edge_agreement"] = rounded(edge_agreement(own, control))
        return "" if row["edge_agreement"] is not None else "the image or its control map has no edges"


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
