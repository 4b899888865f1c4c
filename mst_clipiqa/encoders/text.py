"""Prompts to token ids: what every text encoder does before and after its tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int64
from torch import Tensor, nn

from mst_clipiqa.model.shapes import TokenMask

MAX_CHARS = 20_000
"""Characters read of a prompt: far more than any encoder reads, and few enough to tokenize in milliseconds."""


def tokenizable(prompt: str) -> str:
    r"""Return a prompt as the tokenizer gets it: lone surrogates become "?", NUL a space, the rest is cut off.

    Example:
        >>> tokenizable("a\0cat \ud800")
        'a cat ?'
    """
    return prompt[:MAX_CHARS].encode("utf-8", "replace").decode("utf-8").replace("\0", " ")


def padded_ids(
    rows: Sequence[Sequence[int]], prompts: Sequence[str], length: int, *, pad: int, keep_last: bool
) -> tuple[Int64[Tensor, "batch length"], TokenMask, list[bool]]:
    """Return rows of token ids as one tensor, cut to fit the text encoder.

    Args:
        rows: token ids of each prompt, special tokens included.
        prompts: the texts of the rows, before ``tokenizable``.
        length: tokens that the encoder reads.
        pad: the id of the padding.
        keep_last: whether a row that is cut keeps its last token, as CLIP's text encoder needs.

    Returns:
        ids, int64 (batch, L); mask, bool (batch, L), True for real tokens; whether each prompt was cut.

    Example:
        >>> padded_ids([[1, 5, 6, 2], [1, 2]], ["red fox", ""], 3, pad=0, keep_last=True)
        (tensor([[1, 5, 2],
                [1, 2, 0]]), tensor([[ True,  True,  True],
                [ True,  True, False]]), [True, False])
    """
    truncated = [len(row) > length or len(text) > MAX_CHARS for row, text in zip(rows, prompts, strict=True)]
    end = 1 if keep_last else 0
    cut = [row if len(row) <= length else [*row[: length - end], *row[len(row) - end :]] for row in rows]
    ids = nn.utils.rnn.pad_sequence(
        [torch.tensor(row, dtype=torch.int64) for row in cut], batch_first=True, padding_value=pad
    )
    mask = torch.arange(ids.shape[1]) < torch.tensor([len(row) for row in cut]).unsqueeze(1)
    return ids, mask, truncated
