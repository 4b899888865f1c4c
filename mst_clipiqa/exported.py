"""Image towers that another runtime computes: a folder written by ``mst-clipiqa export`` behind a pair of encoders.

    uint8 views - normalised in torch - coarse.onnx, fine.onnx - f_c, f_f

ONNX Runtime computes in the precision of the export; in bf16, OpenVINO reads the same files. Prompts and heads stay in
torch: they are a small part of the work.
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

from mst_clipiqa.errors import ModelError, UsageError, shown
from mst_clipiqa.model.mstfe import MSTFE, EncoderPair
from mst_clipiqa.model.precision import CHUNK, filled

Run: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]

MANIFEST = "export.json"
FORMAT = 1
FILES = ("coarse.onnx", "fine.onnx")
_LARGEST = 2**16  # bytes of a manifest
# Pictures computed together, where rounding would depend on how many they are, or int8's scale on which ones.
_GROUPS = {"onnx-int8": 1, "openvino-bf16": CHUNK}


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

    def __init__(self, run: Run, group: int | None = None) -> None:
        """Take the runtime's function, and how many pictures to give it, always: None for any number."""
        super().__init__()
        self.run, self.group = run, group
        self.kind = nn.Parameter(torch.empty(0), requires_grad=False)  # by its type MSTFE knows what to normalise to

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the embeddings, float32."""
        size = self.group or len(pixels)
        rows = ((part, filled(part, size).contiguous().numpy()) for part in torch.split(pixels, size))
        return torch.cat([torch.from_numpy(self.run(given))[: len(part)] for part, given in rows])


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


def use_exported(pair: EncoderPair, folder: Path, precision: str = "auto") -> EncoderPair:
    """Let a pair's image towers be computed from an exported folder; returns the pair.

    Args:
        pair: on the CPU in fp32; its own towers are dropped.
        folder: holds ``export.json`` and what it names.
        precision: "auto" for the export's own, by ONNX Runtime; "bf16" for an fp32 export by OpenVINO.

    Raises:
        ModelError: the folder is broken, changed, or of other encoders.
        UsageError: the runtime is not installed, or the export has another precision.
    """
    manifest = read_manifest(folder)
    if precision not in ("auto", manifest.precision) and (precision, manifest.precision) != ("bf16", "fp32"):
        raise UsageError(
            f"Expected precision auto, {manifest.precision} or, of an fp32 export, bf16 for {shown(folder)}, "
            f"got {precision!r}: export again, or leave --precision out."
        )
    if manifest.encoders != pair.sha256:
        raise ModelError(
            f"Expected an export of {pair.source} (sha256 {pair.sha256[:12]}) in {shown(folder)}, "
            f"got one of {shown(manifest.encoders[:12])}: export this model."
        )
    files = {name: _checked(folder / name, digest) for name, digest in manifest.files.items()}
    mstfe: MSTFE = pair.mstfe  # type: ignore[attr-defined]  # every pair that can be exported has one
    opened, kind = (_openvino, "openvino-bf16") if precision == "bf16" else (_onnx, f"onnx-{manifest.precision}")
    for side in ("coarse", "fine"):
        run = opened(files[f"{side}.onnx"], folder / f"{side}.onnx")
        setattr(mstfe, f"encoder_{side}", RuntimeTower(run, _GROUPS.get(kind)))
    pair.precision = kind  # type: ignore[misc]  # cached features tell them apart
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


def _openvino(model: bytes, path: Path) -> Run:
    """Return a tower that OpenVINO computes in bf16; only what was hashed is read."""
    try:
        import openvino
    except ImportError as error:
        raise UsageError(
            "Expected the package openvino for an exported --backend in bf16, got none: "
            'pip install "mst-clipiqa[openvino]".'
        ) from error
    how = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": torch.get_num_threads()}
    core: Any = openvino.Core()
    try:
        compiled: Any = core.compile_model(core.read_model(model, b""), "CPU", how)
    except RuntimeError as error:
        raise ModelError(f"Expected a tower for OpenVINO in {shown(path)}, got {shown(error)}.") from error

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = compiled([pixels])[0].copy()  # the next call writes over it
        return found

    return run


def _onnx(model: bytes, path: Path) -> Run:
    """Return a tower that ONNX Runtime computes; only what was hashed is read."""
    try:
        import onnxruntime
    except ImportError as error:
        raise UsageError(
            'Expected the package onnxruntime for an exported --backend, got none: pip install "mst-clipiqa[onnx]".'
        ) from error
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
