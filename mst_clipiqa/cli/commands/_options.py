"""Flags that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import click

from mst_clipiqa.cli.commands._types import FOLDER
from mst_clipiqa.errors import UsageError, shown
from mst_clipiqa.features.at_once import check_at_once
from mst_clipiqa.images.options import MAX_PIXELS
from mst_clipiqa.inputs.lists import is_list

_F = TypeVar("_F", bound=Callable[..., Any])
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
    click.option(
        "--workers",
        type=int,
        callback=_at_once,
        help="Threads that decode images; default: 2, or on a CUDA card one per core, up to 16.",
    ),
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
