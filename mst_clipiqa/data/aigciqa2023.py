"""AIGCIQA2023, which is published in parts: scores as .mat in row order, names and prompts as spreadsheets.

The common csv copy (``all_set.csv``) has everything in one file, with the scores divided by 20. A row of the
.mat files is an image, number model index * 400 + prompt * 4 + copy - 1. ``pic-index.xlsx`` has the same order, and
the images in the flat folder ``Image/allimg`` are named by this number.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from mst_clipiqa.data.label_files import find_labels, read_column_of_mat, read_rows
from mst_clipiqa.data.ratings import Labels, Rating, number, plain_prompt
from mst_clipiqa.data.sets import AIGCIQA2023 as INFO
from mst_clipiqa.errors import DataError, counted, shown

MODELS = ("Controlnet", "DALLE", "Glide", "Lafite", "stable-diffusion", "Unidiffuser")
PROMPTS, COPIES = 100, 4
MATS = {"quality": "1", "authenticity": "2", "correspondence": "3"}
PROMPT_FILES = ("AIGCIQA2023_Prompts.xlsx", "prompts.xlsx", "prompt.xlsx")
GLUED_FILE = "merged_output_aigciqa2023.csv"  # names and prompts from another public copy, in .mat order


def read(root: Path) -> Labels:
    """Read the csv copy if there is one, else the official files.

    Raises:
        DataError: there are no labels, or the files do not fit together.
    """
    labels, prompts = Labels(), _prompts(root)
    if not prompts:
        labels.notes.append(f"{PROMPT_FILES[0]} was not found, so the styles are unknown")
    if table := _find(root, "all_set.csv"):
        labels.files.append(table)
        labels.ratings = _from_csv(table, prompts)
    else:
        labels.ratings = _from_mat(root, prompts, labels.files)
    return labels


def _find(root: Path, *names: str) -> Path | None:
    """Return the first of these files that exists."""
    for name in names:
        for files in find_labels(root, (name,)).values():
            return files[0]
    return None


def _from_csv(path: Path, prompts: dict[str, tuple[str, str]]) -> list[Rating]:
    ratings = []
    for row in read_rows(path, ("model", "image_name", "mosz1", "mosz2", "mosz3", "prompt")):
        model, base = row.get(("model",)), row.get(INFO.file_column)
        if not model or not base:
            raise DataError(
                f"Expected a model and an image_name in {row.where}, got {model!r} and {base!r}: correct it."
            )
        name = f"{model}/{base}"  # image_name alone occurs once per model
        ratings.append(
            Rating(
                name=name,
                where=row.where,
                targets={target: number(row, columns, name) for target, columns in INFO.targets.items()},
                prompt=plain_prompt(row.get(INFO.prompt_column)),
                style=prompts.get(base[:3], ("", ""))[0],
            )
        )
    return ratings


def _from_mat(root: Path, prompts: dict[str, tuple[str, str]], files: list[Path]) -> list[Rating]:
    columns = _mat_columns(root, "MOS", files)
    deviations = _mat_columns(root, "STD", files)
    if set(columns) != set(MATS):
        raise DataError(
            f"Expected all_set.csv or DATA/MOS/mosz1.mat, mosz2.mat and mosz3.mat in {shown(root)}, "
            f"got {len(columns)} of the three .mat files: download the label files or give their folder as the root."
        )
    names, glued = _names(root, len(columns["quality"]))
    for label, column in [*columns.items(), *deviations.items()]:
        if len(column) != len(names):
            raise DataError(
                f"Expected {counted(len(names), 'row')} in the .mat file of {label}, got {len(column)}: download it "
                "again."
            )
    ratings = []
    for row, name in enumerate(names):
        style, prompt = prompts.get(name.rsplit("/", 1)[-1][:3], ("", glued.get(name, "")))
        ratings.append(
            Rating(
                name=name,
                where=f"mosz1..3.mat row {row + 1}",
                targets=_finite({target: column[row] for target, column in columns.items()}, name, row),
                prompt=plain_prompt(prompt),
                deviations={t: column[row] for t, column in deviations.items() if math.isfinite(column[row])},
                style=style,
            )
        )
    return ratings


def _finite(targets: dict[str, float], name: str, row: int) -> dict[str, float]:
    for target, value in targets.items():
        if not math.isfinite(value):
            raise DataError(
                f"Expected a number in row {row + 1} of mosz{MATS[target]}.mat ({name}), got {value}: "
                "download it again."
            )
    return targets


def _mat_columns(root: Path, folder: str, files: list[Path]) -> dict[str, list[float]]:
    """Read the .mat files of one kind, "MOS" or "STD": target -> column; and append them to the files read."""
    stem, variable = {"MOS": ("mosz", "MOSz"), "STD": ("SD", "SD")}[folder]
    columns = {}
    for target, digit in MATS.items():
        path = _find(root, f"DATA/{folder}/{stem}{digit}.mat", f"{stem}{digit}.mat")
        if path is not None:
            columns[target] = read_column_of_mat(path, variable)
            files.append(path)
    return columns


def _names(root: Path, rows: int) -> tuple[list[str], dict[str, str]]:
    """Return the image of every .mat row, and the prompts if the file with the names has them."""
    if index := _find(root, "pic-index.xlsx"):
        lines = read_rows(index, ("model", "image_name"))
        return [f"{line.cells['model']}/{line.cells['image_name']}" for line in lines], {}
    if glued := _find(root, GLUED_FILE):
        lines = read_rows(glued, ("name", "prompt"))
        names = [(line.get(("name",)) or "").replace("\\", "/") for line in lines]
        texts = [line.get(("prompt",)) or "" for line in lines]
        if all(text.count(".") >= 2 for text in texts):  # the category is glued on: "a corgi.Animals.Basic"
            texts = [text.rsplit(".", 2)[0] for text in texts]
        return names, dict(zip(names, texts, strict=True))
    if rows != len(MODELS) * PROMPTS * COPIES:
        raise DataError(
            f"Expected pic-index.xlsx beside .mat files of {rows} rows, as they are not the whole set "
            f"({len(MODELS) * PROMPTS * COPIES}), got none: put it into {shown(root)}."
        )
    copies = range(1, COPIES + 1)
    return [f"{model}/{p:03d}-{k}.png" for model in MODELS for p in range(PROMPTS) for k in copies], {}


def _prompts(root: Path) -> dict[str, tuple[str, str]]:
    """Read the prompts' spreadsheet: id -> (style, prompt). The official copy has no header row."""
    path = _find(root, *PROMPT_FILES)
    if path is None:
        return {}
    lines = read_rows(path, ("style", "object", "prompt"), header="prompt")
    return {f"{i:03d}": (line.cells["style"], line.cells["prompt"]) for i, line in enumerate(lines)}


def row_of(name: str) -> int | None:
    """Return the number that names an image in the flat folder, or None if its model is not in the set.

    >>> row_of("DALLE/002-3.png")
    410
    """
    match = re.fullmatch(r"(.+)/(\d+)-(\d)\.\w+", name)
    if match is None or match[1] not in MODELS:
        return None
    return MODELS.index(match[1]) * PROMPTS * COPIES + int(match[2]) * COPIES + int(match[3]) - 1
