"""The image towers of two ViT-B encoders on torch, ONNX Runtime and OpenVINO.

    python -m speed.backends

The encoders have the real sizes and random weights. Views are ready in memory; every backend has all cores, and the
backends take turns. OpenVINO is measured where it is installed. ``mini`` has no networks to export.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mst_clipiqa.encoders.clip import CLIPPair
from mst_clipiqa.encoders.onnx_export import write_towers
from mst_clipiqa.encoders.onnx_runtime import FILES, ONNXPair, Run, open_exported
from mst_clipiqa.encoders.pair import EncoderPair, encode_views
from mst_clipiqa.model.mstfe import Stream
from speed.machine import machine, report
from speed.random_pair import random_pair

TURNS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(args.images, Path(folder))
    report({"claim": (__doc__ or "").splitlines()[0], "backends": rows, "machine": machine()}, args.output)


def measure(images: int, folder: Path) -> list[dict[str, Any]]:
    """Return each backend's rate, its ratio to torch's fp32, and the smallest cosine with that one's features."""
    plain = random_pair()
    runs: dict[str, EncoderPair] = {"torch fp32": plain, "torch bf16": random_pair().to("cpu", "bf16")}
    for int8 in (False, True):
        out = folder / str(int8)
        out.mkdir(parents=True)
        write_towers(plain, out, int8)
        runs["onnx int8" if int8 else "onnx fp32"] = open_exported(plain, out)
    if importlib.util.find_spec("openvino"):
        runs |= {f"openvino {kind}": openvino(plain, kind) for kind in ("fp32", "bf16")}
    coarse = torch.randint(0, 256, (images, 3, plain.view.size, plain.view.size), dtype=torch.uint8)
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    features = {}
    for _ in range(TURNS + 1):  # the first turn warms up
        for key, pair in runs.items():
            start = time.perf_counter()
            features[key] = torch.cat(encode_views(pair, coarse), dim=1)
            seconds[key].append(time.perf_counter() - start)
    medians = {key: statistics.median(times[1:]) for key, times in seconds.items()}
    return [
        {
            "backend": key,
            "images_per_second": images / medians[key],
            "times_torch_fp32": medians["torch fp32"] / medians[key],
            "smallest_cosine": torch.cosine_similarity(features[key], features["torch fp32"]).min().item(),
        }
        for key in runs
    ]


def openvino(pair: CLIPPair, kind: str) -> ONNXPair:
    """Return a pair whose image encoders OpenVINO computes, read from ONNX files."""
    ov: Any = importlib.import_module("openvino")
    towers: dict[Stream, Run] = {}
    with tempfile.TemporaryDirectory() as folder:
        write_towers(pair, Path(folder), False)
        threads = torch.get_num_threads()
        how = {"INFERENCE_PRECISION_HINT": "f32" if kind == "fp32" else kind, "INFERENCE_NUM_THREADS": threads}
        for stream, name in FILES.items():
            model = ov.Core().read_model(str(Path(folder) / name))
            compiled = ov.Core().compile_model(model, "CPU", how)

            def run(pixels: Any, compiled: Any = compiled) -> Any:
                return compiled([pixels])[0].copy()

            towers[stream] = run
    return ONNXPair(pair, towers, "fp32")


if __name__ == "__main__":
    main()
