"""``mst-clipiqa convert``: the authors' checkpoint in, a model folder out."""

from __future__ import annotations

from pathlib import Path

import click

from mst_clipiqa.cli.commands._types import FILE, FOLDER
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.data import RATED_TARGETS
from mst_clipiqa.errors import UsageError, nearest, shown


@click.command("convert", cls=SectionedCommand)
@click.argument("checkpoint", type=FILE)
@click.option("-o", "--output", type=FOLDER, required=True, help="Model folder to write.")
@click.option(
    "--encoders", default="openai", show_default=True, help="Encoders it was trained on: openai or COARSE,FINE."
)
@click.option("--target", default="quality", show_default=True, help="Score that it was trained to predict.")
def command(checkpoint: Path, output: Path, encoders: str, target: str) -> None:
    """Convert a checkpoint of the published training script (.pth) to a model folder.

    Only the trained weights are kept. The frozen encoders in the file are compared with the given ones and left out.
    """
    from mst_clipiqa.encoders import load_encoders
    from mst_clipiqa.encoders.clip import CLIPPair
    from mst_clipiqa.model_folder import save_model
    from mst_clipiqa.scoring.saving import check_model_output
    from mst_clipiqa.train.card import card
    from mst_clipiqa.train.convert import convert

    if not checkpoint.is_file():  # before encoders are downloaded
        raise UsageError(f"Expected a checkpoint file, found none at {shown(checkpoint)}: check the path.")
    if target not in RATED_TARGETS:
        raise UsageError(
            f"Expected --target to be one of {', '.join(RATED_TARGETS)}, got "
            f"{shown(target)}{nearest(target, RATED_TARGETS)}."
        )
    check_model_output(output)
    pair = load_encoders(encoders, "cpu", "fp32")
    if not isinstance(pair, CLIPPair):
        raise UsageError(f"Expected a pair of CLIP models, got {encoders!r}: use openai or COARSE,FINE.")
    model = convert(checkpoint, pair, output.resolve().name, target)
    protocol = "not known: converted from a checkpoint of the published training script"
    save_model(model, output, card(model.config, protocol, {}))
    click.echo(f"Saved in {output}: {target} with the {model.config.targets[target].head} head.")
