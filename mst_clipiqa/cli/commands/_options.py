"""Flags that several commands share, and what is made of them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from mst_clipiqa.cli.garbage import collected_later
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.features.at_once import check_at_once
from mst_clipiqa.features.cache_place import cache_folder
from mst_clipiqa.images.options import MAX_PIXELS, OpenOptions
from mst_clipiqa.inputs.lists import ListColumns, is_list

if TYPE_CHECKING:
    from mst_clipiqa.features.cache import Cache
    from mst_clipiqa.features.image_encoder import ImageEncoder
    from mst_clipiqa.scoring.loading import ScoreOptions
    from mst_clipiqa.scoring.scorer import Scorer

_F = TypeVar("_F", bound=Callable[..., Any])


class _NamedPath(click.Path):
    """A path with a name: a variable that is not set gives an empty one, which Path takes for the folder here."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if value == "":
            self.fail("expected a name, got an empty one: is a variable not set?", param, ctx)
        return super().convert(value, param, ctx)


class NumberRange(click.FloatRange):
    """A number within limits; click's own type lets nan through, as every comparison with it is false."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        found = super().convert(value, param, ctx)
        if math.isnan(found):
            self.fail(f"{value} is not a number.", param, ctx)
        return found

    def _describe_range(self) -> str:  # click says x<=None of a range without ends
        return "" if self.min is None and self.max is None else super()._describe_range()


FOLDER = _NamedPath(path_type=Path, file_okay=False)
FILE = _NamedPath(path_type=Path, dir_okay=False)
FILE_OR_FOLDER = _NamedPath(path_type=Path)
PLACE = _NamedPath()  # as written: it may be a URL
FAILED_GATE = 3
"""Exit code if a condition of ``gate`` or ``drift`` does not hold, or ``adapt`` made nothing better."""


def stack(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    """Return one decorator that adds several flags, listed by ``--help`` in this order."""

    def add(function: Any) -> Any:
        for option in reversed(options):
            function = option(function)
        return function

    return add


def _pixels(_: click.Context, __: click.Parameter, megapixels: float | None) -> int:
    """Return a limit in pixels."""
    if megapixels is not None and not 0 < megapixels <= 1e6:  # nor is nan
        raise UsageError(f"Expected megapixels up to 1,000,000 for --max-megapixels, got {megapixels:g}: omit it.")
    return MAX_PIXELS if megapixels is None else int(megapixels * 1e6)


def _at_once(_: click.Context, flag: click.Parameter, value: int | None) -> int | None:
    """Return a batch size or number of workers, checked before data and encoders are loaded."""
    if value is not None:
        check_at_once(flag.opts[0], value)
    return value


def _words(_: click.Context, flag: click.Parameter, prompt: str | None) -> str | None:
    """Return a prompt; refuse one without words, and the name of a file of prompts."""
    if prompt is None:
        return None

    name = flag.opts[0]
    with suppress(UnicodeError):  # an old locale takes UTF-8 for other bytes
        prompt = os.fsencode(prompt).decode("utf-8")
    if not prompt.strip():
        raise UsageError(f"Expected words in {name}, got none: write the prompt, or omit the flag.")
    if is_list(prompt) and Path(prompt).is_file():
        instead = "--prompts for a file of prompts" if name == "--prompt" else "--negative-from for a column of a list"
        raise UsageError(f"Expected words in {name}, got the name of a file, {shown(prompt)}: use {instead}.")
    return prompt


def prompt_option(name: str, what: str) -> Callable[[_F], _F]:
    """Return a flag for a prompt in words; ``what`` is its help."""
    return click.option(name, help=what, callback=_words)


color_option = click.option(
    "--color", default="srgb", show_default=True, help="Colours: srgb (converted by the file's profile) or as-stored."
)
size_option = click.option(
    "--max-megapixels",
    "max_pixels",
    type=float,
    callback=_pixels,
    help="Largest image in megapixels; default: 179.",
)


list_options = stack(
    click.option(
        "--file-column", help="Column of file names in a list or in --prompts; default: file, file_name and the like."
    ),
    click.option(
        "--prompt-column", help="Column of prompts in a list or in --prompts; default: prompt, text or caption."
    ),
)
prompts_from_option = click.option(
    "--prompts-from",
    type=click.Choice(["metadata", "sidecar", "name", "folder"]),
    help="Read prompts from each image's metadata, the text file beside it, its name, or the name of its folder.",
)
frames_option = click.option(
    "--frames",
    "frame",
    type=click.Choice(["first", "middle", "all"]),
    default="first",
    show_default=True,
    help="Frame of animated images to score; all writes one row per frame.",
)


device_options = stack(
    click.option("--device", default="auto", show_default=True, help="Device: auto, cpu, cuda or mps."),
    click.option(
        "--precision", default="auto", show_default=True, help="Precision: auto, fp32, bf16, fp16 or, on a CPU, int8."
    ),
)
merge_option = click.option(
    "--merge",
    type=click.IntRange(0),
    default=0,
    metavar="R",
    help="Merge R tokens per block of CLIP's image encoders: faster, and scores change; default: none.",
)
batch_options = stack(
    click.option(
        "--batch-size",
        type=int,
        callback=_at_once,
        help="Images per batch; default: 32, or 128 for CLIP on a CUDA card.",
    ),
    click.option("--workers", default=2, show_default=True, callback=_at_once, help="Threads that decode images."),
)
_reading_options = stack(
    batch_options,
    click.option("--cache", type=FOLDER, help="Folder to cache features in; also set by MST_CLIPIQA_CACHE."),
    color_option,
)
service_options = stack(device_options, merge_option, _reading_options)
granularity_option = click.option(
    "--granularity",
    default="fine",
    show_default=True,
    metavar="WHAT",
    help="How much of each image to encode: fine (all), native:K or coarse (less), or auto[:TOL], which chooses so "
    "that few scores change by more than TOL of their scale, in batches of 64 by default.",
)
encoding_options = stack(service_options, size_option)  # a service has limits of its own
whole_encoding_options = stack(device_options, _reading_options, size_option)  # where tokens cannot be merged
text_encoder_option = click.option(
    "--text-encoder",
    help="Another text encoder for these image encoders, such as a multilingual one: folder or hub id.",
)
trained_encoders_options = stack(
    click.option(
        "--encoders",
        default="mini",
        show_default=True,
        help="Encoders: mini, openai, siglip2, metaclip2 or COARSE,FINE.",
    ),
    text_encoder_option,
)
model_options = stack(
    click.option(
        "--model",
        default="mini",
        show_default=True,
        help="Model: mini, a folder, ORG/NAME[@REVISION] of the hub, or zero-shot:ENCODERS.",
    ),
    click.option("--encoders", help="Path or hub id of the encoders, if they have moved."),
    text_encoder_option,
)


range_option = click.option(
    "--range",
    "score_range",
    type=(float, float),
    metavar="LOW HIGH",
    help="Lowest and highest value of your rating scale, such as 1 5.",
)


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
