"""What is read of an export without ONNX Runtime: its manifest, and how images are handed to a tower."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from mst_clipiqa.encoders.onnx_runtime import EXPORT_FORMAT, FILES, MANIFEST, RuntimeTower, read_manifest
from mst_clipiqa.errors import ModelError

GOOD: dict[str, Any] = {
    "runtime": "onnx",
    "precision": "int8",
    "encoders": "e" * 64,
    "files": dict.fromkeys(FILES.values(), "f" * 64),
    "format": EXPORT_FORMAT,
}


@pytest.mark.parametrize("one_by_one", [True, False])
def test_a_scale_of_the_whole_input_makes_no_image_depend_on_its_batch(one_by_one: bool) -> None:
    sizes = []

    def run(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return features whose scale is that of everything given, as int8 does."""
        sizes.append(len(pixels))
        return np.asarray(pixels.reshape(len(pixels), -1)[:, :4] / np.abs(pixels).max(), np.float32)

    pixels = torch.randn(3, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    tower = RuntimeTower(run, one_by_one)
    together = tower(pixels)
    assert sizes == ([1, 1, 1] if one_by_one else [3])
    alone = torch.cat([tower(pixels[i : i + 1]) for i in range(3)])
    assert torch.equal(together, alone) is one_by_one


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_a_manifest_is_read_as_it_was_written(tmp_path: Path, precision: str) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(GOOD | {"precision": precision}))
    found = read_manifest(tmp_path)
    assert (found.precision, found.encoders, found.files) == (precision, GOOD["encoders"], GOOD["files"])


@pytest.mark.parametrize(
    "change",
    [
        {"format": EXPORT_FORMAT + 1},
        {"runtime": "other"},
        {"precision": "fp16"},
        {"encoders": 1},
        {"files": sorted(GOOD["files"])},
        {"files": GOOD["files"] | {"more.onnx": "f" * 64}},
        {"files": dict.fromkeys(GOOD["files"], None)},
    ],
)
def test_a_manifest_of_anything_else_is_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    (tmp_path / MANIFEST).write_text(json.dumps(GOOD | change))
    with pytest.raises(ModelError, match=f"Expected {MANIFEST} of format {EXPORT_FORMAT} in .*, got another"):
        read_manifest(tmp_path)
