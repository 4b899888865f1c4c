"""``mst-clipiqa export``: export the image encoders of a model to ONNX Runtime."""

from __future__ import annotations

from pathlib import Path

import click

from mst_clipiqa.cli.commands._types import FOLDER
from mst_clipiqa.cli.sections import SectionedCommand
from mst_clipiqa.errors import UsageError
from mst_clipiqa.inputs.expand import expand


@click.command("export", cls=SectionedCommand)
@click.argument("model")
@click.option("--int8", is_flag=True, help="Multiply matrices in 8 bits, and print how much scores change.")
@click.option("--check", type=FOLDER, help="Folder of images to compare with torch on, instead of synthetic ones.")
@click.option("--encoders", help="Path or hub id of the encoders, if they have moved.")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder to write.")
def command(model: str, int8: bool, check: Path | None, encoders: str | None, output: Path) -> None:
    """Export the image encoders of MODEL (a model folder, a hub id, or zero-shot:ENCODERS) to ONNX Runtime.

    Use them with mst-clipiqa score --backend FOLDER; text encoder and heads stay in torch. The export is compared with
    torch in fp32 on images, and kept only if they agree within a tolerance. With --int8 it is always kept, and the
    difference is reported. Encoders of the families clip, metaclip_2, altclip and chinese_clip can be exported; mini
    and other families cannot. Needs the extra "onnx".
    """
    from mst_clipiqa.scoring.onnx_export import export

    items = expand([str(check)]) if check else ()
    images = [item.path for item in items if item.path is not None and not item.problem]
    if check and not images:
        raise UsageError(f"Expected images in {check}, got none: name another folder.")
    found = export(model, output, int8=int8, images=images, encoders=encoders)
    click.echo(f"Saved in {output}. Compared with torch in fp32 on {found.images} images:")
    click.echo(f"features: largest difference {found.features:.2g}, relative to the largest feature")
    for name, gap in found.scores.items():
        order = found.srcc[name]
        click.echo(f"{name}: largest difference {gap:.2g}" + ("" if order is None else f", SRCC {order:.4f}"))
