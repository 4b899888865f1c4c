"""What is made of shared flags: how inputs are listed, a scorer, an encoder, a resampling."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.garbage import collected_later
from mst_clipiqa.features.cache_place import cache_folder
from mst_clipiqa.images.options import OpenOptions
from mst_clipiqa.inputs.list_columns import ListColumns

if TYPE_CHECKING:
    from mst_clipiqa.evaluate.resampling import Resampling
    from mst_clipiqa.features.cache import Cache
    from mst_clipiqa.features.image_encoder import ImageEncoder
    from mst_clipiqa.scoring.loading import ScoreOptions
    from mst_clipiqa.scoring.scorer import Scorer


def list_columns(flags: Mapping[str, Any]) -> ListColumns:
    """Return which columns hold files and prompts; ``flags`` has the values of ``list_options``."""
    return ListColumns(flags["file_column"], flags["prompt_column"])


def listing_of(flags: Mapping[str, Any]) -> dict[str, Any]:
    """Return how images are listed and where their prompts are, as ``expand`` and ``Listing`` take it."""
    asked = {name: flags[name] for name in ("recursive", "prompt", "prompts", "prompts_from")}
    return asked | {"columns": list_columns(flags)}


def open_cache(folder: Path | None) -> Cache | None:
    """Return the cache that a flag or the environment names, or None."""
    from mst_clipiqa.features.cache import Cache

    where = cache_folder(folder)
    return Cache(where) if where else None


def load_scorer(flags: Mapping[str, Any]) -> Scorer:
    """Return the scorer that flags describe: ``model``, and those fields of ``ScoreOptions`` that are among them."""
    with collected_later():
        from mst_clipiqa.scoring.scorer import Scorer

        cache = open_cache(flags["cache"]) if "cache" in flags else None
        scorer = Scorer.load(flags["model"], score_options(flags, cache))
    if caution := scorer.model.config.caution:
        click.echo(f"Note: {caution}", err=True)
    return scorer


def score_options(flags: Mapping[str, Any], cache: Cache | None = None) -> ScoreOptions:
    """Return a cache and the other fields of ``ScoreOptions`` that are among flags; of all frames, each is an image."""
    import dataclasses

    from mst_clipiqa.scoring.loading import ScoreOptions

    named = {field.name for field in dataclasses.fields(ScoreOptions)} & flags.keys() - {"cache"}
    values = {name: flags[name] for name in named}
    if values.get("frame") == "all":
        values["frame"] = "first"
    return ScoreOptions(**values, cache=cache)


def image_encoder(encoders: str, flags: dict[str, Any]) -> ImageEncoder:
    """Return an encoder for a pair by name; ``flags`` holds ``text_encoder`` and the values of ``encoding_options``."""
    from mst_clipiqa.encoders import load_encoders, with_text_encoder
    from mst_clipiqa.features.image_encoder import ImageEncoder

    named = with_text_encoder(encoders, flags["text_encoder"])
    pair = load_encoders(named, flags["device"], flags["precision"], flags["merge"])
    opening = OpenOptions(flags["max_pixels"], color=flags["color"])
    cache = open_cache(flags["cache"])
    return ImageEncoder(pair, batch_size=flags["batch_size"], workers=flags["workers"], cache=cache, opening=opening)


def resampling_of(flags: Mapping[str, Any]) -> Resampling:
    """Return how the intervals of a comparison are made; ``flags`` has the values of ``resampling_options``."""
    from mst_clipiqa.evaluate.resampling import Resampling

    return Resampling(flags["level"] / 100, resamples=2000, seed=flags["seed"])
