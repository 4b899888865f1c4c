"""``mst-clipiqa cache``: what is kept of images that were encoded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mst_clipiqa.cli.commands._options import stack
from mst_clipiqa.cli.commands._types import FOLDER
from mst_clipiqa.errors import UsageError, counted
from mst_clipiqa.features.cache_place import CACHE_FILE, CACHE_VARIABLE, cache_folder

if TYPE_CHECKING:
    from mst_clipiqa.features.cache import Cache

_cache_option = stack(
    click.argument("folder", required=False, type=FOLDER),
    click.option("--cache", type=FOLDER, help="Names FOLDER as other commands do; default: MST_CLIPIQA_CACHE."),
)


@click.group("cache")
def command() -> None:
    """Show, check or empty the feature cache."""


@command.command("info")
@_cache_option
@click.option("--json", "as_json", is_flag=True, help="Write JSON instead of text.")
def info(folder: Path | None, cache: Path | None, as_json: bool) -> None:
    """Show what the cache in FOLDER holds, one line per encoder pair."""
    with _opened(folder or cache) as kept:
        rows = [
            {**json.loads(space.description), "images": space.images, "prompts": space.prompts} for space in kept.info()
        ]
        size = kept.path.stat().st_size
    if as_json:
        click.echo(json.dumps({"file": str(kept.path), "bytes": size, "spaces": rows}, indent=1))
        return
    click.echo(f"{kept.path}: {size / 1e6:.1f} MB")
    for row in rows:
        click.echo(f"  {row['source']} ({row['precision']}): {row['images']} images, {row['prompts']} prompts")


@command.command("verify")
@_cache_option
def verify(folder: Path | None, cache: Path | None) -> int:
    """Check every row of the cache in FOLDER and drop damaged ones. Exit code 1 means that there were some."""
    with _opened(folder or cache) as kept:
        seen, bad = kept.verify()
    click.echo(f"{counted(seen, 'row')} checked, {bad} damaged" + (" and dropped." if bad else "."))
    return 1 if bad else 0


@command.command("clear")
@_cache_option
def clear(folder: Path | None, cache: Path | None) -> None:
    """Remove everything from the cache in FOLDER."""
    with _opened(folder or cache) as kept:
        click.echo(f"{kept.clear()} rows dropped.")


def _opened(folder: Path | None) -> Cache:
    from mst_clipiqa.features.cache import Cache

    where = cache_folder(folder)
    if where is None:
        raise UsageError(f"Expected a cache folder, got none: name it, or set {CACHE_VARIABLE}.")
    if not (where / CACHE_FILE).is_file():
        raise UsageError(f"Expected a cache in {where}, found no {CACHE_FILE} there: check the folder.")
    return Cache(where)
