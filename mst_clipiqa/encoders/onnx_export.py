"""Write the image encoders of a pair for ONNX Runtime, in fp32 or with int8 weights.

This covers the families whose image tower is CLIP's: clip, metaclip_2, altclip and chinese_clip.
"""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import nn

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.onnx_runtime import FILES, MANIFEST, Manifest, digest
from mst_clipiqa.model.mstfe import Stream


def write_towers(pair: CLIPPair, folder: Path, int8: bool) -> None:
    """Write both image encoders of a pair, which is on the CPU in fp32, and the manifest."""
    streams: tuple[Stream, ...] = ("coarse", "fine")
    for stream, tower in zip(streams, pair.towers, strict=True):
        side = pair.view.of(stream).size
        pixels = torch.zeros(2, 3, side, side)
        with _quiet(), torch.no_grad():
            _write_tower(tower.eval(), pixels, folder / FILES[stream])
            if int8:
                _quantize(folder / FILES[stream])
    files = {name: digest((folder / name).read_bytes()) for name in FILES.values()}
    manifest = Manifest("onnx", "int8" if int8 else "fp32", pair.sha256, files)
    text = json.dumps(dataclasses.asdict(manifest), indent=1) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8", newline="\n")


def _write_tower(tower: nn.Module, pixels: torch.Tensor, path: Path) -> None:
    batch: Any = torch.export.Dim("batch")
    torch.onnx.export(
        tower,
        (pixels,),
        path,
        input_names=["pixels"],
        output_names=["features"],
        dynamic_shapes=({0: batch},),
        external_data=False,  # one file, and none that it could point to
        dynamo=True,
        verbose=False,
    )


def _quantize(path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(path, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporters from printing; their output does not help the user."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
