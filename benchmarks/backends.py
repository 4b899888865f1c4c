"""The image towers of two ViT-B encoders and of mini, on torch, ONNX Runtime and OpenVINO, side by side.

    python -m benchmarks.backends [--root AGIQA-3K]

Views are ready in memory; every backend has all cores, and the backends take turns. With --root, mini's int8 export is
also compared with its fp32 by agreement with people. OpenVINO is measured where it is installed. Below fp32 torch
encodes 16 pictures at a time, so give a multiple of it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.machine import machine, report
from benchmarks.protocol import random_pair
from mst_clipiqa.data import load
from mst_clipiqa.embedded.encoders import load_mini_pair
from mst_clipiqa.evaluate import srcc
from mst_clipiqa.export import export, write_towers
from mst_clipiqa.exported import use_exported
from mst_clipiqa.model.mstfe import EncoderPair
from mst_clipiqa.scorer import Request, Scorer

TURNS = 3
Pair = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=32)
    parser.add_argument("--root", type=Path, help="folder of AGIQA-3K")
    parser.add_argument("-o", "--output", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        pairs: tuple[tuple[str, Pair], ...] = (("ViT-B", random_pair), ("mini", load_mini_pair))
        rows = [row for name, make in pairs for row in measure(name, make, args.pictures, Path(folder) / name)]
        found: dict[str, Any] = {"claim": (__doc__ or "").splitlines()[0], "backends": rows}
        if args.root:
            found["mini_int8_against_people"] = people(args.root, Path(folder) / "people")
    report({**found, "machine": machine()}, args.output)


def measure(name: str, make: Pair, pictures: int, folder: Path) -> list[dict[str, Any]]:
    """Return each backend's rate, its ratio to torch's fp32, and the smallest cosine with that one's features."""
    runs: dict[str, EncoderPair] = {f"torch {kind}": make().to("cpu", kind) for kind in ("fp32", "bf16")}
    for int8 in (False, True):
        out = folder / str(int8)
        out.mkdir(parents=True)
        write_towers(runs["torch fp32"], out, int8)
        runs["onnx int8" if int8 else "onnx fp32"] = use_exported(make(), out)
    runs |= {f"openvino {kind}": pair for kind in ("fp32", "bf16") if (pair := openvino(make(), kind)) is not None}
    view = runs["torch fp32"].view
    coarse = torch.randint(0, 256, (pictures, 3, view.size, view.size), dtype=torch.uint8)
    shape = (pictures, view.crops, 3, view.crop_size, view.crop_size)
    fine = torch.randint(0, 256, shape, dtype=torch.uint8) if view.fine == "native" else None
    seconds: dict[str, list[float]] = {key: [] for key in runs}
    features = {}
    for _ in range(TURNS + 1):  # the first turn warms up
        for key, pair in runs.items():
            start = time.perf_counter()
            features[key] = torch.cat(pair.encode_views(coarse, fine), dim=1)
            seconds[key].append(time.perf_counter() - start)
    medians = {key: statistics.median(times[1:]) for key, times in seconds.items()}
    return [
        {
            "encoders": name,
            "backend": key,
            "pictures_per_second": pictures / medians[key],
            "times_torch_fp32": medians["torch fp32"] / medians[key],
            "smallest_cosine": torch.cosine_similarity(features[key], features["torch fp32"]).min().item(),
        }
        for key in runs
    ]


def openvino(pair: Any, kind: str) -> Any:
    """Return a pair whose towers OpenVINO computes, without its converter: from nothing but ONNX files, or None."""
    try:
        import openvino as ov
    except ImportError:
        return None
    from mst_clipiqa.exported import RuntimeTower, rest_of

    with tempfile.TemporaryDirectory() as folder:
        write_towers(pair, Path(folder), False)
        threads = torch.get_num_threads()
        how = {"INFERENCE_PRECISION_HINT": "f32" if kind == "fp32" else kind, "INFERENCE_NUM_THREADS": threads}
        for side in ("coarse", "fine"):
            model = ov.Core().read_model(str(Path(folder) / f"{side}.onnx"))
            compiled = ov.Core().compile_model(model, "CPU", how)

            def run(pixels: Any, compiled: Any = compiled) -> Any:
                return compiled([pixels])[0].copy()

            rest = rest_of(getattr(pair.mstfe, f"encoder_{side}"))
            setattr(pair.mstfe, f"encoder_{side}", RuntimeTower(run, rest, False))
    return pair


def people(root: Path, folder: Path) -> dict[str, float]:
    """Return SRCC with people of mini in fp32 and in int8, over all pictures that are there."""
    records = load("agiqa-3k", root, allow_missing=True).records
    requests = [Request(str(record.file), record.prompt) for record in records]
    export("mini", folder, int8=True)
    found: dict[str, float] = {"pictures": float(len(records))}
    for kind, how in (("fp32", {"precision": "fp32"}), ("int8", {"backend": str(folder)})):
        scores = list(Scorer.load("mini", **how).many(requests))
        for target in ("quality", "correspondence"):
            pairs = [(s.targets[target], r.targets[target]) for s, r in zip(scores, records, strict=True)]
            told, mos = np.array([pair for pair in pairs if pair[0] is not None], dtype=np.float64).T
            found[f"srcc_{target}_{kind}"] = srcc(told, mos)
    return found


if __name__ == "__main__":
    main()
