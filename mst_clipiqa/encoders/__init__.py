"""A name to a pair of frozen encoders."""

from __future__ import annotations

from pathlib import Path

import torch

from mst_clipiqa.encoders.clip_files import OPENAI_PAIR
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.precision import DTYPES, INT8, resolve_device, resolve_precision
from mst_clipiqa.encoders.threads import reuse_freed_memory
from mst_clipiqa.errors import ModelError, UsageError


def load_encoders(source: str, device: str | torch.device = "auto", precision: str = "auto") -> EncoderPair:
    """Return a frozen pair of encoders on a device.

    Args:
        source: "mini" (ships in the package), "openai" (the paper's pair), "COARSE,FINE" (two local folders or hub
            ids of CLIP models; the coarse one has the larger patch), or a folder of small encoders like mini's.
        device: "auto", "cpu", "cuda", "mps".
        precision: "auto", "fp32", "bf16", "fp16", or "int8" for small encoders on a CPU; for the image towers only.

    Raises:
        ModelError: the name is unknown, or its files cannot be loaded.
        UsageError: this machine lacks the device, or the encoders the precision.
    """
    where = device if isinstance(device, torch.device) else resolve_device(device)
    how = resolve_precision(precision, where)
    if where.type == "cpu":
        reuse_freed_memory()
    if source == "mini" or ("," not in source and (Path(source) / "config.json").is_file()):
        from mst_clipiqa.encoders.mini.pair import MINI, load_mini_pair

        mini = load_mini_pair(MINI if source == "mini" else Path(source), source)
        if precision == "auto" and where.type == "cpu" and mini.has_int8:
            how = INT8
        small: EncoderPair = mini.to(where, how)
        return small
    if how == INT8:
        raise UsageError(f"Expected precision auto, fp32, bf16 or fp16 for {source}, got int8: only mini has it.")
    from mst_clipiqa.encoders.clip import load_clip_pair

    names = OPENAI_PAIR if source == "openai" else tuple(part.strip() for part in source.split(","))
    if len(names) != 2 or not all(names):
        raise ModelError(f"Expected encoders 'mini', 'openai' or 'COARSE,FINE', got {source!r}.")
    return load_clip_pair(names[0], names[1], source, DTYPES[how]).to(where, how)
