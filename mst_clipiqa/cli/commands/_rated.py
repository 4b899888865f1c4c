"""Flags of the commands on rated sets: which set, and how to train on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from mst_clipiqa.cli.commands._options import range_option, stack
from mst_clipiqa.cli.commands._say import say_data_notes
from mst_clipiqa.cli.commands._types import FILE_OR_FOLDER
from mst_clipiqa.data import LikelyScales, RatedSet, load_rated_set
from mst_clipiqa.data.record import Range
from mst_clipiqa.errors import UsageError, nearest
from mst_clipiqa.train.recipe import RECIPES, Recipe


def _data_options(*, required: bool) -> Callable[[Any], Any]:
    return stack(
        click.option(
            "--data",
            required=required,
            help="Published set, such as agiqa-3k; for your own: csv, imagefolder, pyiqa, parquet or webdataset.",
        ),
        click.option("--root", required=required, type=FILE_OR_FOLDER, help="Folder of labels and images."),
        range_option,
        click.option("--allow-missing", is_flag=True, help="Continue without missing images."),
    )


data_options = _data_options(required=True)
optional_data_options = _data_options(required=False)  # where pairs will do
recipe_options = stack(
    click.option("--recipe", default="fast", show_default=True, help="Recipe: fast (ours) or paper."),
    click.option(
        "--set",
        "changes",
        multiple=True,
        metavar="FIELD=VALUE",
        help="Change a field of the recipe, such as epochs=50; repeatable.",
    ),
)


def rated_set(
    data: str,
    root: Path,
    score_range: Range | None,
    allow_missing: bool,
    likely: LikelyScales | None = None,
) -> RatedSet:
    """Return a rated set, as ``load_rated_set`` does; notes of its reader go to stderr."""
    rated = load_rated_set(data, root, allow_missing=allow_missing, score_range=score_range, likely=likely)
    say_data_notes(rated.notes)
    return rated


def rated_set_of(flags: dict[str, Any], likely: LikelyScales | None = None) -> RatedSet:
    """Return the rated set that the flags of ``data_options`` name; a guess of its scales considers the likely ones."""
    return rated_set(flags["data"], flags["root"], flags["score_range"], flags["allow_missing"], likely)


def recipe_of(name: str, changes: tuple[str, ...], seed: int = 0) -> Recipe:
    """Return a recipe by name with ``FIELD=VALUE`` changes; UsageError for what it does not have."""
    import dataclasses

    if name not in RECIPES:
        raise UsageError(f"Expected the recipe fast or paper, got {name!r}{nearest(name, RECIPES)}.")
    recipe = dataclasses.replace(RECIPES[name], seed=seed)
    for change in changes:
        field, found, text = change.partition("=")
        fields = [f.name for f in dataclasses.fields(recipe) if f.name not in ("name", "seed")]
        if not found or field not in fields:
            raise UsageError(f"Expected --set FIELD=VALUE with a field of {', '.join(fields)}, got {change!r}.")
        recipe = dataclasses.replace(recipe, **{field: _value(field, text, getattr(recipe, field))})
    return recipe


def _value(field: str, text: str, like: Any) -> Any:
    """Return a flag's text as the type of the field's present value."""
    try:
        if isinstance(like, bool):
            return {"true": True, "false": False}[text.lower()]
        if isinstance(like, tuple):
            return tuple(float(part) for part in text.split(","))
        return type(like)(text)
    except (KeyError, ValueError) as error:
        example = ",".join(map(str, like)) if isinstance(like, tuple) else str(like).lower()
        raise UsageError(f"Expected a value like {example} for {field}, got {text!r}.") from error
