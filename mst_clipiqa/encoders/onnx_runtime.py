"""A pair whose image encoders ONNX Runtime computes, from a folder that ``mst-clipiqa export`` wrote.

    uint8 views - normalised in torch - coarse.onnx, fine.onnx - f_c, f_f

Prompts and heads stay in torch: they are a small part of the work.
The folder holds no code. Its files must have the hashes in its manifest, and the manifest must name the encoders in
use; no library of custom operators is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from mst_clipiqa.encoders.checks import expecting
from mst_clipiqa.encoders.clip import CHUNK, CLIPPair
from mst_clipiqa.encoders.pair import Chunking, EncoderPair
from mst_clipiqa.errors import ModelError, need, shown
from mst_clipiqa.model.mstfe import MSTFE, Stream
from mst_clipiqa.model.shapes import CropBatch, Embeddings, Pixels, ViewBatch

Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

MANIFEST = "export.json"
EXPORT_FORMAT = 1
FILES: dict[Stream, str] = {"coarse": "coarse.onnx", "fine": "fine.onnx"}
_MAX_MANIFEST = 2**16  # bytes


@dataclass(frozen=True)
class Manifest:
    """The contents of ``export.json``.

    Attributes:
        runtime: always "onnx".
        precision: "fp32" or "int8".
        encoders: SHA-256 of the exported pair.
        files: file name -> SHA-256.
        format: version of this file's layout.
    """

    runtime: str
    precision: str
    encoders: str
    files: dict[str, str]
    format: int = EXPORT_FORMAT


class RuntimeTower(nn.Module):
    """One image encoder as ``MSTFE`` calls it: normalised pixels (batch, 3, S, S) to embeddings (batch, D)."""

    def __init__(self, run: Run, one_by_one: bool) -> None:
        """Take the runtime's function, and whether to call it with one image at a time."""
        super().__init__()
        self.run, self.one_by_one = run, one_by_one

    def forward(self, pixels: Pixels) -> Embeddings:
        """Return the embeddings, float32."""
        # int8 takes its scale from the whole input, so an image's score would depend on its batch.
        parts = torch.split(pixels, 1) if self.one_by_one else (pixels,)
        return torch.cat([torch.from_numpy(self.run(part.contiguous().numpy())) for part in parts])


def read_manifest(folder: Path) -> Manifest:
    """Return a folder's manifest; ModelError if ``mst-clipiqa export`` did not write it."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes() if path.stat().st_size <= _MAX_MANIFEST else b""
        found = Manifest(**json.loads(raw))
        kind = (found.format, found.runtime, found.precision)
        if kind in ((EXPORT_FORMAT, "onnx", "fp32"), (EXPORT_FORMAT, "onnx", "int8")) and _names_files(found):
            return found
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"Expected a folder that `mst-clipiqa export` wrote at {shown(folder)}, got no {MANIFEST} that can be read."
        ) from error
    raise ModelError(f"Expected {MANIFEST} of format {EXPORT_FORMAT} in {shown(folder)}, got another: export again.")


def _names_files(manifest: Manifest) -> bool:
    """Return whether a manifest, whose values may be of any type, names a pair's files and no others."""
    encoders: object = manifest.encoders
    files: object = manifest.files
    if not isinstance(encoders, str) or not isinstance(files, dict):
        return False
    return set(files) == set(FILES.values()) and all(isinstance(found, str) for found in files.values())


class ONNXPair:
    """A CLIP pair whose image encoders ONNX Runtime computes, as an ``EncoderPair`` on the CPU."""

    def __init__(self, pair: CLIPPair, towers: Mapping[Stream, Run], precision: str) -> None:
        """Take a CLIP pair's view and text side; ``open_exported`` opens the towers.

        Args:
            pair: on the CPU; its own image encoders are not kept.
            towers: the function of each exported image encoder.
            precision: "fp32" or "int8".
        """
        one_by_one = precision == "int8"
        coarse, fine = (RuntimeTower(towers[stream], one_by_one) for stream in FILES)
        self.mstfe = MSTFE(coarse, fine, pair.view)
        self.view, self.dim, self.dim_fine, self.text_dim = pair.view, pair.dim, pair.dim_fine, pair.text_dim
        self.start_tokens, self.language = pair.start_tokens, pair.language
        self.source, self.sha256 = pair.source, pair.sha256
        self.device = torch.device("cpu")
        self.precision = f"onnx-{precision}"  # part of every cache key
        self.chunking = Chunking(CHUNK, False, 1)  # the runtime has threads of its own
        self.encode_prompts, self.prompts_at_once = pair.encode_prompts, pair.prompts_at_once
        self.encode_templates = pair.encode_templates

    def encode_chunk(self, stream: Stream, views: ViewBatch | CropBatch) -> Embeddings:
        """Return f_c or f_f, float32 (n, D), of uint8 views (n, 3, S, S) or (n, 1, 3, C, C)."""
        features: Embeddings = self.mstfe(stream, views)
        return features


def open_exported(pair: EncoderPair, folder: Path) -> ONNXPair:
    """Return a CLIP pair with the image encoders of an exported folder.

    Args:
        pair: the pair that was exported, on the CPU.
        folder: holds ``export.json`` and the files that it names.

    Raises:
        ModelError: the folder is broken, changed, or of other encoders.
        UsageError: ONNX Runtime is not installed.
    """
    manifest = read_manifest(folder)
    if manifest.encoders != pair.sha256 or not isinstance(pair, CLIPPair):  # only CLIP pairs are exported
        raise ModelError(
            f"Expected an export of {pair.source} (sha256 {pair.sha256[:12]}) in {shown(folder)}, "
            f"got one of {shown(manifest.encoders[:12])}: export this model."
        )
    files = {name: _checked(folder / name, digest) for name, digest in manifest.files.items()}
    towers = {stream: _open(files[name], folder / name) for stream, name in FILES.items()}
    return ONNXPair(pair, towers, manifest.precision)


def digest(data: bytes) -> str:
    """Return the hash of a file's content as the manifest has it."""
    return hashlib.sha256(data).hexdigest()


def _checked(path: Path, want: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(
            f"Expected {shown(path)}, which {MANIFEST} names, got {error.strerror}: export again."
        ) from error
    if digest(data) != want:
        raise ModelError(f"Expected {shown(path)} as it was exported, got a changed file: export again.")
    return data


def _open(model: bytes, path: Path) -> Run:
    """Return an image encoder as a function; ``model`` are the bytes that were hashed, ``path`` is for messages."""
    onnxruntime = need("onnxruntime", extra="onnx")
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    with expecting(f"a tower for ONNX Runtime in {shown(path)}", "export again"):
        session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(["features"], {"pixels": pixels})[0]
        return found

    return run
