"""Image towers that ONNX Runtime computes: a folder written by ``mst-clipiqa export`` behind a pair of encoders.

    uint8 views - normalised in torch - coarse.onnx, fine.onnx - f_c, f_f

Prompts and heads stay in torch: they are a small part of the work.
A folder holds no code. Its files must be those that its manifest names and hashes, and the manifest must name the
encoders that are in use; the runtime gets no library of operators.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mst_clipiqa.errors import ModelError, need, shown
from mst_clipiqa.model.mstfe import MSTFE, EncoderPair

Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

MANIFEST = "export.json"
FORMAT = 1
FILES = ("coarse.onnx", "fine.onnx")
_LARGEST = 2**16  # bytes of a manifest


@dataclass(frozen=True)
class Manifest:
    """``export.json``.

    Attributes:
        runtime: "onnx".
        precision: "fp32" or "int8".
        encoders: sha256 of the pair that was exported.
        files: name -> sha256.
        format: of this file.
    """

    runtime: str
    precision: str
    encoders: str
    files: dict[str, str]
    format: int = FORMAT


class RuntimeTower(nn.Module):
    """One image tower as ``MSTFE`` calls it: normalised pixels (batch, 3, S, S) to embeddings (batch, D)."""

    def __init__(self, run: Run, one_by_one: bool) -> None:
        """Take the runtime's function, and whether to give it single images."""
        super().__init__()
        self.run, self.one_by_one = run, one_by_one

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embeddings, float32."""
        # int8 takes its scale from all it is given, so an image among others would get another score than alone.
        parts = torch.split(pixels, 1) if self.one_by_one else (pixels,)
        return torch.cat([torch.from_numpy(self.run(part.contiguous().numpy())) for part in parts])


def read_manifest(folder: Path) -> Manifest:
    """Return a folder's manifest; ModelError where it is none of ours."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes() if path.stat().st_size <= _LARGEST else b""
        found = Manifest(**json.loads(raw))
        kind = (found.format, found.runtime, found.precision)
        if kind in ((FORMAT, "onnx", "fp32"), (FORMAT, "onnx", "int8")) and _names_files(found):
            return found
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise ModelError(
            f"Expected a folder that `mst-clipiqa export` wrote at {shown(folder)}, got no {MANIFEST} that can be read."
        ) from error
    raise ModelError(f"Expected {MANIFEST} of format {FORMAT} in {shown(folder)}, got another: export again.")


def _names_files(manifest: Manifest) -> bool:
    """Return whether a manifest, whose values may be anything, names a pair's files and no others."""
    encoders: object = manifest.encoders
    files: object = manifest.files
    if not isinstance(encoders, str) or not isinstance(files, dict):
        return False
    return set(files) == set(FILES) and all(isinstance(found, str) for found in files.values())


def use_exported(pair: EncoderPair, folder: Path) -> EncoderPair:
    """Let a pair's image towers be computed by the runtime of an exported folder; returns the pair.

    Args:
        pair: on the CPU in fp32; its own towers are dropped.
        folder: holds ``export.json`` and what it names.

    Raises:
        ModelError: the folder is broken, changed, or of other encoders.
        UsageError: ONNX Runtime is not installed.
    """
    manifest = read_manifest(folder)
    if manifest.encoders != pair.sha256:
        raise ModelError(
            f"Expected an export of {pair.source} (sha256 {pair.sha256[:12]}) in {shown(folder)}, "
            f"got one of {shown(manifest.encoders[:12])}: export this model."
        )
    files = {name: _checked(folder / name, digest) for name, digest in manifest.files.items()}
    mstfe: MSTFE = pair.mstfe  # type: ignore[attr-defined]  # every pair that can be exported has one
    for side in ("coarse", "fine"):
        run = _open(files[f"{side}.onnx"], folder / f"{side}.onnx")
        setattr(mstfe, f"encoder_{side}", RuntimeTower(run, manifest.precision == "int8"))
    pair.precision = f"{manifest.runtime}-{manifest.precision}"  # type: ignore[misc]  # cached features tell them apart
    return pair


def digest(data: bytes) -> str:
    """Return the hash by which a manifest names a file's content."""
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
    """Return a tower as a function; only what was hashed is read."""
    onnxruntime = need("onnxruntime", extra="onnx")
    options: Any = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        session: Any = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime has types of its own for every fault, without a common one
        raise ModelError(f"Expected a tower for ONNX Runtime in {shown(path)}, got {shown(error)}.") from error

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(["features"], {"pixels": pixels})[0]
        return found

    return run
