"""An image and a prompt after the encoders: features and token states."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class Encoded:
    """An image after the encoders.

    Attributes:
        f_c, f_f: features, float32 (D,), on the CPU.
        width, height: of the upright image, pixels.
        note: a remark that belongs beside its scores; such features are not cached.
        granularity: what was looked at: "coarse", "native:K" or "fine"; None if nothing but fine was asked for.
    """

    f_c: Tensor
    f_f: Tensor
    width: int
    height: int
    note: str = ""
    granularity: str | None = None


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt after the text encoder.

    Attributes:
        tokens: T, float32 (L, D), real tokens only, on the CPU.
        truncated: whether the prompt was longer than the encoder reads.
        in_vocabulary: whether the encoder was trained on the prompt's words.
        embedding: projected, of unit length, float32 (D,); None if it was not asked for, and never cached.
        unread: whether the encoder was not trained on some of the words.
    """

    tokens: Tensor
    truncated: bool
    in_vocabulary: bool
    embedding: Tensor | None = None
    unread: bool = False
