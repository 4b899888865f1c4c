"""`mst-clipiqa export`: the image towers of a model for ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import click

from mst_clipiqa.cli.commands._options import FOLDER
from mst_clipiqa.errors import UsageError


@click.command("export")
@click.argument("model")
@click.option(
    "--format",
    expose_value=False,
    type=click.Choice(["onnx"]),
    default="onnx",
    show_default=True,
    help="For ONNX Runtime.",
)
@click.option("--int8", is_flag=True, help="8-bit weights for matrix products; scores change, and how much is told.")
@click.option("--check", type=FOLDER, help="Compare with torch on the images of this folder, not on drawn ones.")
@click.option("--encoders", help="Where the model's encoders are now, if they have moved.")
@click.option("-o", "--output", type=FOLDER, required=True, help="The folder to write.")
def command(model: str, int8: bool, check: Path | None, encoders: str | None, output: Path) -> None:
    """Write the image encoders of MODEL (a model folder, or zero-shot:ENCODERS) for ONNX Runtime.

    `score --backend FOLDER` then uses them; prompts and heads stay in torch. The export is compared with torch's fp32
    on images, and kept only if it is equal within a tolerance; --int8 is kept, and tells by how much it differs.
    mini has no networks to export.
    """
    from mst_clipiqa.inputs.expand import expand
    from mst_clipiqa.scoring.onnx_export import export

    items = expand([str(check)]) if check else ()
    images = [item.path for item in items if item.path is not None and not item.problem]
    if check and not images:
        raise UsageError(f"Expected images in {check}, got none: name another folder.")
    found = export(model, output, int8=int8, images=images, encoders=encoders)
    click.echo(f"Saved in {output}; on {found.images} images, beside torch's fp32:")
    click.echo(f"features: largest difference {found.features:.2g} of the largest feature")
    for name, gap in found.scores.items():
        order = found.srcc[name]
        click.echo(f"{name}: largest difference {gap:.2g}" + ("" if order is None else f", SRCC {order:.4f}"))
