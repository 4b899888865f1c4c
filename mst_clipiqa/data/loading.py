"""A set's name and a folder -> a rated set with its labels, ranges and images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from mst_clipiqa.data import aigciqa2023, plain
from mst_clipiqa.data.label_files import find_labels, read_rows
from mst_clipiqa.data.ratings import Labels, Rating, merge, native_ranges, rating, to_record
from mst_clipiqa.data.record import ImageFile, Range, RatedSet, Record
from mst_clipiqa.data.sets import OWN_FORMATS, SETS, SetInfo, set_name
from mst_clipiqa.data.stored_sets import STORED_FORMATS
from mst_clipiqa.errors import DataError, UsageError, are, counted, shown
from mst_clipiqa.tables.spelling import on_disk


@dataclass(frozen=True)
class LikelyScales:
    """Scales that a set of your own may have, for a guess.

    Attributes:
        ranges: target -> (low, high) of a model that the set is compared with.
        flag: what the user gives the right scale with, for notes and errors.
    """

    ranges: Mapping[str, Range] = field(default_factory=dict)
    flag: str = "--range"


def load_rated_set(
    name: str,
    root: str | Path,
    *,
    allow_missing: bool = False,
    images: bool = True,
    score_range: Range | None = None,
    likely: LikelyScales | None = None,
) -> RatedSet:
    """Load a rated set from one of its known layouts.

    Args:
        name: a name in ``SETS``, in any spelling ("AGIQA-3K", "agiqa3k"), or "csv", "imagefolder", "pyiqa", "parquet",
            "webdataset".
        root: the folder of the labels and images; the labels may be up to two folders deeper. For a set of your own
            also the label file itself, except for "imagefolder".
        allow_missing: leave out images that do not exist; ``missing`` then lists them.
        images: if False, only the labels are read.
        score_range: low and high end of the native scale of all scores, for a set of your own; guessed for each score
            if not given.
        likely: the scales of a model that the set is compared with; a guess takes one if it holds all scores and no
            narrower common scale does.

    Returns:
        The records with their scores in native units.

    Raises:
        UsageError: there is no such set, the range is not one, or it was given for a set whose range is known.
        DataError: labels or images are missing, wrong or contradictory.

    Example:
        >>> load_rated_set("agiqa-3k", "AGIQA-3K").ranges  # doctest: +SKIP
        {'quality': (0.0, 5.0), 'correspondence': (0.0, 5.0)}
    """
    key, folder, likely = set_name(name), Path(root), likely or LikelyScales()
    _check(key, folder, score_range, likely.flag)
    info = SETS[key]
    labels = _read(key, folder)
    ratings, more = merge(labels.ratings, info)
    if not ratings:
        columns = ", ".join(names[0] for names in info.targets.values())
        raise DataError(
            f"Expected the scores of {info.title} in {shown(folder)} (columns {columns}), got label files without "
            "them: check the folder."
        )
    ranges = _ranges(ratings, info, score_range, likely.ranges)
    base = folder.parent if folder.is_file() else folder
    rated = RatedSet(
        name=key,
        root=base,
        records=tuple(_record(r, key, info, base, labels) for r in ratings),
        ranges=ranges,
        notes=(*labels.notes, *more, *_guessed(key, ranges, score_range, likely), *_warnings(ratings, ranges)),
        citation=info.citation,
        licence=info.licence,
        labels=tuple(labels.files),
    )
    return with_images(rated, allow_missing=allow_missing) if images else rated


def _check(key: str, folder: Path, score_range: Range | None, flag: str) -> None:
    """Check the arguments of ``load_rated_set``, which lists the errors."""
    if score_range is not None and key not in OWN_FORMATS:
        raise UsageError(f"Expected no score range for {key}, whose range is known, got {score_range}: leave it out.")
    if score_range is not None:
        _check_range(*score_range, flag)
    is_own_file = key in OWN_FORMATS and key != "imagefolder" and folder.is_file()
    if not folder.is_dir() and not is_own_file:
        raise DataError(
            f"Expected the folder of {key}, found no folder {shown(folder)}: give the folder that holds the set."
        )


def _check_range(low: float, high: float, flag: str) -> None:
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise UsageError(
            f"Expected two finite numbers as the rating scale ({flag}), the lower one first, got {low:g} and "
            f"{high:g}: correct them."
        )


def _record(r: Rating, key: str, info: SetInfo, root: Path, labels: Labels) -> Record:
    record = to_record(r, key, info, root)
    return replace(record, file=labels.images[r.name]) if labels.images else record


def _read(key: str, root: Path) -> Labels:
    if key == "aigciqa2023":
        return aigciqa2023.read(root)
    if key in OWN_FORMATS:
        return plain.read(key, root)
    return _from_table(SETS[key], root)


def _from_table(info: SetInfo, root: Path) -> Labels:
    """Read the label files that the table names."""
    found = find_labels(root, [file.pattern for file in info.files])
    files = [(file, path) for file in info.files for path in found.get(file.pattern, [])]
    if not files:
        decoys = find_labels(root, list(info.decoys))
        why = "".join(f" ({name} cannot be used: {info.decoys[name]})" for name in decoys)
        wanted = " or ".join(file.pattern for file in info.files)
        raise DataError(
            f"Expected the labels of {info.title} ({wanted}) in {shown(root)}, got none{why}: download them."
        )
    labels, left_out = Labels(), 0
    for file, path in files[:1] if info.alternatives else files:
        labels.files.append(path)
        for row in read_rows(path, file.positions):
            if row.get(("image_prompt",)):  # generated from an image: the other half of PKU-AIGIQA-4K
                left_out += 1
            else:
                labels.ratings.append(rating(row, info, file.split))
    if left_out:
        labels.notes.append(f"left out: {counted(left_out, 'image')} generated from an image, not from text")
    return labels


def _ranges(
    ratings: Sequence[Rating], info: SetInfo, score_range: Range | None, likely: Mapping[str, Range]
) -> dict[str, Range]:
    """Return the scale of each target: known, given, or guessed."""
    if info.scales or score_range is not None:
        return native_ranges(ratings, info if score_range is None else replace(info, scales=(score_range,)))
    return _guessed_ranges(ratings, info, likely)


def _guessed_ranges(ratings: Sequence[Rating], info: SetInfo, likely: Mapping[str, Range]) -> dict[str, Range]:
    """Return the narrowest common or likely scale that fits the scores of each target of a set of your own."""
    values = {target: [r.targets[target] for r in ratings if target in r.targets] for target in info.targets}
    return {target: plain.guess_range(scores, likely.get(target)) for target, scores in values.items() if scores}


def _guessed(key: str, ranges: dict[str, Range], score_range: Range | None, likely: LikelyScales) -> list[str]:
    """Return the sentence that says which scales are guessed, and from what; none if they are known."""
    if score_range is not None or key not in OWN_FORMATS:
        return []
    scales = {target: f"{low:g}..{high:g}" for target, (low, high) in ranges.items()}
    one = f"the scale {next(iter(scales.values()))} is"
    each = f"the scales {' and '.join(f'{scale} of {target}' for target, scale in scales.items())} are"
    said = one if len(set(scales.values())) == 1 else each
    origin = "the scores and the model" if likely.ranges else "the scores"
    return [f"{said} guessed from {origin}; give the right one with {likely.flag} if it differs"]


def _warnings(ratings: Sequence[Rating], ranges: dict[str, Range]) -> list[str]:
    """Return one sentence for each thing that the labels leave open."""
    notes = []
    counts = {target: sum(target in r.targets for r in ratings) for target in ranges}
    if min(counts.values()) < len(ratings):
        each = ", ".join(f"{count:,} with a rating of {target}" for target, count in counts.items())
        notes.append(f"{counted(len(ratings), 'image')}: {each}")
    without = sum(r.prompt is None for r in ratings)
    if without:
        notes.append(f"no prompt for {counted(without, 'image')}, so it is unknown which images share one")
    return notes


def with_images(rated: RatedSet, *, allow_missing: bool = False) -> RatedSet:
    """Find the image of every record of a set of which only the labels were read.

    Raises:
        DataError: images are missing and ``allow_missing`` is false, or there are none at all.
    """
    files = find_images(rated)
    missing = tuple(record.name for record in rated.records if record.name not in files)
    if missing and (not allow_missing or len(missing) == len(rated)):
        more = "" if len(missing) == len(rated) else ", or allow missing images (--allow-missing)"
        raise DataError(
            f"Expected {counted(len(rated), 'image')} of {rated.name} in {shown(rated.root)}, but {len(missing):,} "
            f"{are(len(missing))} missing ({', '.join(missing[:5])}{', ...' if len(missing) > 5 else ''}): download "
            f"{'it' if len(missing) == 1 else 'them'}{more}."
        )
    notes = rated.notes
    if missing:
        notes += (f"missing and left out: {len(missing):,} of {counted(len(rated), 'image')}",)
    records = tuple(replace(r, file=files[r.name]) for r in rated.records if r.name in files)
    return replace(rated, records=records, missing=missing, notes=notes)


def find_images(rated: RatedSet) -> dict[str, ImageFile]:
    """Return name -> file for the images that exist.

    The layouts of a set name images differently. The layout that finds most images is used for all of them, because a
    mixture could pair a score with the wrong image.
    """
    if rated.name in STORED_FORMATS:
        return {record.name: record.file for record in rated.records}
    info = SETS[rated.name]
    folders = [base / folder for base in _bases(rated) for folder in info.folders]
    listed: dict[Path, frozenset[str]] = {}
    best: dict[str, ImageFile] = {}
    for pattern in info.images:
        paths = {r.name: path for r in rated.records if (path := _path(r, pattern)) is not None}
        if len(set(paths.values())) < len(paths):
            continue  # this pattern gives several images the same file
        found: dict[str, ImageFile] = {}
        for name, path in paths.items():
            if file := _lookup(folders, path, listed):
                found[name] = file
        if len(found) > len(best):
            best = found
    return best


def _bases(rated: RatedSet) -> list[Path]:
    """Return where to look for image folders: in the labels' folder and in those above it, up to the root."""
    bases = [base for file in rated.labels for base in file.parents if base.is_relative_to(rated.root)]
    return list(dict.fromkeys([*bases, rated.root]))


def _path(record: Record, pattern: str) -> PurePosixPath | None:
    """Return an image's relative path in one layout, or None if the layout has none for it."""
    row = aigciqa2023.row_of(record.name) if "{row}" in pattern else None
    if "{row}" in pattern and row is None:
        return None
    base = PurePosixPath(record.name).name
    return PurePosixPath(pattern.format(name=record.name, base=base, generator=record.generator, row=row))


def _lookup(folders: Sequence[Path], path: PurePosixPath, listed: dict[Path, frozenset[str]]) -> Path | None:
    """Return the first file of this path in one of the folders; each folder is listed once."""
    for folder in folders:
        file = folder / path
        if file.parent not in listed:
            names = (entry.name for entry in file.parent.iterdir()) if file.parent.is_dir() else ()
            listed[file.parent] = frozenset(names)
        if file.name in listed[file.parent]:
            return file
        if not str(path).isascii() and (other := Path(on_disk(str(file)))).is_file():
            return other
    return None
