"""Flags of ``score`` for what was asked of the generator beside the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mst_clipiqa.cli.commands._options import prompt_option, stack
from mst_clipiqa.inputs.expand import Inputs

if TYPE_CHECKING:
    from mst_clipiqa.scoring.controls import Controls, ControlSources
    from mst_clipiqa.scoring.scorer import Scorer

CONTROL_FLAGS = ("negative", "negative_from", "reference", "control")


control_options = stack(
    prompt_option("--negative", "The negative prompt of every image; adds negative_match, where lower is better."),
    click.option("--negative-from", metavar="metadata|COLUMN", help="Read negative prompts from the images or a list."),
    click.option(
        "--reference",
        metavar="FILE|COLUMN",
        help="Add the similarity to a reference image, or to that in a column; trust reference_coarse more.",
    ),
    click.option(
        "--control", metavar="edges:FILE|COLUMN", help="Add how well edges agree with a control map of light lines."
    ),
)


def controls_of(flags: Mapping[str, Any], scorer: Scorer, items: Inputs, paths: Sequence[str]) -> Controls | None:
    """Return the controls that the flags give each image; None if they give none."""
    if (sources := sources_of(flags, paths)) is None:
        return None
    from mst_clipiqa.scoring.controls import Controls

    return Controls(scorer, sources, items.columns)


def sources_of(flags: Mapping[str, Any], paths: Sequence[str]) -> ControlSources | None:
    """Return where the flags say that controls come from; None if they ask nothing."""
    if all(flags[name] is None for name in CONTROL_FLAGS):
        return None
    from mst_clipiqa.scoring.controls import ControlSources

    named = [Path(path) for path in (*paths, flags["prompts"]) if path not in (None, "-")]
    folders = tuple(dict.fromkeys(path if path.is_dir() else path.parent for path in named))
    return ControlSources(**{name: flags[name] for name in CONTROL_FLAGS}, folders=folders)
