"""A name to a pair of frozen encoders."""

from __future__ import annotations

from pathlib import Path

import torch

from mst_clipiqa.encoders.families import PAIRS
from mst_clipiqa.encoders.pair import EncoderPair
from mst_clipiqa.encoders.precision import DTYPES, INT8, own_settings, resolve_device, resolve_precision
from mst_clipiqa.encoders.threads import reuse_freed_memory
from mst_clipiqa.errors import ModelError, UsageError, nearest


def load_encoders(
    source: str, device: str | torch.device = "auto", precision: str = "auto", merge: int = 0
) -> EncoderPair:
    """Return a frozen pair of encoders on a device.

    Args:
        source: "mini" (ships in the package); a short name of ``PAIRS``, such as "openai" (the paper's pair);
            "COARSE,FINE" (two local folders or hub ids of the families that ``families.py`` lists; the coarse one has
            fewer patches per view); "COARSE,FINE,TEXT" with a text encoder of its own; or a folder of small encoders
            like mini's.
        device: "auto", "cpu", "cuda", "mps".
        precision: of the image towers: "auto", "fp32", "bf16", "fp16", or "int8" on a CPU (mini and CLIP-like encoders
            only).
        merge: tokens to merge in each block of the image encoder with more of them (CLIP-like encoders only); the other
            merges as large a share. 0 merges none and changes no bit.

    Raises:
        ModelError: the name is unknown, or its files cannot be loaded.
        UsageError: this machine lacks the device, or the encoders the precision or tokens to merge.
    """
    # Tensors made in the caller's inference mode could never be part of a graph.
    with torch.inference_mode(False), own_settings(torch.device("cpu")):
        pair = _whole(source, device, precision)
    if merge:
        merge_tokens = getattr(pair, "merge_tokens", None)
        if merge_tokens is None:
            raise UsageError(f"Expected CLIP-like encoders for --merge, got {source}: leave it out.")
        merge_tokens(merge)
    return pair


def _whole(source: str, device: str | torch.device, precision: str) -> EncoderPair:
    """Return a pair that merges no tokens."""
    where = device if isinstance(device, torch.device) else resolve_device(device)
    if where.type == "cpu":
        reuse_freed_memory()
    if source == "mini" or ("," not in source and (Path(source) / "config.json").is_file()):
        from mst_clipiqa.encoders.mini.folder import MINI, load_mini_pair

        mini = load_mini_pair(MINI if source == "mini" else Path(source), source)
        is_int8 = precision == "auto" and where.type == "cpu" and mini.has_int8
        small: EncoderPair = mini.to(where, INT8 if is_int8 else resolve_precision(precision, where))
        return small
    from mst_clipiqa.encoders.clip import load_clip_pair

    names = named_encoders(source)
    if len(names) not in (2, 3) or not all(names):
        short = ", ".join(f"'{name}'" for name in ("mini", *PAIRS))
        raise ModelError(f"Expected encoders {short} or 'COARSE,FINE', got {source!r}{nearest(source, PAIRS)}.")
    dtype = DTYPES.get(resolve_precision(precision, where), torch.float32)
    return load_clip_pair(names[0], names[1], source, dtype, *names[2:]).to(where, precision)


def with_text_encoder(source: str, text: str | None) -> str:
    """Return the name of a pair with another text encoder, as ``load_encoders`` takes it: "COARSE,FINE,TEXT".

    Args:
        source: the name of a pair.
        text: folder or hub id of a text encoder for the same images; None changes nothing.

    Raises:
        UsageError: the encoders are mini's, which have a text encoder of their own.
    """
    if text is None:
        return source
    names = named_encoders(source)
    if len(names) not in (2, 3) or not all(names) or not text.strip() or "," in text:
        raise UsageError(
            f"Expected --text-encoder with one folder or hub id beside encoders {', '.join(PAIRS)} or COARSE,FINE, "
            f"got {text!r} beside {source!r}: choose other --encoders, or leave it out."
        )
    return ",".join((*names[:2], text.strip()))


def named_encoders(source: str) -> tuple[str, ...]:
    """Return the folders or hub ids of a name, short or in full."""
    known = PAIRS.get(source)
    return (known.coarse, known.fine) if known else tuple(part.strip() for part in source.split(","))
